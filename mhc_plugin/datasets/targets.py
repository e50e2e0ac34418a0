"""The two forms in which every multi-label dataset of ours gives its labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .annotation_files import AnnotationError
from .class_lists import read_class_list
from .image_files import can_be_read

UNKNOWN = -1.0


def target_scores(
    num_classes: int, positives: Sequence[int], unknown: Sequence[int] = ()
) -> np.ndarray:
    """Targets of one image.

    Args:
        num_classes (int): Number of classes.
        positives (Sequence[int]): Indices of the classes that are there.
        unknown (Sequence[int]): Indices of the classes of which nothing is known.

    Returns:
        np.ndarray: float32 ``(num_classes,)``: 1 there, 0 not there, -1 unknown.
    """
    scores = np.zeros(num_classes, dtype=np.float32)
    scores[list(unknown)] = UNKNOWN
    scores[list(positives)] = 1.0
    return scores


class MultiLabelTargets:
    """Mixin for MMPretrain datasets whose ``gt_label`` is a list of class indices.

    Adds ``gt_score``, which MMPretrain's multi-label heads and metrics read first, when a
    sample is asked for; stored are only the short lists. Classes listed under
    ``unknown_label``, where a dataset has such a field, score -1.

    Args:
        *args, **kwargs: Arguments of the dataset.
        keep_classes (Sequence[str], optional): Give labels and boxes of these classes alone,
            numbered in the order of the dataset's; a cell of another class is -1. Images are the
            same. Defaults to None, which means all.

    Raises:
        ValueError: If there is no such class.
    """

    keep_classes: Sequence[str] | None = None

    def __init__(self, *args, keep_classes: Sequence[str] | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if keep_classes is None:
            return
        classes = list(self._metainfo['classes'])
        unknown = [name for name in keep_classes if name not in classes]
        if unknown:
            raise ValueError(
                f'Expected argument `keep_classes` to name some of {classes}, but got '
                f'{unknown[0]!r}.'
            )
        self.keep_classes = [name for name in classes if name in set(keep_classes)]
        self._kept = [classes.index(name) for name in self.keep_classes]

    @property
    def metainfo(self) -> dict:
        """What is known of the dataset, with the names of the classes that are kept."""
        metainfo = super().metainfo
        if self.keep_classes is not None:
            metainfo['classes'] = tuple(self.keep_classes)
        return metainfo

    def _compat_classes(self, metainfo: dict | None, classes: Any) -> dict:
        """Check the names of classes before MMPretrain hands them on."""
        metainfo = dict(metainfo or {})
        if classes is not None:
            metainfo = {'classes': classes, **metainfo}
        if metainfo.get('classes') is not None:
            metainfo['classes'] = read_class_list(metainfo['classes'])
        return metainfo

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline on one sample; an image that cannot be read is named.

        Raises:
            AnnotationError: If the image is none, or empty.
        """
        sample = self.pipeline_input(idx)
        path = sample.get('img_path')
        try:
            return self.pipeline(sample)
        except Exception as error:
            if path is None or can_be_read(path):
                raise
            raise AnnotationError('The image cannot be read.', path) from error

    def pipeline_input(self, idx: int) -> dict:
        """What the pipeline is given of one sample."""
        return self.get_data_info(idx)

    def labelled_info(self, idx: int) -> dict:
        """Annotation of one image, with labels of all classes, whichever are kept."""
        info = super().get_data_info(idx)
        info['gt_score'] = target_scores(
            len(self._metainfo['classes']), info['gt_label'], info.get('unknown_label', ())
        )
        return info

    def unlabelled_info(self, idx: int) -> dict:
        """What stored features of an image depend on: with any labels, whichever are kept."""
        return self.labelled_info(idx)

    def get_data_info(self, idx: int) -> dict:
        """Annotation of one image.

        Returns:
            dict: With ``gt_label``, the positives, list[int], and ``gt_score``, float32
            ``(num_classes,)`` of 1, 0 and -1.
        """
        info = self.labelled_info(idx)
        if self.keep_classes is None:
            return info
        info['gt_score'] = info['gt_score'][self._kept]
        for name in ('gt_label', 'unknown_label'):
            if name in info:
                info[name] = self.renumbered(info[name]).tolist()
                info[name] = [index for index in info[name] if index >= 0]
        if 'gt_bboxes_labels' in info:
            labels = self.renumbered(info['gt_bboxes_labels'])
            for name in ('gt_bboxes', 'gt_bbox_difficult'):
                info[name] = info[name][labels >= 0]
            info['gt_bboxes_labels'] = labels[labels >= 0]
        if 'gt_cells' in info:
            info['gt_cells'] = torch.from_numpy(self.renumbered(info['gt_cells']))
        return info

    def renumbered(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices of all classes as those of the kept ones, -1 for others."""
        new = np.full(len(self._metainfo['classes']), -1)
        new[self._kept] = np.arange(len(self._kept))
        return new[np.asarray(labels, int)]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Classes of one image, the positives only, as ``ClassBalancedDataset`` asks for."""
        return [int(label) for label in self.get_data_info(idx)['gt_label']]

    def get_gt_labels(self) -> np.ndarray:
        """Positives of every image: an object array ``(len(self),)`` of lists of int.

        MMPretrain's own makes one rectangular array, which fails on lists of unequal lengths.
        """
        labels = np.empty(len(self), dtype=object)
        for idx in range(len(self)):
            labels[idx] = self.get_cat_ids(idx)
        return labels
