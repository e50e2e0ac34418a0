"""The optimum of linear heads, held to scikit-learn and to autograd."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mhc_plugin.functional import solver
from mhc_plugin.functional.linear_optimum import cross_validate, fit_linear
from mhc_plugin.functional.solver import LinearProblem
from mhc_plugin.models import PerHeadBCELoss


def make(rows=300, features=12, classes=4, seed=0, unknown=0.2, soft=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(rows, features) * torch.logspace(-1, 1, features, dtype=torch.float64) + normal(
        features
    )
    logits = x @ normal(features, classes) / 3 - 0.5
    targets = (torch.rand(logits.shape, generator=generator) < logits.sigmoid()).double()
    if soft:
        fuzzy = torch.rand(logits.shape, generator=generator) < soft
        targets = torch.where(fuzzy, torch.rand(logits.shape, generator=generator), targets)
    targets[torch.rand(logits.shape, generator=generator) < unknown] = -1
    return x.to(dtype), targets


def scikit_learn(x, target, decay, loss_weight, pos_weight, bias_decay):
    """One class's optimum: soft targets are two rows, a decayed bias is one more feature."""
    known = target >= 0
    rows, y = x[known], target[known]
    weights = np.concatenate([pos_weight * y, 1 - y]) * loss_weight / known.sum()
    rows = np.concatenate([rows, rows])
    labels = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    if bias_decay:
        rows = np.concatenate([rows, np.full((len(rows), 1), bias_decay**-0.5)], 1)
    model = LogisticRegression(
        C=1 / decay,
        tol=1e-12,
        max_iter=10_000,
        solver='newton-cholesky',
        fit_intercept=not bias_decay,
    ).fit(rows[weights > 0], labels[weights > 0], sample_weight=weights[weights > 0])
    weight, bias = model.coef_[0], model.intercept_[0]
    if bias_decay:
        weight, bias = weight[:-1], weight[-1] * bias_decay**-0.5
    return weight, bias


@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(unknown=0.0),
        dict(soft=0.5),
        dict(decay=[0.001, 0.01, 0.1, 10.0]),
        dict(loss_weight=[0.5, 1.0, 2.0, 7.0]),
        dict(pos_weight=[0.1, 1.0, 3.0, 20.0]),
        dict(bias_decay=1.0),
        dict(bias_decay=0.1, soft=0.3),
        dict(rows=20, features=40),
        dict(dtype=torch.float32),
        dict(
            decay=[0.001, 0.01, 0.1, 10.0],
            loss_weight=[0.5, 1.0, 2.0, 7.0],
            pos_weight=[0.1, 1.0, 3.0, 20.0],
            bias_decay=0.5,
            soft=0.5,
        ),
    ],
    ids=str,
)
def test_equals_scikit_learn(settings):
    data = {
        k: v for k, v in settings.items() if k in ('rows', 'features', 'soft', 'dtype', 'unknown')
    }
    x, targets = make(**data)
    decay = settings.get('decay', 0.02)
    loss_weight, pos_weight = settings.get('loss_weight', 1.0), settings.get('pos_weight', 1.0)
    bias_decay = settings.get('bias_decay', 0.0)
    found = fit_linear(
        LinearProblem(x, bias_decay), targets, decay, loss_weight, pos_weight, tolerance=1e-10
    )
    each = [np.broadcast_to(v, 4) for v in (decay, loss_weight, pos_weight)]
    for c in range(4):
        weight, bias = scikit_learn(
            x.double().numpy(), targets[:, c].numpy(), *(float(v[c]) for v in each), bias_decay
        )
        assert np.abs(found.weight[c].numpy() - weight).max() < 1e-5
        assert abs(found.bias[c].item() - bias) < 1e-5


def test_is_where_the_gradient_of_the_loss_in_training_with_weight_decay_is_zero():
    x, targets = make(soft=0.3)
    loss_weight, pos_weight = [0.5, 1.0, 2.0, 3.0], [1.0, 2.0, 0.5, 4.0]
    found = fit_linear(x, targets, 0.01, loss_weight, pos_weight, tolerance=1e-6)
    layer = torch.nn.Linear(12, 4).double()
    criterion = PerHeadBCELoss(loss_weight, pos_weight=pos_weight)

    def gradients(weight, bias):
        layer.weight.data, layer.bias.data = weight, bias
        layer.zero_grad()
        criterion(layer(x), targets).backward()
        return torch.cat([layer.weight.grad + 0.01 * weight, layer.bias.grad[:, None]], 1)

    norms = gradients(found.weight, found.bias).norm(dim=1)
    # At weight 0, where the bias is the prior and has no gradient.
    zero = gradients(torch.zeros_like(found.weight), torch.zeros_like(found.bias))
    assert (norms < 2e-6 * zero.norm(dim=1)).all()
    assert (found.relative_gradient <= 1e-6).all()


def largest_difference(a, b):
    return max((a.weight - b.weight).abs().max().item(), (a.bias - b.bias).abs().max().item())


