"""The loss of known pairs against that of the matrix which they stand for."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mhc_plugin.models.losses import PerHeadBCELoss
from mhc_plugin.utils.known_pairs import KnownPairs

NUM_IMAGES, NUM_CLASSES = 9, 5


def batch(dtype=torch.float64, soft=True):
    rng = torch.Generator().manual_seed(0)
    shape = NUM_IMAGES, NUM_CLASSES
    logits = (3 * torch.randn(shape, generator=rng, dtype=torch.float64)).to(dtype)
    target = torch.randint(-2, 2, shape, generator=rng).clamp(min=-1)
    if soft:
        target = target.double()
        target[0] = torch.rand(NUM_CLASSES, generator=rng)
    target[:, 3] = -1  # never known
    target[5] = -1  # nothing known of it
    return logits.requires_grad_(), target


def weights(shape):
    rng = torch.Generator().manual_seed(1)
    return None if shape is None else torch.rand(shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize('head_reduction', ['sum', 'mean'])
@pytest.mark.parametrize('loss_weight', [0.5, [1.0, 0.0, 2.0, 3.0, 0.25]])
@pytest.mark.parametrize('pos_weight', [None, 3.0, [1.0, 2.0, 0.5, 4.0, 0.0]])
@pytest.mark.parametrize('shape', [None, (NUM_IMAGES,), (NUM_IMAGES, NUM_CLASSES)])
@pytest.mark.parametrize('soft', [True, False])
def test_it_is_the_loss_of_the_matrix(head_reduction, loss_weight, pos_weight, shape, soft):
    logits, target = batch(soft=soft)
    loss = PerHeadBCELoss(loss_weight, head_reduction, pos_weight)
    dense = loss(logits, target, weights(shape), avg_factor=9)
    pairs = loss(logits, KnownPairs.from_dense(target), weights(shape), avg_factor=9)
    torch.testing.assert_close(pairs, dense, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(pairs, logits),
        torch.autograd.grad(dense, logits),
        rtol=1e-12,
        atol=1e-15,
    )


def test_in_float32_gradients_are_the_same_to_the_bit():
    # So weights do not depend on the form in which a table keeps targets.
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(128, 64, generator=rng).requires_grad_()
    target = torch.randint(-3, 2, (128, 64), generator=rng).clamp(min=-1)
    losses = [PerHeadBCELoss()(logits, t) for t in (target, KnownPairs.from_dense(target))]
    grads = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    assert torch.equal(*grads)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_computes_in_float32_under_autocast(dtype):
    logits, target = batch(dtype)
    pairs = KnownPairs.from_dense(target)
    with torch.autocast('cpu', torch.bfloat16):
        loss = PerHeadBCELoss()(logits, pairs)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, PerHeadBCELoss()(logits.float(), pairs))


def test_nothing_known_gives_zero_and_zero_gradients():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = PerHeadBCELoss(pos_weight=2.0)(logits, KnownPairs.from_dense(torch.full((3, 2), -1)))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_compiled_equals_eager():
    loss = PerHeadBCELoss()
    compiled = torch.compile(loss, backend='aot_eager')
    logits, target = batch()
    pairs = KnownPairs.from_dense(target)
    torch.testing.assert_close(compiled(logits, pairs), loss(logits, pairs))


@pytest.mark.parametrize('value', [2.0, -0.5, -1.0, 1.01, math.nan, math.inf])
def test_any_other_target_is_an_error(value):
    pairs = KnownPairs.from_dense(torch.tensor([[0.0, -1.0, 1.0], [-1.0, 0.0, 1.0]]))
    pairs.values[2] = value
    with pytest.raises(ValueError, match=rf'`target` .* got {value:g} for sample 1, class 1'):
        PerHeadBCELoss()(torch.zeros(2, 3), pairs)


@pytest.mark.cuda
def test_on_a_gpu_a_bad_target_is_told_later():
    pairs = KnownPairs.from_dense(torch.tensor([[0.0, -1.0, 1.0], [-1.0, 0.0, 1.0]])).to('cuda')
    loss, logits = PerHeadBCELoss().cuda(), torch.zeros(2, 3, device='cuda')
    loss(logits, pairs)
    pairs.values[2] = 7
    loss(logits, pairs)
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=r'`target` to hold .* others for classes \[1\]'):
        loss(logits, pairs)


def test_shapes_must_fit():
    pairs = KnownPairs.from_dense(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'one shape, .* but got \(2, 3\) and \(2, 4\)'):
        PerHeadBCELoss()(torch.zeros(2, 3), pairs)


class LargeMade(TorchDispatchMode):
    """Keeps the memory of one size or more that operations make."""

    def __init__(self, size, there):
        super().__init__()
        self.size, self.there, self.made = size, there.untyped_storage().data_ptr(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.numel() >= self.size:
                storage = tensor.untyped_storage()
                if storage.data_ptr() != self.there:
                    self.made[storage.data_ptr()] = storage
        return out


def test_only_the_gradient_of_the_logits_is_as_large_as_they_are():
    target = torch.full((64, 1000), -1)
    target[:, ::250] = 1
    logits = torch.zeros(64, 1000, requires_grad=True)
    pairs = KnownPairs.from_dense(target)
    with LargeMade(64 * 1000, logits) as forward:
        loss = PerHeadBCELoss([1.0] * 1000, pos_weight=[2.0] * 1000)(logits, pairs)
    assert not forward.made
    with LargeMade(64 * 1000, logits) as backward:
        loss.backward()
    # The gradient, and that of the flat view.
    assert len(backward.made) <= 2
