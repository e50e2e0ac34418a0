"""PASCAL VOC with unknown labels, boxes, and a choice of classes and images."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

import numpy as np
from mmpretrain.datasets import VOC
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.annotation_files import AnnotationError, check_path, read_text
from mhc_plugin.datasets.class_lists import near_names
from mhc_plugin.datasets.image_files import ImageFolder, read_image_header
from mhc_plugin.datasets.label_table import BoxTable, LabelTable
from mhc_plugin.datasets.sample_table import SampleTable
from mhc_plugin.datasets.subset import SubsetMixin, chosen_classes
from mhc_plugin.datasets.transforms.boxes import keeps_whole_image
from mhc_plugin.functional.checks import check_choice

from .xml_files import VOCObject, read_voc_xml

_DIFFICULT = dict(unknown=-1, positive=1, negative=0)
# No separators: a name stays in its folder.
_NAME = re.compile(r'(?!\.\.?$)[^/\\\x00-\x1f]{1,255}')
_NAME_AND_FLAG = re.compile(r'(.+?)\s+(?:1|0|-1)')
# How much the ratio of an image's sides may differ from that in which its boxes were drawn.
_RATIO_MARGIN = 0.02


@DATASETS.register_module()
class VOCSubset(SubsetMixin, VOC):
    """Images of one or several VOC sets with some of the classes.

    A class is present (1) where an object of it is not difficult; where all its objects are
    difficult, ``difficult`` decides; else it is absent (0). Unlike MMPretrain's ``VOC`` it gives
    ``gt_score``, reads XML safely, and says which file and line it cannot use. Images that the
    split names but that are missing, or whose annotation is, are left out and counted.

    Boxes are in ``gt_bboxes`` (float32 ``(n, 4)``, x1, y1, x2, y2 in pixels of the image as it is
    shown, which mmcv's transforms rewrite), ``gt_bboxes_labels`` (int64) and ``gt_bbox_difficult``
    (bool), but only where there is a pipeline and it keeps the whole image;
    :class:`NormalizeBoxes` prepares them for ``PackInputs``. They are turned with images that EXIF
    turns and that were annotated as they are stored, and scaled with images that were resized after
    they were annotated, as the annotation's ``<size>`` tells; where its sides have another ratio
    than the image's, the boxes are left out and the image is counted.

    Args:
        data_root (str | Sequence[str]): One VOC root (the folder with ``JPEGImages``), or several,
            such as VOC2007 and VOC2012. Of several, those without the split are left out with a
            warning, as VOC2012 has no labels for 'test'.
        split (str): Name of a file in ``ImageSets/Main``; files of one class, such as
            ``dog_train``, name images, too. Defaults to 'trainval'.
        classes (Sequence[str] | str | dict, optional): Names of the classes, or a file with one a
            line; or how to choose some of VOC's twenty: ``dict(split='trainval')`` and arguments
            of :func:`choose_classes`. Defaults to None, which means VOC's twenty.
        difficult (str): What a class is whose objects are all difficult: 'unknown', 'positive' or
            'negative'. Defaults to 'unknown'.
        min_labels (int): Fewest classes present in an image. Defaults to 0.
        max_labels (int, optional): Most classes present in an image. Defaults to None, no limit.
        max_images (int, optional): Most images, see :func:`choose_images`. Defaults to None, all.
        seed (int): Seed of that choice. Defaults to 0.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: If an argument does not fit.
        FileNotFoundError: If no root has the split.
        AnnotationError: If a file is damaged, or if no image is left.
    """

    def __init__(
        self,
        data_root: str | Sequence[str],
        split: str = 'trainval',
        classes: Sequence[str] | str | dict | None = None,
        difficult: str = 'unknown',
        min_labels: int = 0,
        max_labels: int | None = None,
        max_images: int | None = None,
        seed: int = 0,
        **kwargs,
    ) -> None:
        check_choice('difficult', difficult, tuple(_DIFFICULT))
        self.roots = [data_root] if isinstance(data_root, str | PathLike) else list(data_root)
        if not self.roots:
            raise ValueError(
                f'Expected argument `data_root` to be one path or several, but got {data_root!r}.'
            )
        self.difficult = difficult
        self.split = split
        self.init_subset(min_labels, max_labels, max_images, seed)
        if isinstance(classes, dict):
            classes = chosen_classes(VOCSubset, classes, data_root=data_root, difficult=difficult)
        # Given a path, MMPretrain's VOC leaves `split` alone, of which it allows four.
        super().__init__(
            data_root=str(self.roots[0]),
            split='',
            image_set_path=f'ImageSets/Main/{split}.txt',
            data_prefix=dict(img_path='JPEGImages', ann_path='Annotations'),
            classes=classes,
            serialize_data=False,
            **kwargs,
        )

    def read_samples(self) -> SampleTable:
        """Read the annotations of all images of the split."""
        roots = self._roots_with_split()
        self.sources = [path for _, path in roots]
        folder_of, names, labels, sizes = [], [], [], []
        boxes = _BoxLists(self.class_to_idx)
        seen: set[str] = set()
        for folder, (root, split_file) in enumerate(roots):
            for file, xml_path in self._files(root, split_file):
                annotation = read_voc_xml(xml_path)
                objects = self._chosen_objects(annotation.objects, xml_path, seen)
                folder_of.append(folder)
                names.append(file.encode())
                labels.append(self._labels(objects))
                sizes.append(annotation.size or (0, 0))
                boxes.add(objects)
        if not names:
            raise AnnotationError(
                f'No image of the split {self.split!r} has both a file and an annotation in '
                f'{", ".join(map(str, self.roots))}.'
            )
        self._check_classes(seen)
        samples = SampleTable(
            folders=[os.path.join(root, 'JPEGImages') for root, _ in roots],
            folder_of=np.array(folder_of, np.uint8),
            names=np.array(names, np.bytes_),
            labels=LabelTable.from_dense(np.stack(labels), fill=0),
        )
        # Boxes need the images' headers, labels do not.
        transforms = self.pipeline.transforms
        if not transforms or not keeps_whole_image(transforms):
            return samples
        return replace(samples, boxes=self._placed(boxes.to_table(), samples, np.array(sizes)))

    def _placed(self, boxes: BoxTable, samples: SampleTable, sizes: np.ndarray) -> BoxTable:
        """Boxes in pixels of the images as they are shown, which may be turned or resized.

        Sizes tell pictures that were drawn on as they are stored from those drawn on as they are
        shown, but only where that exchanges width and height. What most of these say holds for
        the others, since annotation tools turn all images or none.

        Args:
            boxes (BoxTable): Boxes in pixels of the images in which they were drawn.
            samples (SampleTable): The images.
            sizes (np.ndarray): Width and height of the images in which the boxes were drawn, 0
                where nothing says so, ``(n, 2)``.
        """
        headers = {
            row: read_image_header(samples.path(row))
            for row in np.flatnonzero(np.diff(boxes.offsets))
        }
        turned = {row: image for row, image in headers.items() if image.orientation != 1}
        errors = {
            row: [_ratio_error(sizes[row], size) for size in (image.size, image.shown_size)]
            for row, image in headers.items()
            if sizes[row].all()
        }
        votes = [np.sign(errors[row][1] - errors[row][0]) for row in turned if row in errors]
        on_stored = sum(votes) > 0
        corners, kept = boxes.corners.copy(), np.ones(len(boxes.corners), bool)
        for row, image in headers.items():
            part = slice(boxes.offsets[row], boxes.offsets[row + 1])
            if row not in errors:
                continue
            # Sides of a resized image are rounded.
            if min(errors[row]) > _RATIO_MARGIN + 1 / min(*sizes[row], *image.size):
                self.left_out.add(
                    'images whose sides have another ratio than those of their annotation, and '
                    'whose boxes are not used',
                    samples.path(row),
                )
                kept[part] = False
                continue
            shares = corners[part] / np.tile(sizes[row], 2)
            stored, shown = errors[row]
            if stored < shown or (stored == shown and on_stored):
                shares = image.turn(shares)
            corners[part] = shares * np.tile(image.shown_size, 2)
        if turned and not any(votes):
            self.left_out.add(
                'turned images whose annotations do not say whether they were drawn upright, which '
                'is taken for granted',
                samples.path(next(iter(turned))),
                len(turned),
            )
        return boxes.keep(corners, kept)

    def extra_repr(self) -> list[str]:
        """Lines that MMPretrain adds to the printed form."""
        return [
            f'Roots: \t{", ".join(map(str, self.roots))}',
            f'Split: \t{self.split}',
            f'Difficult objects: \t{self.difficult}',
        ]

    def _roots_with_split(self) -> list[tuple[str, str]]:
        """The roots that have the split, and its file in each."""
        found = []
        for root in self.roots:
            path = os.path.join(root, 'ImageSets', 'Main', f'{self.split}.txt')
            if os.path.isfile(path):
                found.append((root, path))
            elif os.path.isdir(root):
                self.left_out.add('roots without the split', path)
            else:
                self.left_out.add('roots that do not exist', root)
        if not found:
            check_path(self.roots[0], 'data_root')
            check_path(path, 'split')
        return found

    def _files(self, root: str, path: str) -> list[tuple[str, str]]:
        """The image and the path of the annotation for each name of the split that has both."""
        images = ImageFolder(os.path.join(root, 'JPEGImages'))
        found = []
        for name, line in read_split(path).items():
            file = images.find(name)
            where = f'{path}, line {line}'
            if file is None:
                self.left_out.add('images of the split without a file', where)
                continue
            for stem in (name, os.path.splitext(file)[0]):
                xml_path = os.path.join(root, 'Annotations', f'{stem}.xml')
                if os.path.isfile(xml_path):
                    found.append((file, xml_path))
                    break
            else:
                self.left_out.add('images of the split without an annotation', where)
        return found

    def _chosen_objects(
        self, objects: list[VOCObject], path: str, seen: set[str]
    ) -> list[VOCObject]:
        """Objects of our classes; ``seen`` gathers the names of all."""
        chosen = []
        for found in objects:
            seen.add(found.name)
            if found.name in self.class_to_idx:
                chosen.append(found)
                if found.box is None:
                    self.left_out.add('objects without a box', f'{path}, line {found.line}')
            elif found.name not in self.METAINFO['classes']:
                self.left_out.add(
                    'objects of classes that VOC does not have', f'{path}, line {found.line}'
                )
        return chosen

    def _labels(self, objects: list[VOCObject]) -> np.ndarray:
        labels = np.zeros(len(self.CLASSES), np.int8)
        # The difficult ones first: one that is not difficult settles it.
        for found in sorted(objects, key=lambda found: not found.difficult):
            value = _DIFFICULT[self.difficult] if found.difficult else 1
            labels[self.class_to_idx[found.name]] = value
        return labels

    def _check_classes(self, seen: set[str]) -> None:
        unknown = [
            name
            for name in self.CLASSES
            if name not in self.METAINFO['classes'] and name not in seen
        ]
        if unknown:
            known = seen.union(self.METAINFO['classes'])
            raise ValueError(
                'Expected argument `classes` to name classes of VOC or of the annotations, but got '
                f'{unknown[0]!r}{near_names(unknown[0], known)}; there are '
                f'{", ".join(sorted(known))}.'
            )


def read_split(path: str | PathLike) -> dict[str, int]:
    """Read the names of images of a file in ``ImageSets/Main``, and the line of each.

    A line is a name, which may hold spaces, or a name and 1, -1 or 0 as in the files of one class.
    A name that is repeated counts once.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If a line is anything else.
    """
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        line = line.strip()
        if not line:
            continue
        with_flag = _NAME_AND_FLAG.fullmatch(line)
        name = with_flag[1] if with_flag else line
        if not _NAME.fullmatch(name):
            raise AnnotationError(
                'Expected the name of an image, perhaps followed by 1, -1 or 0, but got '
                f'{line!r:.100}.',
                path,
                number,
            )
        names.setdefault(name, number)
    return names


def _ratio_error(size: Sequence[float], other: Sequence[float]) -> float:
    """How much the ratios of the sides of two images differ; 0.1 is about a tenth."""
    return abs(math.log(size[0] * other[1] / (size[1] * other[0])))


class _BoxLists:
    """Boxes of one image after the other."""

    def __init__(self, class_to_idx: dict[str, int]) -> None:
        self._class_to_idx = class_to_idx
        self._counts: list[int] = []
        self._boxes: list[VOCObject] = []

    def add(self, objects: list[VOCObject]) -> None:
        boxes = [found for found in objects if found.box is not None]
        self._counts.append(len(boxes))
        self._boxes += boxes

    def to_table(self) -> BoxTable:
        return BoxTable(
            offsets=np.concatenate([[0], np.cumsum(self._counts, dtype=np.int64)]),
            corners=np.array([found.box for found in self._boxes], np.float32).reshape(-1, 4),
            classes=np.array([self._class_to_idx[found.name] for found in self._boxes], np.int16),
            difficult=np.array([found.difficult for found in self._boxes], bool),
            normalized=False,
        )
