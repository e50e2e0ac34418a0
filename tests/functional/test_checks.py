import math
import re

import pytest
import torch

from mhc_plugin.functional.checks import (
    check_argument,
    check_choice,
    check_int,
    check_ints,
    check_non_negative_finite,
    check_number,
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


@pytest.mark.parametrize(
    ('check', 'args', 'message'),
    [
        (check_argument, (False, 'x', 'to be even', 3), 'to be even, but got 3.'),
        (check_argument, (False, 'x', 'to have 2 entries', 'none'), 'entries, but got none.'),
        (check_int, ('x', 0), 'to be an int of at least 1, but got 0.'),
        (check_int, ('x', 1.0), 'to be an int of at least 1, but got 1.0.'),
        (check_int, ('x', '3'), "to be an int of at least 1, but got '3'."),
        (check_int, ('x', 8, 1, 7), 'to be an int in 1..7, but got 8.'),
        (check_ints, ('x', (2, 0)), r'to be a sequence of ints of at least 1, but got (2, 0).'),
        (check_ints, ('x', 2), 'to be a sequence of ints of at least 1, but got 2.'),
        (check_ints, ('x', '12'), "to be a sequence of ints of at least 1, but got '12'."),
        (check_number, ('x', 1.0, 0, 1, '[)'), 'to be a number in [0, 1), but got 1.0.'),
        (check_number, ('x', -1, 0), 'to be a number of at least 0, but got -1.'),
        (check_number, ('x', 0, 0, math.inf, '(]'), 'to be a number above 0, but got 0.'),
        (check_number, ('x', math.nan, 0, 1), 'to be a number in [0, 1], but got nan.'),
        (check_number, ('x', None, 0), 'to be a number of at least 0, but got None.'),
    ],
)
def test_each_check_says_what_fits_and_what_was_given(check, args, message):
    with pytest.raises(ValueError, match=rf'^Expected argument `x` .*{re.escape(message)}$'):
        check(*args)


def test_numbers_at_the_ends_fit():
    check_int('x', 7, 1, 7)
    check_ints('x', [])
    check_ints('x', (3, 1))
    check_number('x', 0, 0, 1, '[)')
    check_number('x', 1, 0, 1)
    check_number('x', 1e-9, 0, ends='(]')
