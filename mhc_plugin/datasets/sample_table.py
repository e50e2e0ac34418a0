"""The samples of a dataset as arrays that look like MMEngine's list of dicts."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .image_files import read_image_header
from .label_table import BoxTable, LabelTable


@dataclass(frozen=True)
class SampleTable(Sequence):
    """``n`` samples; each becomes a dict when it is asked for, so there is nothing to serialise.

    Attributes:
        folders (list[str]): The folders of images.
        folder_of (np.ndarray): uint8 ``(n,)``, places in ``folders``.
        names (np.ndarray): Bytes ``(n,)``, file names without what all of them end in.
        labels (LabelTable): Labels of the ``n`` images.
        boxes (BoxTable, optional): Boxes of the ``n`` images.
        ending (str): What all file names end in. Defaults to ''.
    """

    folders: list[str]
    folder_of: np.ndarray
    names: np.ndarray
    labels: LabelTable
    boxes: BoxTable | None = None
    ending: str = ''

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: int | slice) -> 'dict | SampleTable':
        if isinstance(item, slice):
            return self.take(np.arange(len(self))[item])
        row = range(len(self))[item]
        labels = self.labels.row(row)
        # Of thousands of classes most are unknown: they stay an array.
        return dict(
            self.info(row),
            gt_label=np.flatnonzero(labels == 1).tolist(),
            unknown_label=np.flatnonzero(labels == -1),
            gt_score=labels.astype(np.float32),
        )

    def info(self, row: int) -> dict:
        """A sample without its labels, which take longer than all else where classes are many."""
        sample = dict(img_path=self.path(row))
        if self.boxes is not None:
            corners, classes, difficult = self.boxes.of(row)
            if self.boxes.normalized:
                image = read_image_header(sample['img_path'])
                corners = image.turn(corners) * np.tile(image.shown_size, 2)
            sample.update(
                gt_bboxes=corners.astype(np.float32),
                gt_bboxes_labels=classes,
                gt_bbox_difficult=difficult,
            )
        return sample

    def path(self, row: int) -> str:
        """File of one image."""
        return f'{self.folders[self.folder_of[row]]}/{self.file(row)}'

    def file(self, row: int) -> str:
        """Name of the file of one image."""
        return self.names[row].decode() + self.ending

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
        path = os.path.join(folders[samples.folder_of[row]], samples.file(row))
        yield dict(
            img_path=os.path.normpath(path),
            gt_label=np.flatnonzero(labels == 1).tolist(),
            unknown_label=np.flatnonzero(labels == -1).tolist(),
        )
