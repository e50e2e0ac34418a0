"""Label-wise scores of the k best ranked classes of each image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import AVERAGES, check_choice, check_scores_and_target

TOPK_ITEMS = ('accuracy', 'precision', 'recall', 'f1', 'hamming_distance')


class LabelCounts(NamedTuple):
    """Confusion counts of every class over its known targets, each int64 ``(num_classes,)``."""

    true_positive: Tensor
    false_positive: Tensor
    false_negative: Tensor
    true_negative: Tensor

    @property
    def known(self) -> Tensor:
        """Number of known targets of every class, int64 ``(num_classes,)``."""
        return sum(self)


def _count(mask: Tensor, dim: int) -> Tensor:
    # PyTorch sums bool into int32 five times as fast as into int64, its default.
    return mask.sum(dim, dtype=torch.int32).long()


def format_topk(topk: int | Sequence[int]) -> tuple[int, ...]:
    """Turn one k or several into a tuple of distinct numbers above 0.

    Raises:
        ValueError: If ``topk`` is empty, repeats a number or holds anything but integers of 1
            or more.
    """
    ks = tuple(topk) if isinstance(topk, Sequence) else (topk,)
    integers = all(isinstance(k, int) and not isinstance(k, bool) and k >= 1 for k in ks)
    if not ks or not integers or len(set(ks)) != len(ks):
        raise ValueError(
            'Expected argument `topk` to be an integer of 1 or more, or several '
            f'distinct ones, but got {topk!r}.'
        )
    return ks


def check_topk(topk: Sequence[int], num_classes: int) -> None:
    """Raise ``ValueError`` if a k is larger than the number of classes."""
    if max(topk) > num_classes:
        raise ValueError(
            f'Expected argument `topk` to be in 1..{num_classes} (num_classes), but '
            f'got {max(topk)}.'
        )


def topk_masks(scores: Tensor, topk: Sequence[int]) -> dict[int, Tensor]:
    """Mark the k highest scores of every row; ties go to the lower class index.

    ``torch.topk`` alone would not do: it promises no order among equal scores.

    Args:
        scores (Tensor): ``(N, num_classes)`` without NaN.
        topk (Sequence[int]): Numbers in 1..num_classes.

    Returns:
        dict[int, Tensor]: For every k a bool mask ``(N, num_classes)`` with k marks a row.
    """
    highest = scores.topk(max(topk), dim=1).values
    masks = {}
    for k in topk:
        threshold = highest[:, k - 1 : k]
        mask = scores >= threshold
        tied = (_count(mask, 1) > k).nonzero().squeeze(1)
        if len(tied) > 0:
            above = scores[tied] > threshold[tied]
            places = k - above.sum(1, keepdim=True)
            equal = scores[tied] == threshold[tied]
            mask[tied] = above | (equal & (equal.cumsum(1) <= places))
        masks[k] = mask
    return masks


def topk_counts(
    scores: Tensor, target: Tensor, topk: int | Sequence[int]
) -> dict[int, LabelCounts]:
    """Count hits and misses of every class when the k highest scores count as predicted.

    The k places are chosen among all classes, those with an unknown target included; a pair whose
    target is unknown then counts neither as hit nor as miss.

    Args:
        scores (Tensor): Scores, logits or probabilities, ``(N, num_classes)``.
        target (Tensor): 1, 0 or -1 (unknown), same shape.
        topk (int | Sequence[int]): One k or several, in 1..num_classes.

    Returns:
        dict[int, LabelCounts]: The counts for every k.

    Raises:
        ValueError: If shapes differ, a score is NaN, a target is none of 1, 0, -1, or a k is not
            in 1..num_classes.
    """
    ks = format_topk(topk)
    check_scores_and_target(scores, target)
    check_topk(ks, scores.shape[1])
    return count_hits(scores, target, ks)


def count_hits(scores: Tensor, target: Tensor, topk: Sequence[int]) -> dict[int, LabelCounts]:
    """:func:`topk_counts` of arguments that have been checked."""
    positive, known = target == 1, target != -1
    num_positive, num_known = _count(positive, 0), _count(known, 0)
    counts = {}
    for k, mask in topk_masks(scores, topk).items():
        hits = _count(mask & positive, 0)
        false_alarms = _count(mask & known, 0) - hits
        misses = num_positive - hits
        counts[k] = LabelCounts(
            hits, false_alarms, misses, num_known - hits - false_alarms - misses
        )
    return counts


def label_scores(counts: LabelCounts, average: str | None = 'macro') -> dict[str, Tensor]:
    """Turn counts into accuracy, precision, recall, F1 and Hamming distance, as shares in 0..1.

    Accuracy is label-wise: the share of known image-class pairs that are right; the Hamming
    distance is the rest, the Hamming loss (HL) of papers under the name that torchmetrics has for
    it: MMEngine averages over epochs whatever has ``loss`` in its name, also in validation.
    Precision, recall and F1 are 0 where they are 0 / 0 (scikit-learn's ``zero_division=0``).

    Args:
        counts (LabelCounts): Counts per class.
        average (str, optional): ``'macro'``: the mean over the classes with a known target;
            ``'micro'``: from the counts summed over classes; None: every class by itself, NaN
            where it has no known target. Defaults to ``'macro'``.

    Returns:
        dict[str, Tensor]: For each of ``TOPK_ITEMS`` a float64 scalar, or ``(num_classes,)`` for
        None. NaN if no target at all is known.

    Raises:
        ValueError: If ``average`` is unknown.
    """
    check_choice('average', average, AVERAGES)
    if average == 'micro':
        counts = LabelCounts(*(count.sum() for count in counts))
    known = counts.known
    tp, fp, fn, tn = (count.double() for count in counts)

    def share(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(known > 0, part / whole.clamp(min=1), torch.nan)

    scores = dict(
        accuracy=share(tp + tn, known),
        precision=share(tp, tp + fp),
        recall=share(tp, tp + fn),
        f1=share(2 * tp, 2 * tp + fp + fn),
        hamming_distance=share(fp + fn, known),
    )
    if average == 'macro':
        return {item: value[known > 0].mean() for item, value in scores.items()}
    return scores


def topk_scores(
    scores: Tensor, target: Tensor, topk: int | Sequence[int], average: str | None = 'macro'
) -> dict[int, dict[str, Tensor]]:
    """Label-wise scores when the k highest scores of an image count as predicted.

    Args:
        scores (Tensor): Scores, logits or probabilities, ``(N, num_classes)``.
        target (Tensor): 1, 0 or -1 (unknown), same shape.
        topk (int | Sequence[int]): One k or several, in 1..num_classes.
        average (str, optional): ``'macro'``, ``'micro'`` or None, see :func:`label_scores`.
            Defaults to ``'macro'``.

    Returns:
        dict[int, dict[str, Tensor]]: For every k what :func:`label_scores` returns.

    Raises:
        ValueError: See :func:`topk_counts` and :func:`label_scores`.

    Examples:
        >>> scores = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6]])
        >>> target = torch.tensor([[1, 0, 0], [0, 1, -1]])
        >>> topk_scores(scores, target, topk=1, average='micro')[1]['precision']
        tensor(1., dtype=torch.float64)
    """
    check_choice('average', average, AVERAGES)
    return {
        k: label_scores(counts, average) for k, counts in topk_counts(scores, target, topk).items()
    }
