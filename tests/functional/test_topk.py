import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, hamming_loss, precision_score, recall_score

from mhc_plugin.functional.topk import (
    TOPK_ITEMS,
    label_scores,
    topk_counts,
    topk_masks,
    topk_scores,
)

SKLEARN = dict(precision=precision_score, recall=recall_score, f1=f1_score)


def predict_slowly(scores, k):
    """The definition: rank by score, ties by the lower index."""
    predicted = np.zeros(scores.shape, dtype=int)
    for row, values in zip(predicted, scores):
        row[sorted(range(len(values)), key=lambda c: (-values[c], c))[:k]] = 1
    return predicted


def scores_slowly(scores, target, k, average):
    """Items over known pairs in plain loops, macro over classes with a known target."""
    predicted = predict_slowly(scores, k)

    def items(classes):
        pairs = [
            (predicted[n, c], target[n, c])
            for c in classes
            for n in range(len(scores))
            if target[n, c] != -1
        ]
        if not pairs:
            return dict.fromkeys(TOPK_ITEMS, math.nan)
        tp, fp, fn, tn = (pairs.count(pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))
        return dict(
            accuracy=(tp + tn) / len(pairs),
            precision=tp / (tp + fp) if tp + fp else 0.0,
            recall=tp / (tp + fn) if tp + fn else 0.0,
            f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
            hamming_distance=(fp + fn) / len(pairs),
        )

    num_classes = scores.shape[1]
    if average == 'micro':
        return items(range(num_classes))
    per_class = [items([c]) for c in range(num_classes)]
    lists = {item: [values[item] for values in per_class] for item in TOPK_ITEMS}
    return lists if average is None else {k: np.nanmean(v) for k, v in lists.items()}


def random_case(seed, num_samples=40, num_classes=7, low=0, levels=None):
    rng = np.random.RandomState(seed)
    scores = rng.rand(num_samples, num_classes)
    if levels is not None:
        scores = np.round(scores * levels) / levels  # many ties
    return scores, rng.randint(low, 2, scores.shape)


@pytest.mark.parametrize('levels', [None, 3])
@pytest.mark.parametrize('average', ['macro', 'micro', None])
@pytest.mark.parametrize('k', [1, 3, 7])
def test_equals_scikit_learn(k, average, levels):
    scores, target = random_case(k, levels=levels)
    target[:, 2] = 0  # never positive
    scores[:, 4] = -1  # never predicted unless all are
    predicted = predict_slowly(scores, k)
    result = topk_scores(torch.tensor(scores), torch.tensor(target), k, average)[k]

    for item, function in SKLEARN.items():
        expected = function(target, predicted, average=average, zero_division=0)
        np.testing.assert_allclose(result[item].numpy(), expected, rtol=0, atol=1e-6)
    wrong = (predicted != target).mean(0) if average is None else hamming_loss(target, predicted)
    np.testing.assert_allclose(result['hamming_distance'].numpy(), wrong, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result['accuracy'].numpy(), 1 - wrong, rtol=0, atol=1e-6)


@pytest.mark.parametrize('average', ['macro', 'micro', None])
def test_unknown_pairs_equal_the_definition(average):
    scores, target = random_case(0, low=-1, levels=4)
    target[:, 3] = -1  # nothing known
    target[:, 5] = -np.abs(target[:, 5])  # nothing positive
    ks = (1, 2, 6)
    results = topk_scores(torch.tensor(scores), torch.tensor(target), ks, average)
    assert tuple(results) == ks
    for k in ks:
        expected = scores_slowly(scores, target, k, average)
        for item in TOPK_ITEMS:
            np.testing.assert_allclose(results[k][item].numpy(), expected[item], atol=1e-12)


