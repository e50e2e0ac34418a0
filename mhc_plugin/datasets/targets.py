"""The two forms in which every multi-label dataset of ours gives its labels."""

from collections.abc import Mapping, Sequence

import numpy as np

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


def check_same_classes(lists: Mapping[str, Sequence[str] | None]) -> None:
    """Raise where lists of classes differ in names or order.

    Args:
        lists (Mapping[str, Sequence[str] | None]): Whose classes they are, such as ``'the training
            data'``, and the classes; None where nobody knows them.

    Raises:
        ValueError: If two lists differ; the sentence has both.
    """
    known = [(whose, [str(name) for name in names]) for whose, names in lists.items() if names]
    for whose, names in known[1:]:
        first, expected = known[0]
        if names == expected:
            continue
        hint = (
            'They are the same names in another order: give both one list.'
            if sorted(names) == sorted(expected)
            else 'Scores and labels are told apart by their place in it.'
        )
        raise ValueError(
            f'Expected {first} and {whose} to have the same list of classes, but got '
            f'{_shortened(expected)} and {_shortened(names)}. {hint}'
        )


def _shortened(names: Sequence[str]) -> str:
    more = f' and {len(names) - 20} more' if len(names) > 20 else ''
    return ', '.join(names[:20]).join('[]') + more


class MultiLabelTargets:
    """Mixin for MMPretrain datasets whose ``gt_label`` is a list of class indices.

    Adds ``gt_score``, which MMPretrain's multi-label heads and metrics read first, when a
    sample is asked for; stored are only the short lists. Classes listed under
    ``unknown_label``, where a dataset has such a field, score -1.
    """

    def get_data_info(self, idx: int) -> dict:
        """Annotation of one image.

        Returns:
            dict: With ``gt_label``, the positives, list[int], and ``gt_score``, float32
            ``(num_classes,)`` of 1, 0 and -1.
        """
        info = super().get_data_info(idx)
        info['gt_score'] = target_scores(
            len(self._metainfo['classes']), info['gt_label'], info.get('unknown_label', ())
        )
        return info

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
