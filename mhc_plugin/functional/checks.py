"""The checks of arguments that rooms share; every one raises ``ValueError`` with one sentence."""

from collections.abc import Sequence
from math import inf
from numbers import Integral, Real

import torch
from torch import Tensor

AVERAGES = ('macro', 'micro', None)


def check_argument(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise ``ValueError`` unless ``holds``.

    Args:
        holds (bool): Whether the argument fits.
        name (str): Its name.
        expected (str): What fits, so that "Expected argument `name` ``expected``, but got ..."
            is a sentence.
        got (object): What was given. A string is a part of the sentence, anything else is shown
            as it is.
    """
    if not holds:
        got = got if isinstance(got, str) else repr(got)
        raise ValueError(f'Expected argument `{name}` {expected}, but got {got}.')


def check_choice(name: str, value: object, choices: Sequence) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    check_argument(value in choices, name, f'to be one of {tuple(choices)}', repr(value))


def check_int(name: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Raise ``ValueError`` unless ``value`` is an int in ``low..high``; None sets no end."""
    holds = isinstance(value, Integral) and value >= low and (high is None or value <= high)
    expected = f'of at least {low}' if high is None else f'in {low}..{high}'
    check_argument(holds, name, f'to be an int {expected}', repr(value))


def check_ints(name: str, values: Sequence, low: int = 1) -> None:
    """Raise ``ValueError`` unless ``values`` is a sequence of ints of at least ``low``."""
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str)
    holds = is_sequence and all(isinstance(value, Integral) and value >= low for value in values)
    check_argument(holds, name, f'to be a sequence of ints of at least {low}', repr(values))


def check_number(
    name: str, value: object, low: float = -inf, high: float = inf, ends: str = '[]'
) -> None:
    """Raise ``ValueError`` unless ``value`` is a number between ``low`` and ``high``.

    Args:
        name (str): Name of the argument.
        value (object): What was given.
        low (float): Lower end.
        high (float): Upper end.
        ends (str): Whether the ends belong to it, as in ``'[)'``. Defaults to both.
    """
    holds = (
        isinstance(value, Real)
        and (low <= value if ends[0] == '[' else low < value)
        and (value <= high if ends[1] == ']' else value < high)
    )
    if high == inf:
        expected = f'to be a number {"of at least" if ends[0] == "[" else "above"} {low:g}'
    else:
        expected = f'to be a number in {ends[0]}{low:g}, {high:g}{ends[1]}'
    check_argument(holds, name, expected, repr(value))


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
    check_argument(
        scores.ndim == 2 and 0 not in scores.shape,
        'scores',
        'to have shape (N, num_classes) with at least one sample and one class',
        tuple(scores.shape),
    )
    check_argument(
        target.shape == scores.shape,
        'target',
        f'to have the shape of `scores`, {tuple(scores.shape)}',
        tuple(target.shape),
    )
    check_no_nan(scores, first)
    # In few passes over what may be many gigabytes; where something is wrong it is looked for.
    whole = target.to(torch.int8)
    low, high = whole.aminmax()
    if low < -1 or high > 1 or not bool((whole == target).all()):
        bad = ~((target == 1) | (target == 0) | (target == -1))
        sample, label = bad.nonzero()[0].tolist()
        raise ValueError(
            'Expected argument `target` to hold only 1, 0 and -1 (unknown), but got '
            f'{target[sample, label].item():g} for sample {first + sample}, class {label}.'
        )


def check_no_nan(scores: Tensor, first: int = 0) -> None:
    """Raise ``ValueError`` if scores ``(N, num_classes)`` hold NaN: whoever hands them out asks."""
    # A sum is one quick pass; it is NaN of infinities, too.
    if scores.sum().isnan() and scores.isnan().any():
        sample, label = scores.isnan().nonzero()[0].tolist()
        raise ValueError(
            'Expected argument `scores` to hold no NaN, but got one for sample '
            f'{first + sample}, class {label}. Look for a diverged training.'
        )


def check_class_maps(maps: Tensor) -> None:
    """Raise ``ValueError`` unless ``maps`` is ``(n, h, w)``, finite and non-negative."""
    check_argument(
        maps.ndim == 3 and 0 not in maps.shape[1:],
        'maps',
        'to have shape (n, h, w)',
        tuple(maps.shape),
    )
    check_non_negative_finite('maps', maps)


def check_non_negative_finite(name: str, value: Tensor) -> None:
    """Raise ``ValueError`` if ``value`` holds NaN, infinite or negative numbers."""
    check_argument(bool(torch.isfinite(value).all()), name, 'to be finite', 'NaN or infinity')
    if (value < 0).any():
        check_argument(False, name, 'to be non-negative', value.min().item())