def test_places_are_chosen_among_all_classes():
    # The unknown class takes the only place, so the known positive is a miss.
    counts = topk_counts(torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[-1, 1, 0]]), 1)[1]
    assert [count.tolist() for count in counts] == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert counts.known.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ('k', 'expected'),
    [(1, [0, 1, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (3, [1, 1, 0, 1, 0]), (4, [1, 1, 1, 1, 0])],
)
def test_ties_go_to_the_lower_index(k, expected):
    scores = torch.tensor([[0.5, 0.7, 0.5, 0.7, 0.5], [0.0, 1.0, 0.0, 1.0, 0.0]])
    assert topk_masks(scores, [k])[k].int().tolist() == [expected, expected]


def test_infinite_scores_rank_as_numbers():
    scores = torch.tensor([[-math.inf, math.inf, 0.0, math.inf]])
    assert topk_masks(scores, [1, 3])[1].tolist() == [[False, True, False, False]]
    assert topk_masks(scores, [1, 3])[3].tolist() == [[False, True, True, True]]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_other_dtypes_of_scores(dtype):
    scores, target = random_case(3)
    scores = torch.tensor(scores).to(dtype)
    expected = scores_slowly(scores.double().numpy(), target, 2, 'macro')
    result = topk_scores(scores, torch.tensor(target, dtype=torch.float32), 2)[2]
    assert {item: value.item() for item, value in result.items()} == pytest.approx(expected)
    assert all(value.dtype == torch.float64 for value in result.values())


def test_closed_forms_of_top_4_of_10_with_4_labels():
    rng = np.random.RandomState(0)
    scores, target = rng.rand(500, 10), np.zeros((500, 10))
    for row in target:
        row[rng.permutation(10)[:4]] = 1
    result = topk_scores(torch.tensor(scores), torch.tensor(target), 4, 'micro')[4]
    precision = result['precision'].item()
    assert 0 < precision < 1
    assert result['recall'].item() == pytest.approx(precision, rel=0, abs=1e-9)
    assert result['f1'].item() == pytest.approx(precision, rel=0, abs=1e-9)
    assert result['accuracy'].item() == pytest.approx(0.2 + 0.8 * precision, rel=0, abs=1e-9)
    assert result['hamming_distance'].item() == pytest.approx(
        0.8 * (1 - precision), rel=0, abs=1e-9
    )


@pytest.mark.parametrize('average', ['macro', 'micro', None])
def test_nothing_known_is_nan(average):
    result = topk_scores(torch.rand(3, 4), torch.full((3, 4), -1), 2, average)[2]
    assert all(value.isnan().all() for value in result.values())


@pytest.mark.parametrize('topk', [0, -1, 1.5, True, '5', [], [1, 1], [1, None]])
def test_wrong_topk(topk):
    with pytest.raises(ValueError, match='`topk` to be an integer of 1 or more, or several'):
        topk_counts(torch.rand(2, 3), torch.zeros(2, 3), topk)


def test_topk_above_the_number_of_classes():
    with pytest.raises(ValueError, match=r'`topk` to be in 1..3 \(num_classes\), but got 4'):
        topk_counts(torch.rand(2, 3), torch.zeros(2, 3), (1, 4))


def test_wrong_average():
    with pytest.raises(ValueError, match=r'`average` to be one of .*weighted'):
        topk_scores(torch.rand(2, 3), torch.zeros(2, 3), 1, 'weighted')
    with pytest.raises(ValueError, match=r'`average` to be one of .*weighted'):
        label_scores(topk_counts(torch.rand(2, 3), torch.zeros(2, 3), 1)[1], 'weighted')


def test_scores_and_target_are_checked():
    with pytest.raises(ValueError, match='`scores` to hold no NaN'):
        topk_scores(torch.full((2, 3), math.nan), torch.zeros(2, 3), 1)


@st.composite
def untied_cases(draw):
    """Scores that differ within every row, targets with unknowns, k."""
    num_samples, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rows = [draw(st.permutations(range(num_classes))) for _ in range(num_samples)]
    target = draw(arrays(np.int64, (num_samples, num_classes), elements=st.integers(-1, 1)))
    return torch.tensor(rows).double(), torch.tensor(target), draw(st.integers(1, num_classes))


@st.composite
def tied_cases(draw):
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    scores = draw(arrays(np.float64, shape, elements=st.integers(-2, 2)))
    target = draw(arrays(np.int64, shape, elements=st.integers(-1, 1)))
    return torch.tensor(scores), torch.tensor(target), draw(st.integers(1, shape[1]))


def same(result, expected):
    for item in TOPK_ITEMS:
        torch.testing.assert_close(result[item], expected[item], equal_nan=True)


@given(tied_cases(), st.sampled_from(['macro', 'micro', None]))
@settings(deadline=None)
def test_equals_the_definition(case, average):
    scores, target, k = case
    result = topk_scores(scores, target, k, average)[k]
    if average == 'macro' and (target == -1).all():
        assert all(value.isnan() for value in result.values())
        return
    expected = scores_slowly(scores.numpy(), target.numpy(), k, average)
    for item in TOPK_ITEMS:
        np.testing.assert_allclose(result[item].numpy(), expected[item], atol=1e-12)


@given(tied_cases(), st.sampled_from(['macro', 'micro', None]), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_samples_does_not_matter(case, average, random):
    scores, target, k = case
    order = random.sample(range(len(scores)), len(scores))
    same(
        topk_scores(scores[order], target[order], k, average)[k],
        topk_scores(scores, target, k, average)[k],
    )


@given(untied_cases(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_permuted_classes_permute_the_result(case, random):
    scores, target, k = case
    order = random.sample(range(scores.shape[1]), scores.shape[1])
    for average in ('macro', 'micro'):
        same(
            topk_scores(scores[:, order], target[:, order], k, average)[k],
            topk_scores(scores, target, k, average)[k],
        )
    original = topk_scores(scores, target, k, None)[k]
    same(
        topk_scores(scores[:, order], target[:, order], k, None)[k],
        {item: value[order] for item, value in original.items()},
    )


@given(untied_cases(), st.sampled_from([torch.exp, torch.sigmoid, lambda x: 3 * x - 7, torch.atan]))
@settings(deadline=None)
def test_increasing_transforms_change_nothing(case, transform):
    scores, target, k = case
    for average in ('macro', 'micro', None):
        same(
            topk_scores(transform(scores), target, k, average)[k],
            topk_scores(scores, target, k, average)[k],
        )
