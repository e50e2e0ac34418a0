"""What the subsets of VOC and OpenImages share: choosing images, and saying what that did."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from .annotation_files import AnnotationError
from .choose import check_limits, choose_classes, choose_images
from .label_table import LabelTable
from .sample_table import SampleTable
from .targets import MultiLabelTargets
from .transforms.boxes import BOX_KEYS, keeps_whole_image

# A line of the log has room for as many classes.
_MAX_LOGGED = 20


class ImageCounts(NamedTuple):
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


@dataclass
class LeftOut:
    """How many of what could not be used, and where the first of them stands."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, where: str, number: int = 1) -> None:
        """Count ``number`` more of ``what``."""
        if number:
            self.counts[what] = self.counts.get(what, 0) + number
            self.first.setdefault(what, where)


def chosen_classes(dataset_type: type, choice: dict, **arguments) -> list[str]:
    """Choose classes by one split, so that the datasets of all splits agree on them.

    Args:
        dataset_type (type): A subset dataset.
        choice (dict): ``split``, and arguments of :func:`choose_classes`.
        **arguments: Other arguments of the dataset.

    Raises:
        ValueError: If ``choice`` names no split.
    """
    choice = dict(choice)
    if 'split' not in choice:
        raise ValueError(
            'Expected argument `classes`, where it says how to choose, to name the '
            f'`split` that decides, but got {choice}.'
        )
    everything = dataset_type(split=choice.pop('split'), **arguments)
    return [everything.CLASSES[i] for i in choose_classes(everything.data_list.labels, **choice)]


class SubsetMixin(MultiLabelTargets, ABC):
    """Choose images by their number of classes, and keep the samples in arrays.

    A dataset that uses it stands before MMPretrain's in its bases, calls
    :meth:`init_subset` before its base's constructor and implements :meth:`read_samples`.

    Attributes:
        counts_before (ImageCounts): Labels of all images that were found.
        counts_after (ImageCounts): Labels of the images that were chosen.
        left_out (LeftOut): How many of what could not be used.
        sources (list[str]): The files that name the images.
    """

    counts_before: ImageCounts
    counts_after: ImageCounts
    sources: list[str]

    def init_subset(
        self, min_labels: int, max_labels: int | None, max_images: int | None, seed: int
    ) -> None:
        """Check and keep the arguments that choose images."""
        check_limits(min_labels, max_labels, max_images)
        self.min_labels = min_labels
        self.max_labels = max_labels
        self.max_images = max_images
        self.seed = seed
        self.left_out = LeftOut()

    @abstractmethod
    def read_samples(self) -> SampleTable:
        """Read all samples, before any choice; count in ``left_out`` what cannot be used."""

    def load_data_list(self) -> SampleTable:
        """Read the samples and choose among them."""
        samples = self.read_samples()
        rows = choose_images(
            samples.labels, self.max_images, self.min_labels, self.max_labels, self.seed
        )
        chosen = samples if len(rows) == len(samples) else samples.take(rows)
        self.counts_before = count_images(samples.labels)
        self.counts_after = count_images(chosen.labels)
        self._log()
        if not len(rows):
            most = 'any number' if self.max_labels is None else self.max_labels
            raise AnnotationError(
                f'None of the {len(samples)} images has {self.min_labels} to {most} of the classes '
                f'{", ".join(self.CLASSES)}; choose other `classes`, `min_labels` or `max_labels`.'
            )
        return chosen

    def labelled_info(self, idx: int) -> dict:
        """Annotation of one image, which the table makes anew: it needs no deep copy."""
        self.full_init()
        row = range(len(self.data_list))[idx]
        return dict(self.data_list[row], sample_idx=row)

    @property
    def label_table(self) -> LabelTable | None:
        """Labels of all images as ``get_data_info`` gives them; None if it is a subclass's."""
        self.full_init()
        if not self._gives_its_table:
            return None
        labels = self.data_list.labels
        return labels if self.keep_classes is None else labels.select_classes(self._kept)

    def unlabelled_info(self, idx: int) -> dict:
        """What ``get_data_info`` gives but for labels, or all of it where it is a subclass's."""
        if not self._gives_its_table:
            return self.get_data_info(idx)
        self.full_init()
        row = range(len(self.data_list))[idx]
        info = dict(self.data_list.info(row), sample_idx=row)
        if self.keep_classes is not None and keeps_whole_image(self.pipeline.transforms):
            # Boxes are packed, those of the kept classes alone.
            info['keep_classes'] = list(self.keep_classes)
        return info

    @property
    def _gives_its_table(self) -> bool:
        own = type(self).get_data_info, type(self).labelled_info
        return own == (MultiLabelTargets.get_data_info, SubsetMixin.labelled_info)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Classes present in one image."""
        self.full_init()
        positives = self.data_list.labels.positives(range(len(self))[idx])
        if self.keep_classes is None:
            return positives.tolist()
        return [index for index in self.renumbered(positives).tolist() if index >= 0]

    def pipeline_input(self, idx: int) -> dict:
        """What the pipeline is given; boxes enter only those that keep the whole image."""
        sample = self.get_data_info(idx)
        if not keeps_whole_image(self.pipeline.transforms):
            for key in BOX_KEYS:
                sample.pop(key, None)
        return sample

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> SampleTable:
        if isinstance(indices, int):
            return super()._get_unserialized_subset(indices)
        return self.data_list.take(np.asarray(indices, np.int64))

    def _log(self) -> None:
        logger = MMLogger.get_current_instance()
        name = f'{type(self).__name__} {self.split}'
        for what, number in self.left_out.counts.items():
            logger.warning(f'{name}: {what}: {number:,} (see {self.left_out.first[what]})')
        before, after = self.counts_before, self.counts_after
        per_class = [f'{c} {n:,}' for c, n in zip(self.CLASSES, after.present) if n]
        if len(per_class) <= _MAX_LOGGED:
            per_class = ', '.join(per_class)
        else:
            per_class = f'{len(per_class)} classes have any'
        logger.info(f'{name}: {after.images:,} of {before.images:,} images; per class: {per_class}')
        if self.max_images is not None and after.images < self.max_images:
            logger.info(
                f'{name}: there are no more images that fit, though {self.max_images:,} '
                'were asked for'
            )


def count_images(table: LabelTable) -> ImageCounts:
    """Count images per class and labels per image."""
    return ImageCounts(
        len(table),
        table.count(1),
        table.count(0),
        table.count(-1),
        np.bincount(table.num_positives(), minlength=1),
    )


def print_counts(
    before: ImageCounts,
    after: ImageCounts,
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
