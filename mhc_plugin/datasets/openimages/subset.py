"""OpenImages as it is downloaded, with a choice of classes and images."""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.annotation_files import AnnotationError, check_path
from mhc_plugin.datasets.sample_table import SampleTable
from mhc_plugin.datasets.subset import SubsetMixin, chosen_classes
from mhc_plugin.functional.checks import check_choice

from .annotations import OpenImagesFiles, check_split, read_annotations, resolve_classes
from .csv_files import read_class_descriptions

_LABELS = ('image', 'boxes', 'both')


@DATASETS.register_module()
class OpenImagesSubset(SubsetMixin, BaseDataset):
    """Images of one split of OpenImages, V2 to V7, with some of the classes.

    A class is present (1) or absent (0) where a person verified it, and unknown (-1) elsewhere.
    The files are read as they are published and found under their usual names; where several
    are there, those of the boxable classes are taken, and ``label_file`` or ``class_file`` names
    another. Images are ``<data_root>/<split>/<ImageID>.jpg``; rows of images that are not there
    are left out and counted. A million images take some 50 MB.

    Boxes, where they are kept, are in ``results`` and on the data sample as :class:`VOCSubset`
    has them, none of them difficult.

    Args:
        data_root (str): Folder of the CSV files.
        split (str): 'train', 'validation' or 'test'. Defaults to 'train'.
        classes (Sequence[str] | str | dict, optional): Display names or MIDs of the classes, or a
            file with one a line; or how to choose some: ``dict(split='train')`` and arguments of
            :func:`choose_classes`. Defaults to None, which means all that the file of classes
            names.
        labels (str): What says that a class is present: 'image' (verified image-level labels),
            'boxes' (a box of it; nothing is then known to be absent) or 'both'.
            Defaults to 'image'.
        with_boxes (bool): Whether to keep boxes, for scoring maps. Defaults to False.
        depictions (bool): Whether a box of a drawing or the like counts as its class. Boxes of
            groups always do. Defaults to True.
        min_labels (int): Fewest classes present in an image. Defaults to 0.
        max_labels (int, optional): Most classes present in an image. Defaults to None, no limit.
        max_images (int, optional): Most images, see :func:`choose_images`. Defaults to None, all.
        seed (int): Seed of that choice. Defaults to 0.
        image_folder (str): Folder of the images, below ``data_root`` if relative; ``<split>`` in
            it stands for ``split``. Defaults to ``'<split>'``.
        require_images (bool): Whether images that are not on disk are left out. Without, labels
            can be looked at before anything is downloaded. Defaults to True.
        class_file, label_file, box_file (str, optional): Files with other names, below
            ``data_root`` if relative; ``<split>`` stands for ``split``. Defaults to None.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: If an argument does not fit.
        FileNotFoundError: If a file or folder is missing.
        AnnotationError: If a file is damaged, or if no image is left.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        classes: Sequence[str] | str | dict | None = None,
        labels: str = 'image',
        with_boxes: bool = False,
        depictions: bool = True,
        min_labels: int = 0,
        max_labels: int | None = None,
        max_images: int | None = None,
        seed: int = 0,
        image_folder: str = '<split>',
        require_images: bool = True,
        class_file: str | None = None,
        label_file: str | None = None,
        box_file: str | None = None,
        **kwargs,
    ) -> None:
        check_split(split)
        check_choice('labels', labels, _LABELS)
        self.split = split
        self.labels = labels
        self.with_boxes = with_boxes
        self.depictions = depictions
        self.require_images = require_images
        self.file_names = dict(class_file=class_file, label_file=label_file, box_file=box_file)
        self.init_subset(min_labels, max_labels, max_images, seed)
        if isinstance(classes, dict):
            classes = chosen_classes(
                OpenImagesSubset,
                classes,
                data_root=data_root,
                labels=labels,
                depictions=depictions,
                image_folder=image_folder,
                require_images=require_images,
                **self.file_names,
            )
        super().__init__(
            ann_file='',
            data_root=str(data_root),
            data_prefix=image_folder.replace('<split>', split),
            classes=classes,
            serialize_data=False,
            **kwargs,
        )

    def read_samples(self) -> SampleTable:
        """Read the annotations of all images of the split that are there."""
        files = OpenImagesFiles.find(
            self.data_root,
            self.split,
            labels=self.labels != 'boxes',
            boxes=self.labels != 'image' or self.with_boxes,
            **self.file_names,
        )
        self.sources = files.paths
        if self.require_images:
            check_path(self.img_prefix, 'image_folder')
        classes = read_class_descriptions(files.classes)
        if self.CLASSES is not None:
            classes = resolve_classes(classes, self.CLASSES)
        # Some classes of V7 share a name.
        counts = Counter(classes.values())
        self._metainfo['classes'] = tuple(
            name if counts[name] == 1 else f'{name} ({mid})' for mid, name in classes.items()
        )
        read = read_annotations(
            files,
            list(classes),
            label_boxes=self.labels != 'image',
            keep_boxes=self.with_boxes,
            depictions=self.depictions,
            image_folder=self.img_prefix if self.require_images else None,
        )
        if not len(read.ids):
            raise AnnotationError(
                f'None of the {read.images_left_out:,} images that the files of {self.split} name '
                f'is in {self.img_prefix} as <ImageID>.jpg; set `image_folder`.'
            )
        self.left_out.add('images without a file', self.img_prefix, read.images_left_out)
        self.left_out.add('their rows of the chosen classes', self.img_prefix, read.rows_left_out)
        return SampleTable(
            folders=[self.img_prefix],
            folder_of=np.zeros(len(read.ids), np.uint8),
            names=read.ids,
            labels=read.labels,
            boxes=read.boxes,
            ending='.jpg',
        )

    def extra_repr(self) -> list[str]:
        """Lines that MMPretrain adds to the printed form."""
        return [
            f'Annotations: \t{self.data_root}',
            f'Split: \t{self.split}',
            f'Images: \t{os.path.join(self.img_prefix, "<ImageID>.jpg")}',
            f'Labels by: \t{self.labels}',
        ]
