"""The samples of a dataset as arrays that look like MMEngine's list of dicts."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .annotation_files import AnnotationError
from .label_table import BoxTable, LabelTable

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class SampleTable(Sequence):
    """``n`` samples; each becomes a dict when it is asked for, so there is nothing to serialise.

    Attributes:
        folders (list[str]): The folders of images.
        folder_of (np.ndarray): uint8 ``(n,)``, places in ``folders``.
        names (np.ndarray): Bytes ``(n,)``, file names without ``.jpg``.
        labels (LabelTable): Labels of the ``n`` images.
        boxes (BoxTable, optional): Boxes of the ``n`` images.
    """

    folders: list[str]
    folder_of: np.ndarray
    names: np.ndarray
    labels: LabelTable
    boxes: BoxTable | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: int | slice) -> 'dict | SampleTable':
        if isinstance(item, slice):
            return self.take(np.arange(len(self))[item])
        row = range(len(self))[item]
        labels = self.labels.row(row)
        sample = dict(
            img_path=self.path(row),
            gt_label=np.flatnonzero(labels == 1).tolist(),
            unknown_label=np.flatnonzero(labels == -1).tolist(),
        )
        if self.boxes is not None:
            corners, classes, difficult = self.boxes.of(row)
            if self.boxes.normalized:
                corners = corners * np.tile(_image_size(sample['img_path']), 2)
            sample.update(
                gt_bboxes=corners.astype(np.float32),
                gt_bboxes_labels=classes,
                gt_bbox_difficult=difficult,
            )
        return sample

    def path(self, row: int) -> str:
        """File of one image."""
        return f'{self.folders[self.folder_of[row]]}/{self.names[row].decode()}.jpg'

    def take(self, rows: np.ndarray) -> 'SampleTable':
        """The chosen samples, in the order of ``rows``."""
        return replace(
            self,
            folder_of=self.folder_of[rows],
            names=self.names[rows],
            labels=self.labels.take(rows),
            boxes=None if self.boxes is None else self.boxes.take(rows),
        )


def sample_entries(samples: SampleTable, root: str) -> Iterator[dict]:
    """What :func:`write_annotations` writes of these samples, paths below ``root``.

    Classes of which nothing is known are in ``unknown_label``, which
    :class:`JSONMultiLabelDataset` reads and MMPretrain's ``MultiLabelDataset`` passes over.
    """
    folders = [os.path.relpath(folder, root) for folder in samples.folders]
    for row in range(len(samples)):
        labels = samples.labels.row(row)
        path = os.path.join(folders[samples.folder_of[row]], f'{samples.names[row].decode()}.jpg')
        yield dict(
            img_path=os.path.normpath(path),
            gt_label=np.flatnonzero(labels == 1).tolist(),
            unknown_label=np.flatnonzero(labels == -1).tolist(),
        )


def _image_size(path: str) -> np.ndarray:
    """Width and height as the image is shown, from its header alone."""
    try:
        with Image.open(Path(path)) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
            return np.array(image.size[::-1] if turned else image.size, np.float32)
    except UnidentifiedImageError:
        raise AnnotationError('The image cannot be read.', path) from None
