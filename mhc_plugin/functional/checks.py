"""Checks of scores and targets that several pure functions share."""

from collections.abc import Sequence

import torch
from torch import Tensor

AVERAGES = ('macro', 'micro', None)


def check_choice(name: str, value: object, choices: Sequence) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(
            f'Expected argument `{name}` to be one of {tuple(choices)}, but got {value!r}.'
        )


def check_scores_and_target(scores: Tensor, target: Tensor, first: int = 0) -> None:
    """Check the scores and targets of a multi-label task.

    Args:
        scores (Tensor): Scores of any real dtype, ``(N, num_classes)``.
        target (Tensor): 1, 0 or -1 (unknown), same shape.
        first (int): Number of the first sample, for the sentence. Defaults to 0.

    Raises:
        ValueError: If the shapes are not ``(N, num_classes)`` with at least one sample and one
            class or differ, a score is NaN, or a target is none of 1, 0 and -1.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(
            'Expected argument `scores` to have shape (N, num_classes) with at least '
            f'one sample and one class, but got {tuple(scores.shape)}.'
        )
    if target.shape != scores.shape:
        raise ValueError(
            'Expected argument `target` to have the shape of `scores`, '
            f'{tuple(scores.shape)}, but got {tuple(target.shape)}.'
        )
    check_no_nan(scores, first)
    bad = ~((target == 1) | (target == 0) | (target == -1))
    if bad.any():
        sample, label = bad.nonzero()[0].tolist()
        raise ValueError(
            'Expected argument `target` to hold only 1, 0 and -1 (unknown), but got '
            f'{target[sample, label].item():g} for sample {first + sample}, class {label}.'
        )


def check_no_nan(scores: Tensor, first: int = 0) -> None:
    """Raise ``ValueError`` if scores ``(N, num_classes)`` hold NaN: whoever hands them out asks."""
    bad = scores.isnan()
    if bad.any():
        sample, label = bad.nonzero()[0].tolist()
        raise ValueError(
            'Expected argument `scores` to hold no NaN, but got one for sample '
            f'{first + sample}, class {label}. Look for a diverged training.'
        )


def check_non_negative_finite(name: str, value: Tensor) -> None:
    """Raise ``ValueError`` if ``value`` holds NaN, infinite or negative numbers."""
    if not torch.isfinite(value).all():
        raise ValueError(f'Expected argument `{name}` to be finite, but got NaN or infinity.')
    if (value < 0).any():
        raise ValueError(
            f'Expected argument `{name}` to be non-negative, but got {value.min().item()}.'
        )
