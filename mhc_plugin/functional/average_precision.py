"""Average precision with ties grouped, unknown targets left out."""

import torch
from torch import Tensor

from .checks import check_choice, check_scores_and_target

EVAL_MODES = ('area', '11points')


def average_precision(scores: Tensor, target: Tensor, eval_mode: str = 'area') -> Tensor:
    r"""Average precision of every class over its known targets.

    Samples with equal scores enter the precision-recall curve together, so the result does not
    depend on the order of samples. With precision :math:`P_n` and recall :math:`R_n` at the n-th
    distinct score:

    - ``'area'``: :math:`\sum_n (R_n - R_{n-1}) P_n`, as
      ``sklearn.metrics.average_precision_score``.
    - ``'11points'``: the mean over t = 0, 0.1, ..., 1 of the highest precision at a recall of t
      or more, as PASCAL VOC up to 2009 (Everingham et al., IJCV 2010, section 4.2).

    Args:
        scores (Tensor): Scores, logits or probabilities, ``(N, num_classes)``.
        target (Tensor): 1, 0 or -1 (unknown), same shape.
        eval_mode (str): ``'area'`` or ``'11points'``. Defaults to ``'area'``.

    Returns:
        Tensor: float64 ``(num_classes,)`` in 0..1, NaN for a class without positives.

    Raises:
        ValueError: If ``eval_mode`` is unknown, shapes differ, a score is NaN, or a target is
            none of 1, 0 and -1.

    Examples:
        >>> scores = torch.tensor([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3]])
        >>> average_precision(scores, torch.tensor([[1, 0], [1, 0], [0, -1]]))
        tensor([0.8333,    nan], dtype=torch.float64)
    """
    check_choice('eval_mode', eval_mode, EVAL_MODES)
    check_scores_and_target(scores, target)
    result = [
        average_precision_of_class(score[truth != -1], truth[truth != -1] == 1, eval_mode)
        for score, truth in zip(scores.unbind(1), target.unbind(1))
    ]
    return torch.stack(result)


def average_precision_of_class(score: Tensor, positive: Tensor, eval_mode: str = 'area') -> Tensor:
    """:func:`average_precision` of one class.

    Args:
        score (Tensor): Scores of the known pairs, ``(n,)``.
        positive (Tensor): Whether they are positive, bool, same shape.
        eval_mode (str): ``'area'`` or ``'11points'``. Defaults to ``'area'``.

    Returns:
        Tensor: float64 scalar in 0..1, NaN without positives.
    """
    if not positive.any():
        return score.new_tensor(torch.nan, dtype=torch.float64)
    summarise = _area if eval_mode == 'area' else _eleven_points
    return summarise(*_true_positives_at_distinct_scores(score, positive))


def _true_positives_at_distinct_scores(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Count what lies at or above every distinct score, from the highest down.

    Returns:
        tuple[Tensor, Tensor]: True positives and predicted positives, int64 ``(num_distinct,)``.
    """
    score, order = score.sort(descending=True)
    last_of_ties = score.new_ones(len(score), dtype=torch.bool)
    last_of_ties[:-1] = score[1:] != score[:-1]
    predicted = last_of_ties.nonzero().squeeze(1) + 1
    return positive[order].cumsum(0)[predicted - 1], predicted


def _area(true_positive: Tensor, predicted: Tensor) -> Tensor:
    gained = true_positive.diff(prepend=true_positive.new_zeros(1))
    return (gained.double() / true_positive[-1] * true_positive / predicted).sum()


def _eleven_points(true_positive: Tensor, predicted: Tensor) -> Tensor:
    precision = true_positive.double() / predicted
    # In tenths and whole numbers: 3 / 10 >= 0.1 * 3 is false in floating point.
    tenths = torch.arange(11, device=true_positive.device).unsqueeze(1)
    reached = 10 * true_positive >= tenths * true_positive[-1]
    return torch.where(reached, precision, 0.0).amax(1).mean()


def resampled_mean_ap(scores: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Mean average precision where images count several times or not at all, as in a bootstrap.

    Args:
        scores (Tensor): Scores, ``(N, num_classes)``.
        target (Tensor): 1, 0 or -1 (unknown), same shape.
        counts (Tensor): How often every image counts in each of R resamples, ``(R, N)``.

    Returns:
        Tensor: float64 ``(R,)``, over the classes with a positive in the resample: those of
        :func:`average_precision` with images repeated. Memory grows with R times N.
    """
    check_scores_and_target(scores, target)
    result = []
    for score, truth in zip(scores.unbind(1), target.unbind(1)):
        score, order = score.sort(descending=True)
        # Unknown ones count nowhere.
        weight = counts[:, order].double() * (truth[order] != -1)
        last_of_ties = torch.cat([score[1:] != score[:-1], score.new_ones(1, dtype=torch.bool)])
        predicted = weight.cumsum(1)[:, last_of_ties]
        hits = (weight * (truth[order] == 1)).cumsum(1)[:, last_of_ties]
        gained = hits.diff(dim=1, prepend=torch.zeros_like(hits[:, :1]))
        area = (gained * hits / predicted.clamp(min=1)).sum(1)
        result.append(area / hits[:, -1])
    return torch.stack(result).nanmean(0)