def test_rows_in_another_order_chunks_and_company_change_nothing(monkeypatch):
    x, targets = make(rows=500, classes=7)
    whole = fit_linear(x, targets, 0.02)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert largest_difference(whole, fit_linear(x[order], targets[order], 0.02)) < 1e-6
    for c in range(7):
        alone = fit_linear(x, targets[:, [c]], 0.02)
        assert (alone.weight[0] - whole.weight[c]).abs().max() < 1e-6
    monkeypatch.setattr(solver, 'ROWS_AT_ONCE', 37)
    assert largest_difference(whole, fit_linear(x, targets, 0.02)) < 1e-6
    # Two classes at a time, features read again and again.
    problem = LinearProblem(Streamed(x), max_bytes=500 * 28 * 2)
    assert [b.stop - b.start for b in problem.blocks(7, 8)] == [2, 2, 2, 1]
    assert largest_difference(whole, fit_linear(problem, targets, 0.02)) < 1e-6


class Streamed:
    """Rows that only come in parts."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        assert part.stop - part.start <= solver.ROWS_AT_ONCE
        return self.rows[part]


def test_one_and_two_threads_agree():
    x, targets = make(rows=600, features=80)
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(fit_linear(x, targets, 0.02))
    finally:
        torch.set_num_threads(threads)
    assert largest_difference(*found) < 1e-6


def test_compact_targets_are_the_same_targets():
    x, targets = make()
    compact = fit_linear(x, targets.to(torch.int8), 0.02)
    assert largest_difference(fit_linear(x, targets, 0.02), compact) == 0


def test_separable_classes_a_constant_feature_and_large_weights():
    x, _ = make(rows=200)
    x[:, 3] = 5.0
    targets = (x[:, :4] > x[:, :4].median(0).values).double()
    targets[:, 3] = (x[:, 0] > 1.0).double()
    found = fit_linear(x, targets, 1e-7)
    assert (found.relative_gradient <= 1e-6).all()
    assert (found.weight[:, 3].abs() < 1e-3 * found.weight.abs().max()).all()
    scores = x @ found.weight.T + found.bias
    assert ((scores > 0) == (targets > 0)).all()


def test_classes_of_one_kind_get_their_prior():
    x, targets = make(classes=5, unknown=0.0)
    targets[:, 0], targets[:, 1], targets[:, 2] = 0, 1, -1
    found = fit_linear(x, targets, 0.02)
    assert found.at_prior.tolist() == [True, True, True, False, False]
    assert (found.weight[:3] == 0).all()
    expected = torch.tensor([0.5 / 301, 300.5 / 301, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found.bias[:3].sigmoid(), expected)


@pytest.mark.parametrize('tolerance', [1e-8, 1e-3])
def test_features_that_say_nothing_leave_the_prior(tolerance):
    """The gradient is rounding from the beginning, and no multiple of it can be asked for."""
    x, targets = make(rows=50, classes=3, unknown=0.0)
    for same in (torch.zeros_like(x), torch.full_like(x, 3.7)):
        found = fit_linear(same, targets, 0.01, tolerance=tolerance)
        logit = found.bias + same[0] @ found.weight.T
        torch.testing.assert_close(logit.sigmoid(), targets.mean(0), rtol=0, atol=1e-6)
    # So it may be for one class alone: of all its known images one is a copy of another.
    x[1], x[2] = x[0], x[0]
    targets[:, 1] = -1
    targets[:3, 1] = torch.tensor([1.0, 0.0, 0.0])
    found = fit_linear(x, targets, 0.01, tolerance=tolerance)
    assert found.weight[1].abs().max() < 1e-6
    assert found.bias[1].sigmoid().item() == pytest.approx(1 / 3, abs=1e-6)
    torch.testing.assert_close(
        found.weight[::2], fit_linear(x, targets[:, ::2], 0.01, tolerance=tolerance).weight
    )


def test_a_loss_weight_of_zero_leaves_the_weight_zero():
    x, targets = make()
    found = fit_linear(x, targets, 0.02, loss_weight=[0.0, 1.0, 1.0, 1.0])
    assert (found.weight[0] == 0).all()
    assert found.weight[1].abs().max() > 0.01


def test_cross_validation_scores_what_was_held_out():
    x, targets = make(rows=400)
    folds = torch.arange(400) % 5
    path = [1.0, 0.1, 0.01]
    seen = []

    def score(logits, known):
        seen.append(logits)
        return torch.arange(4.0)

    scores = cross_validate(LinearProblem(x), targets, folds, path, score, tolerance=1e-8)
    assert scores.tolist() == [[0, 1, 2, 3]] * 3
    for decay, logits in zip(path, seen):
        for fold in range(5):
            inside = folds == fold
            found = fit_linear(x[~inside], targets[~inside], decay, tolerance=1e-8)
            expected = x[inside] @ found.weight.T + found.bias
            torch.testing.assert_close(logits[inside], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(weight_decay=0.0), 'weight_decay'),
        (dict(weight_decay=[1.0, 2.0]), 'each of 4 classes'),
        (dict(weight_decay=float('nan')), 'weight_decay'),
        (dict(loss_weight=-1.0), 'loss_weight'),
        (dict(pos_weight=[1.0] * 3), 'pos_weight'),
        (dict(targets=torch.full((300, 4), 2.0)), 'targets'),
        (dict(targets=torch.zeros(3, 4)), 'targets'),
        (dict(features=torch.full((300, 12), float('inf'))), 'finite'),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    x, targets = make()
    given = dict(dict(features=x, targets=targets, weight_decay=0.1), **arguments)
    with pytest.raises(ValueError, match=message):
        fit_linear(**given)
