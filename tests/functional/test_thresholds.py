import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mhc_plugin.functional.thresholds import best_f1_thresholds, predicted_mask


def brute_force(scores, target):
    """The best F1 that scikit-learn finds over all thresholds."""
    known = target != -1
    scores, target = scores[known], target[known]
    return max(f1_score(target, scores >= thr, zero_division=0) for thr in scores)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('levels', [None, 4])
def test_thresholds_are_the_best_over_known_targets(seed, levels):
    rng = np.random.RandomState(seed)
    scores, target = rng.rand(30, 6), rng.randint(-1, 2, (30, 6))
    if levels:
        scores = np.floor(scores * levels) / levels
    best = best_f1_thresholds(torch.tensor(scores), torch.tensor(target))
    for c in range(6):
        assert best.f1[c].item() == pytest.approx(brute_force(scores[:, c], target[:, c]))
        known = target[:, c] != -1
        reached = f1_score(target[known, c], scores[known, c] >= best.thresholds[c].item())
        assert reached == pytest.approx(best.f1[c].item())


def test_threshold_lies_between_scores_and_keeps_away_from_them():
    scores = torch.tensor([[0.9], [0.7], [0.3], [0.1]])
    best = best_f1_thresholds(scores, torch.tensor([[1], [1], [0], [0]]))
    assert best.thresholds.item() == pytest.approx(0.5)
    assert best.f1.item() == 1
    everything = best_f1_thresholds(scores, torch.ones(4, 1))
    assert everything.thresholds.item() == pytest.approx(0.1)


def test_highest_of_equally_good_thresholds():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    # One of one and two of three: 2 * 1 / (1 + 2) = 2/3, 2 * 2 / (4 + 2) = 2/3.
    best = best_f1_thresholds(scores, torch.tensor([[1], [0], [0], [1]]))
    assert best.thresholds.item() == pytest.approx(0.85)


def test_neighbouring_scores_are_told_apart():
    high = torch.tensor(0.7)
    low = torch.nextafter(high, torch.tensor(0.0))
    best = best_f1_thresholds(torch.stack([high, low])[:, None], torch.tensor([[1], [0]]))
    assert predicted_mask(torch.stack([high, low])[:, None], best.thresholds).tolist() == [
        [True],
        [False],
    ]


def test_class_without_positive_keeps_the_default():
    best = best_f1_thresholds(torch.rand(3, 2), torch.tensor([[0, -1], [0, -1], [0, -1]]), 0.4)
    assert best.thresholds.tolist() == [0.4, 0.4]
    assert best.f1.tolist() == [0, 0]


def test_bad_targets_are_refused():
    with pytest.raises(ValueError, match='only 1, 0 and -1'):
        best_f1_thresholds(torch.rand(1, 1), torch.full((1, 1), 2))


def test_masks_by_one_threshold_and_by_one_per_class():
    scores = torch.tensor([[0.5, 0.2], [0.4, 0.9]])
    assert predicted_mask(scores, 0.5).tolist() == [[True, False], [False, True]]
    assert predicted_mask(scores, [0.4, 0.95]).tolist() == [[True, False], [True, False]]
    assert predicted_mask(scores, 0.5, topk=2).tolist() == [[True, False], [False, True]]


def test_ranks_break_ties_by_the_lower_index():
    assert predicted_mask(torch.tensor([[0.5, 0.7, 0.5]]), topk=2).tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(), 'one of the arguments `thr` and `topk`'),
        (dict(thr=[0.1, 0.2, 0.3]), r'one number or 2, one per class, but got shape \(3,\)'),
        (dict(topk=3), r'`topk` to be in 1..2 \(num_classes\), but got 3'),
        (dict(topk=0), 'integer of 1 or more'),
    ],
)
def test_arguments_that_do_not_fit(kwargs, words):
    with pytest.raises(ValueError, match=words):
        predicted_mask(torch.rand(1, 2), **kwargs)
