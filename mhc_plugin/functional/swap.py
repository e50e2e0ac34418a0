"""What the logits do when one tile of a spliced image is swapped: cause, not appearance."""

from typing import NamedTuple

import torch
from torch import Tensor


class SwapEffects(NamedTuple):
    """Effects of M swaps.

    Attributes:
        scores (Tensor): Share of the change that falls on the two classes concerned, float64
            ``(M,)`` in 0..1. 1 is perfect class-level disentanglement, ``2 / num_classes``
            chance. 0 if nothing changes.
        expected (Tensor): Whether the removed class falls and the added one rises, bool ``(M,)``.
            Chance is 1/4.
    """

    scores: Tensor
    expected: Tensor


def logit_std(logits: Tensor) -> Tensor:
    """Standard deviation of every class's logit over the unswapped composites.

    Args:
        logits (Tensor): Logits of the unswapped composites, ``(N, num_classes)``.

    Returns:
        Tensor: float64 ``(num_classes,)``, the sample's (divided by N - 1; a factor common to all
        classes has no effect on the scores of swaps).

    Raises:
        ValueError: If there are fewer than two composites, or a logit is not finite.
    """
    if logits.ndim != 2 or len(logits) < 2:
        raise ValueError(
            'Expected argument `logits` to have shape (N, num_classes) with N of 2 or '
            f'more, but got {tuple(logits.shape)}.'
        )
    _check_finite('logits', logits)
    logits = logits.double()
    # The mean of equal numbers may differ from them by rounding: a dead class has exactly 0.
    return torch.where(logits.amax(0) > logits.amin(0), logits.std(0), 0.0)


def standardise_logits(logits: Tensor, std: Tensor) -> Tensor:
    """Divide every class's logit by its standard deviation.

    Args:
        logits (Tensor): ``(..., num_classes)``.
        std (Tensor): Standard deviation of every class's logit over the unswapped composites,
            ``(num_classes,)``, see :func:`logit_std`.

    Returns:
        Tensor: float64, same shape; 0 for a class whose logit never varies.
    """
    std = std.double()
    return torch.where(std > 0, logits.double() / torch.where(std > 0, std, 1.0), 0.0)


def swap_effects(
    before: Tensor, after: Tensor, removed: Tensor, added: Tensor, std: Tensor
) -> SwapEffects:
    """Measure how far a swap of one tile stays within the two classes concerned.

    With dz the change of the logits divided by ``std``, a the class that is removed and b the one
    that takes its cell: ``(abs(dz_a) + abs(dz_b)) / sum_c abs(dz_c)``.

    Args:
        before (Tensor): Logits of the composites, ``(M, num_classes)``.
        after (Tensor): Logits after the swap, same shape.
        removed (Tensor): Class of the tile that was taken out, int64 ``(M,)``.
        added (Tensor): Class of the tile that was put in, int64 ``(M,)``.
        std (Tensor): Standard deviation of every class's logit over the unswapped composites,
            ``(num_classes,)``.

    Returns:
        SwapEffects: Scores, and whether the two logits move as expected.

    Raises:
        ValueError: If shapes do not fit, a logit is not finite, a class is not in
            0..num_classes - 1, or removed and added class are the same.
    """
    _check_swaps(before, after, removed, added, std)
    change = standardise_logits(after, std) - standardise_logits(before, std)
    of_removed = change.gather(1, removed.unsqueeze(1)).squeeze(1)
    of_added = change.gather(1, added.unsqueeze(1)).squeeze(1)
    total = change.abs().sum(1)
    scores = (of_removed.abs() + of_added.abs()) / torch.where(total > 0, total, 1.0)
    return SwapEffects(scores, (of_removed < 0) & (of_added > 0))


def _check_swaps(
    before: Tensor, after: Tensor, removed: Tensor, added: Tensor, std: Tensor
) -> None:
    if before.ndim != 2 or after.shape != before.shape:
        raise ValueError(
            'Expected arguments `before` and `after` to have one shape, '
            f'(M, num_classes), but got {tuple(before.shape)} and '
            f'{tuple(after.shape)}.'
        )
    num_swaps, num_classes = before.shape
    for name, value, shape in (
        ('removed', removed, (num_swaps,)),
        ('added', added, (num_swaps,)),
        ('std', std, (num_classes,)),
    ):
        if value.shape != shape:
            raise ValueError(
                f'Expected argument `{name}` to have shape {shape}, but got {tuple(value.shape)}.'
            )
    for name, value in (('before', before), ('after', after)):
        _check_finite(name, value)
    for name, value in (('removed', removed), ('added', added)):
        if ((value < 0) | (value >= num_classes)).any():
            raise ValueError(
                f'Expected argument `{name}` to hold classes in '
                f'0..{num_classes - 1}, but got {value.tolist()}.'
            )
    if (removed == added).any():
        raise ValueError(
            'Expected arguments `removed` and `added` to differ in every swap, but '
            f'got {removed.tolist()} and {added.tolist()}.'
        )


def _check_finite(name: str, value: Tensor) -> None:
    if not torch.isfinite(value).all():
        raise ValueError(f'Expected argument `{name}` to be finite, but got NaN or infinity.')
