"""Count a multi-label set and show what choosing images did to it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from .label_table import LabelTable


class LabelCounts(NamedTuple):
    """What a set of images holds.

    Attributes:
        images (int): Number of images.
        present (np.ndarray): Images with each class, int64 ``(num_classes,)``.
        absent (np.ndarray): Images known to lack each class, int64 ``(num_classes,)``.
        unknown (np.ndarray): The other images, int64 ``(num_classes,)``.
        images_by_labels (np.ndarray): Images with 0, 1, 2, ... classes present, int64.
    """

    images: int
    present: np.ndarray
    absent: np.ndarray
    unknown: np.ndarray
    images_by_labels: np.ndarray

    def to_dict(self, classes: Sequence[str]) -> dict:
        """The same in plain Python, by class name."""
        per_class = {
            name: dict(present=int(present), absent=int(absent), unknown=int(unknown))
            for name, present, absent, unknown in zip(
                classes, self.present, self.absent, self.unknown
            )
        }
        return dict(
            images=self.images, classes=per_class, images_by_labels=self.images_by_labels.tolist()
        )


def count_labels(table: LabelTable) -> LabelCounts:
    """Count images per class and labels per image."""
    return LabelCounts(
        len(table),
        table.count(1),
        table.count(0),
        table.count(-1),
        np.bincount(table.num_positives(), minlength=1),
    )


def print_counts(
    before: LabelCounts,
    after: LabelCounts,
    classes: Sequence[str],
    title: str = '',
    console: Console | None = None,
) -> None:
    """Print images per class and labels per image, before and after images were chosen."""
    console = console or Console()
    per_class = Table('class', title=f'{title} images per class'.strip())
    for when in ('before', 'after'):
        for column in ('present', 'absent', 'unknown'):
            per_class.add_column(f'{column} {when}', justify='right')
    for i, name in enumerate(classes):
        cells = (counts[i] for part in (before, after) for counts in part[1:4])
        per_class.add_row(name, *(f'{count:,}' for count in cells))
    per_image = Table('classes in the image', title=f'{title} images by labels'.strip())
    for when in ('before', 'after'):
        per_image.add_column(f'images {when}', justify='right')
    for number in range(len(before.images_by_labels)):
        per_image.add_row(
            str(number), *(f'{_at(part.images_by_labels, number):,}' for part in (before, after))
        )
    per_image.add_row('all', f'{before.images:,}', f'{after.images:,}')
    console.print(per_class)
    console.print(per_image)


def _at(counts: np.ndarray, place: int) -> int:
    return int(counts[place]) if place < len(counts) else 0
