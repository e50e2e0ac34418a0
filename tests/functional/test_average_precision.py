import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from mhc_plugin.functional.average_precision import average_precision, resampled_mean_ap


def scikit_learn(scores, target):
    """Per class over the known targets, NaN without positives."""
    result = []
    for score, truth in zip(np.asarray(scores).T, np.asarray(target).T):
        known = truth != -1
        positive = truth[known] == 1
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            result.append(
                average_precision_score(positive, score[known]) if positive.any() else math.nan
            )
    return result


def eleven_points_slowly(scores, target):
    """The definition in fractions, one threshold after the other."""
    result = []
    for score, truth in zip(np.asarray(scores).T, np.asarray(target).T):
        score, truth = score[truth != -1], truth[truth != -1]
        if not truth.any():
            result.append(math.nan)
            continue
        curve = []
        for threshold in set(score):
            above = truth[score >= threshold]
            hits = int(above.sum())
            curve.append((Fraction(hits, int(truth.sum())), Fraction(hits, len(above))))
        points = [max([p for r, p in curve if r >= Fraction(t, 10)]) for t in range(11)]
        result.append(float(sum(points) / 11))
    return result


def random_case(seed, low, levels=None, shape=(60, 5)):
    rng = np.random.RandomState(seed)
    scores, target = rng.rand(*shape), rng.randint(low, 2, shape)
    if levels is not None:
        scores = np.round(scores * levels) / levels
    target[:, 2] = -np.abs(target[:, 2])  # no positives
    return scores, target


@pytest.mark.parametrize('low', [0, -1])
@pytest.mark.parametrize('levels', [None, 1, 4])
@pytest.mark.parametrize('seed', range(3))
def test_equals_scikit_learn(seed, levels, low):
    scores, target = random_case(seed, low, levels)
    result = average_precision(torch.tensor(scores), torch.tensor(target))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), scikit_learn(scores, target), rtol=0, atol=1e-9)


@pytest.mark.parametrize('low', [0, -1])
@pytest.mark.parametrize('levels', [None, 4])
def test_eleven_points_equal_the_definition(levels, low):
    scores, target = random_case(0, low, levels)
    result = average_precision(torch.tensor(scores), torch.tensor(target), '11points')
    np.testing.assert_allclose(result.numpy(), eleven_points_slowly(scores, target), atol=1e-12)


def test_all_tied_is_the_share_of_positives():
    target = torch.tensor([[1], [0], [0]])
    for order in ([0, 1, 2], [1, 0, 2], [1, 2, 0]):
        result = average_precision(torch.full((3, 1), 0.5), target[order])
        assert result.item() == pytest.approx(1 / 3)


def test_values_by_hand():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    target = torch.tensor([[1], [0], [1], [0]])
    # Recall 1/2 at precision 1, recall 1 at precision 2/3.
    assert average_precision(scores, target).item() == pytest.approx((1 + 2 / 3) / 2)
    # t = 0, ..., 0.5 see precision 1, t = 0.6, ..., 1 see 2/3.
    assert average_precision(scores, target, '11points').item() == pytest.approx(
        (6 + 5 * 2 / 3) / 11
    )


def test_a_recall_of_three_tenths_reaches_the_point_at_three_tenths():
    # Three of ten positives first, then so many negatives that later precision is lower: in
    # floating point 0.1 * 3 > 3 / 10 would lose the fourth point.
    target = torch.tensor([1] * 3 + [0] * 90 + [1] * 7).unsqueeze(1)
    scores = torch.linspace(1, 0, 100).unsqueeze(1)
    assert average_precision(scores, target, '11points').item() == pytest.approx(
        (4 * 1 + 7 * 10 / 100) / 11
    )


def test_bfloat16_scores_tie_as_they_are():
    scores, target = random_case(0, 0)
    scores = torch.tensor(scores).bfloat16()
    np.testing.assert_allclose(
        average_precision(scores, torch.tensor(target)).numpy(),
        scikit_learn(scores.double().numpy(), target),
        atol=1e-9,
    )


def test_errors():
    scores, target = torch.rand(2, 3), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"`eval_mode` to be one of .*, but got 'voc'"):
        average_precision(scores, target, 'voc')
    with pytest.raises(ValueError, match='`target` to have the shape of `scores`'):
        average_precision(scores, target.T)


@st.composite
def cases(draw, levels=3):
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    scores = draw(arrays(np.float64, shape, elements=st.integers(-levels, levels)))
    target = draw(arrays(np.int64, shape, elements=st.integers(-1, 1)))
    return torch.tensor(scores), torch.tensor(target)


modes = st.sampled_from(['area', '11points'])


def same(result, expected):
    torch.testing.assert_close(result, expected, equal_nan=True, rtol=1e-12, atol=1e-12)


@given(cases())
@settings(deadline=None)
def test_equals_the_definitions(case):
    scores, target = case
    np.testing.assert_allclose(
        average_precision(scores, target).numpy(), scikit_learn(scores, target), atol=1e-9
    )
    np.testing.assert_allclose(
        average_precision(scores, target, '11points').numpy(),
        eleven_points_slowly(scores, target),
        atol=1e-12,
    )


@given(cases(), modes, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_samples_does_not_matter(case, mode, random):
    scores, target = case
    order = random.sample(range(len(scores)), len(scores))
    same(
        average_precision(scores[order], target[order], mode),
        average_precision(scores, target, mode),
    )


@given(cases(), modes, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_permuted_classes_permute_the_result(case, mode, random):
    scores, target = case
    order = random.sample(range(scores.shape[1]), scores.shape[1])
    same(
        average_precision(scores[:, order], target[:, order], mode),
        average_precision(scores, target, mode)[order],
    )


@given(cases(), modes, st.sampled_from([torch.exp, torch.sigmoid, lambda x: 3 * x - 7]))
@settings(deadline=None)
def test_increasing_transforms_change_nothing(case, mode, transform):
    scores, target = case
    same(
        average_precision(transform(scores), target, mode), average_precision(scores, target, mode)
    )


@given(cases(), modes, st.data())
@settings(deadline=None)
def test_scores_of_unknown_pairs_change_nothing(case, mode, data):
    scores, target = case
    other = torch.tensor(data.draw(arrays(np.float64, scores.shape, elements=st.integers(-9, 9))))
    same(
        average_precision(torch.where(target == -1, other, scores), target, mode),
        average_precision(scores, target, mode),
    )


@pytest.mark.parametrize('low', [0, -1])
@pytest.mark.parametrize('levels', [None, 4])
def test_resampled_mean_ap_is_that_of_the_images_drawn(levels, low):
    scores, target = random_case(0, low, levels, shape=(30, 4))
    drawn = np.random.RandomState(1).randint(30, size=(20, 30))
    counts = torch.from_numpy(np.stack([np.bincount(row, minlength=30) for row in drawn]))
    found = resampled_mean_ap(torch.from_numpy(scores), torch.from_numpy(target), counts)
    expected = [np.nanmean(scikit_learn(scores[row], target[row])) for row in drawn]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-12)
