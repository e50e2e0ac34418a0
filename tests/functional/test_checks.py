import math

import pytest
import torch

from mhc_plugin.functional.checks import (
    check_choice,
    check_non_negative_finite,
    check_scores_and_target,
)


def test_what_fits_passes():
    check_choice('average', None, ('macro', None))
    check_scores_and_target(torch.tensor([[math.inf, -3.0]]), torch.tensor([[1, -1]]))
    check_non_negative_finite('cam', torch.tensor([0.0, 2.0]))


def test_choice():
    with pytest.raises(ValueError, match=r"`average` to be one of \('macro', None\), but got 'x'"):
        check_choice('average', 'x', ('macro', None))


@pytest.mark.parametrize('shape', [(3,), (2, 3, 1), (0, 3), (3, 0)])
def test_scores_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'`scores` to have shape \(N, num_classes\)'):
        check_scores_and_target(torch.zeros(shape), torch.zeros(shape))


def test_shapes_that_differ():
    with pytest.raises(ValueError, match=r'shape of `scores`, \(2, 3\), but got \(3, 2\)'):
        check_scores_and_target(torch.zeros(2, 3), torch.zeros(3, 2))


def test_nan_scores():
    scores = torch.zeros(2, 3)
    scores[1, 2] = math.nan
    with pytest.raises(ValueError, match='no NaN, but got one for sample 1, class 2'):
        check_scores_and_target(scores, torch.zeros(2, 3))


@pytest.mark.parametrize('value', [0.5, 2.0, -2.0, math.nan])
def test_other_targets(value):
    target = torch.zeros(2, 3)
    target[0, 1] = value
    with pytest.raises(ValueError, match=f'only 1, 0 and -1 .* got {value:g} for sample 0, class'):
        check_scores_and_target(torch.zeros(2, 3), target)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (math.nan, '`cam` to be finite, but got NaN'),
        (math.inf, '`cam` to be finite'),
        (-2.0, '`cam` to be non-negative, but got -2'),
    ],
)
def test_non_negative_finite(value, message):
    with pytest.raises(ValueError, match=message):
        check_non_negative_finite('cam', torch.tensor([1.0, value]))
