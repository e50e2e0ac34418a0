"""From scores to labels: by threshold or by rank, and thresholds chosen for the best F1."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_no_nan, check_scores_and_target
from .topk import check_topk, format_topk, topk_masks


class BestThresholds(NamedTuple):
    """What :func:`best_f1_thresholds` finds.

    Attributes:
        thresholds (Tensor): float64 (num_classes,).
        f1 (Tensor): float64 (num_classes,), F1 of every class at its threshold, in 0..1.
    """

    thresholds: Tensor
    f1: Tensor


def predicted_mask(
    scores: Tensor, thr: float | Sequence[float] | Tensor | None = None, topk: int | None = None
) -> Tensor:
    """Mark the classes that scores predict.

    Args:
        scores (Tensor): (N, num_classes).
        thr (float | Sequence[float] | Tensor, optional): Scores from here on are predicted; one
            number, or one per class. It counts if ``topk`` is given, too, as in MMPretrain.
        topk (int, optional): The k highest scores are predicted; ties go to the lower index.

    Returns:
        Tensor: bool (N, num_classes).

    Raises:
        ValueError: If a score is NaN, neither is given, or there are not as many thresholds as
            classes or fewer classes than ``topk``.
    """
    check_no_nan(scores)
    num_classes = scores.shape[1]
    if thr is not None:
        thr = torch.as_tensor(thr, dtype=torch.float64, device=scores.device)
        if thr.dim() > 1 or (thr.dim() == 1 and len(thr) != num_classes):
            raise ValueError(
                f'Expected argument `thr` to be one number or {num_classes}, one per '
                f'class, but got shape {tuple(thr.shape)}.'
            )
        return scores >= thr
    if topk is None:
        raise ValueError('Expected one of the arguments `thr` and `topk`.')
    check_topk(format_topk(topk), num_classes)
    return topk_masks(scores, (topk,))[topk]


def best_f1_thresholds(scores: Tensor, target: Tensor, default: float = 0.5) -> BestThresholds:
    """Choose for every class the threshold with the best F1 over its known targets.

    A threshold lies half way between the lowest score that it lets pass and the highest that it
    does not. Where several are equally good, the highest one is taken.

    Args:
        scores (Tensor): (N, num_classes), without NaN.
        target (Tensor): 1, 0 or -1 (unknown), same shape.
        default (float): Threshold of classes without a positive target. Defaults to 0.5.

    Returns:
        BestThresholds: Thresholds and F1 of every class; a class without a positive has F1 0.

    Raises:
        ValueError: If shapes differ, a score is NaN or a target is none of 1, 0 and -1.
    """
    check_scores_and_target(scores, target)
    best = [
        best_f1_threshold_of_class(s[t != -1], t[t != -1] == 1, default)
        for s, t in zip(scores.unbind(1), target.unbind(1))
    ]
    return BestThresholds(*(torch.tensor(column, dtype=torch.float64) for column in zip(*best)))


def best_f1_threshold_of_class(
    scores: Tensor, positive: Tensor, default: float = 0.5
) -> tuple[float, float]:
    """:func:`best_f1_thresholds` of one class.

    Args:
        scores (Tensor): Scores of the known pairs, ``(n,)``.
        positive (Tensor): Whether they are positive, bool, same shape.
        default (float): Threshold where none is. Defaults to 0.5.

    Returns:
        tuple[float, float]: The threshold and its F1.
    """
    if not positive.any():
        return default, 0.0
    scores, order = scores.double().sort(descending=True)
    hits = positive[order].cumsum(0)
    # Equal scores are let through together: a threshold can only follow the last of them.
    is_end = torch.ones_like(positive)
    is_end[:-1] = scores[1:] < scores[:-1]
    ends = is_end.nonzero()[:, 0]
    f1 = 2 * hits[ends].double() / (ends + 1 + positive.sum())
    best = int((f1 == f1.max()).nonzero()[0])
    lowest = scores[ends[best]]
    below = scores[ends[best] + 1] if best + 1 < len(ends) else lowest
    return float((lowest + below) / 2), float(f1[best])
