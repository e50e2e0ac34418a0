import math

import pytest
import torch

from mhc_plugin.functional.swap import logit_std, standardise_logits, swap_effects


def test_std_per_class():
    logits = torch.tensor([[1.0, 0.0, 0.1], [3.0, 0.0, 0.1], [5.0, 3.0, 0.1]])
    std = logit_std(logits)
    torch.testing.assert_close(std, torch.tensor([2.0, math.sqrt(3), 0.0], dtype=torch.float64))
    torch.testing.assert_close(
        standardise_logits(torch.tensor([[4.0, 0.0, 5.0]]), std),
        torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64),
    )


def test_a_logit_that_never_varies_has_a_deviation_of_exactly_zero():
    columns = [torch.full((number, 1), 0.1, dtype=torch.float64) for number in range(2, 100)]
    # The mean of equal numbers may differ from them by rounding, and so the deviation from 0.
    rounded = [column for column in columns if column.std(0) != 0]
    assert rounded, 'this torch rounds otherwise: choose other numbers'
    for column in rounded:
        assert logit_std(column).tolist() == [0.0]


def test_a_class_whose_logit_never_varies_has_no_part():
    logits = torch.rand(11, 3, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = 0.1
    std = logit_std(logits)
    assert std[0] == 0
    assert (std[1:] > 0).all()
    # Divided by 0, a change of that class's logit would be all there is.
    after = logits + torch.tensor([1.0, 0.1, 0.1])
    removed, added = torch.ones(2, 11, dtype=torch.long)
    effects = swap_effects(logits, after, removed, added + 1, std)
    torch.testing.assert_close(effects.scores, torch.ones(11, dtype=torch.float64))


def test_scores_by_hand():
    before = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).repeat(5, 1)
    change = torch.tensor(
        [
            [-2.0, 1.0, 0.0, 0.0],  # nothing but the two: 1
            [-2.0, 1.0, 3.0, 0.0],  # dz = -2, 0.5, 3, 0
            [2.0, -1.0, 0.0, 4.0],  # dz = 2, -0.5, 0, 8, the wrong way
            [0.0, 0.0, 0.0, 0.0],  # nothing changes
            [0.0, 0.0, 1.0, 1.0],  # only others
        ]
    )
    std = torch.tensor([1.0, 2.0, 1.0, 0.5])
    effects = swap_effects(
        before,
        before + change,
        torch.zeros(5, dtype=torch.long),
        torch.ones(5, dtype=torch.long),
        std,
    )
    torch.testing.assert_close(
        effects.scores, torch.tensor([1.0, 2.5 / 5.5, 2.5 / 10.5, 0.0, 0.0], dtype=torch.float64)
    )
    assert effects.expected.tolist() == [True, True, False, False, False]


def test_removed_and_added_are_told_apart():
    before, after = torch.zeros(2, 3), torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
    effects = swap_effects(before, after, torch.tensor([0, 2]), torch.tensor([2, 0]), torch.ones(3))
    assert effects.expected.tolist() == [True, False]
    assert effects.scores.tolist() == [1.0, 1.0]


def test_a_factor_of_a_logit_has_no_effect():
    rng = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 20, 6, generator=rng)
    removed = torch.randint(0, 6, (20,), generator=rng)
    added = (removed + 1) % 6
    factor = torch.tensor([0.01, 1.0, 3.0, 100.0, 1e-4, 7.0])
    first = swap_effects(before, after, removed, added, logit_std(before))
    second = swap_effects(
        before * factor, after * factor, removed, added, logit_std(before * factor)
    )
    torch.testing.assert_close(first.scores, second.scores, rtol=1e-5, atol=1e-6)


def test_changes_without_order_are_at_chance():
    rng = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 20000, 8, generator=rng)
    removed = torch.zeros(20000, dtype=torch.long)
    effects = swap_effects(before, after, removed, removed + 5, torch.ones(8))
    assert effects.scores.mean().item() == pytest.approx(2 / 8, abs=0.01)
    assert effects.expected.double().mean().item() == pytest.approx(1 / 4, abs=0.01)


@pytest.mark.parametrize('logits', [torch.zeros(1, 3), torch.zeros(3)])
def test_std_needs_two_composites(logits):
    with pytest.raises(ValueError, match=r'`logits` to have shape .* N of 2 or more'):
        logit_std(logits)


def test_std_needs_finite_logits():
    with pytest.raises(ValueError, match='`logits` to be finite'):
        logit_std(torch.tensor([[1.0], [math.nan]]))


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(after=torch.zeros(2, 4)), '`before` and `after` to have one shape'),
        (dict(removed=torch.tensor([0])), r'`removed` to have shape \(2,\), but got \(1,\)'),
        (dict(added=torch.tensor([[1, 1]])), r'`added` to have shape \(2,\), but got \(1, 2\)'),
        (dict(std=torch.ones(2)), r'`std` to have shape \(3,\), but got \(2,\)'),
        (dict(before=torch.full((2, 3), math.inf)), '`before` to be finite'),
        (dict(after=torch.full((2, 3), math.nan)), '`after` to be finite'),
        (
            dict(removed=torch.tensor([0, 3])),
            r'`removed` to hold classes in 0..2, but got \[0, 3\]',
        ),
        (dict(added=torch.tensor([1, -1])), r'`added` to hold classes in 0..2'),
        (dict(added=torch.tensor([0, 1])), '`removed` and `added` to differ in every swap'),
    ],
)
def test_wrong_arguments(changed, message):
    arguments = dict(
        before=torch.zeros(2, 3),
        after=torch.zeros(2, 3),
        removed=torch.tensor([0, 0]),
        added=torch.tensor([1, 1]),
        std=torch.ones(3),
    )
    with pytest.raises(ValueError, match=message):
        swap_effects(**(arguments | changed))
