"""A class's gradient, to the bit, beside other classes and under several threads."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mhc_plugin.models.losses import PerHeadBCELoss
from mhc_plugin.utils.known_pairs import KnownPairs


@pytest.fixture
def three_threads():
    number = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(number)


# Batches whose numbers fill vectors, too.
SIZES = st.integers(1, 1100) | st.integers(1, 16).map(lambda n: 64 * n)


@settings(deadline=None)
@given(SIZES, st.integers(1, 70), st.integers(0, 2**31), st.data())
def test_gradient_of_a_class_is_the_same_to_the_bit_in_any_company(
    num_samples, num_classes, seed, data
):
    rng = torch.Generator().manual_seed(seed)
    shape = num_samples, num_classes
    logits = 3 * torch.randn(shape, generator=rng)
    # Some classes have unknown targets, some have none.
    share = torch.rand(num_classes, generator=rng).round(decimals=1)
    target = torch.randint(0, 2, shape, generator=rng, dtype=torch.int8)
    target[torch.rand(shape, generator=rng) < share - 0.5] = -1
    chosen = sorted(data.draw(st.sets(st.integers(0, num_classes - 1), min_size=1)))
    weights = torch.rand(2, num_classes, generator=rng)
    loss_weight, pos_weight = (data.draw(st.sampled_from([one, None])) for one in weights)

    divisor = data.draw(st.sampled_from([1, 3]))

    def gradient(columns, form=lambda targets: targets):
        own = {
            name: values[columns].tolist()
            for name, values in dict(loss_weight=loss_weight, pos_weight=pos_weight).items()
            if values is not None
        }
        beside = data.draw(st.integers(0, 2))
        x = F.pad(logits[:, columns], (0, beside)).requires_grad_()
        # As where gradients of several batches are accumulated, or of a slice.
        loss = PerHeadBCELoss(**own)(x[:, : len(columns)], form(target[:, columns])) / divisor
        return torch.autograd.grad(loss, x)[0][:, : len(columns)]

    together = gradient(list(range(num_classes)))
    assert torch.equal(gradient(chosen), together[:, chosen])
    # Of many classes a table keeps pairs, where it keeps a matrix of few.
    assert torch.equal(gradient(chosen, KnownPairs.from_dense), together[:, chosen])


def test_threads_cut_no_vector(three_threads):
    # Three would cut 80,128 numbers into parts that are no whole vectors.
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(40_050, 2, generator=rng)
        target = torch.randint(0, 2, logits.shape, generator=rng)
        grads = []
        for columns in ([0], [0, 1]):
            x = logits[:, columns].requires_grad_()
            grads += torch.autograd.grad(PerHeadBCELoss()(x, target[:, columns]), x)
        assert torch.equal(grads[0][:, 0], grads[1][:, 0])


def test_of_a_slice_and_of_a_part_of_several_batches():
    # Numbers that fill vectors, all known; and the same with an unknown one.
    logits = 3 * torch.randn(192, 5, generator=torch.Generator().manual_seed(0))
    target = (logits > 0).long()
    with_unknown = target.clone()
    with_unknown[0, 4] = -1
    grads = []
    for columns, targets in (
        (slice(0, 5), target),
        (slice(0, 5), with_unknown),
        (slice(1), target),
    ):
        x = logits.clone().requires_grad_()
        loss = PerHeadBCELoss(0.7)(x[:, columns], targets[:, columns]) / 3
        grads.append(torch.autograd.grad(loss, x)[0][:, 0])
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])
