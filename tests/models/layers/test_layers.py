"""Fused layers, gathers and pools against values worked out by hand or by a slow loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mhc_plugin  # noqa: F401
from mhc_plugin.models.layers import (
    FusedConv2d,
    FusedConvStage,
    FusedLinear,
    GlobalPool,
    mean_over_positions,
    normalize_maps,
    signed_root,
)


def test_pools_by_hand():
    x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert GlobalPool('avg')(x).item() == 1.5
    assert GlobalPool('max')(x).item() == 3
    expected = math.log(sum(math.exp(2 * v) for v in range(4)) / 4) / 2
    assert GlobalPool('lse', r=2.0)(x).item() == pytest.approx(expected)
    vector = torch.rand(2, 5)
    assert GlobalPool('lse')(vector) is vector


@pytest.mark.parametrize('r', [1e-4, 1e3])
def test_log_sum_exp_lies_between_mean_and_maximum(r):
    x = torch.rand(3, 4, 5, 5, dtype=torch.float64)
    limit = x.mean((2, 3)) if r < 1 else x.amax((2, 3))
    torch.testing.assert_close(GlobalPool('lse', r)(x), limit, rtol=0, atol=5e-3)


def test_normalized_maps_by_hand():
    x = torch.tensor([[[[4.0, 0.0]], [[9.0, 0.0]], [[0.0, -1.0]]]])  # 3 channels, 2 positions
    std = x.var().add(1e-5).sqrt()
    torch.testing.assert_close(normalize_maps(x, 'image'), x / std)
    mean = torch.tensor([(16 + 81) / 3, 1 / 3]) + 1e-5
    torch.testing.assert_close(normalize_maps(x, 'position'), x / mean.sqrt())
    root = torch.tensor([[[[2.0, 0.0]], [[3.0, 0.0]], [[0.0, -1.0]]]])
    # The second position, with 1 / 3, is below half of the mean of both.
    mean = torch.tensor([(4 + 9) / 3, (4 + 9 + 1) / 3 / 4]) + 1e-5
    torch.testing.assert_close(normalize_maps(x, 'root'), root / mean.sqrt())
    assert normalize_maps(x, None) is x


@pytest.mark.parametrize('mode', ['image', 'position', 'root'])
def test_normalized_maps_have_gradients_and_leave_their_input(mode):
    x = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    before = x.clone()
    plain = normalize_maps(x, mode)
    assert torch.equal(x, before)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(normalize_maps(leaf, mode), plain)
    assert torch.autograd.gradcheck(lambda t: normalize_maps(t, mode), leaf)
    # Of a position without features nothing comes, nor infinite gradients.
    nothing = torch.zeros(1, 6, 2, 2, requires_grad=True)
    out = normalize_maps(nothing, mode)
    assert not out.any()
    out.sum().backward()
    assert torch.isfinite(nothing.grad).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('size', [1e-3, 1e3])
@pytest.mark.parametrize('mode', ['image', 'position', 'root'])
def test_half_precision_neither_overflows_nor_vanishes(mode, size, dtype):
    x = (size * torch.rand(2, 6, 3, 3)).to(dtype)
    out = normalize_maps(x, mode)
    assert out.dtype == dtype
    torch.testing.assert_close(out, normalize_maps(x.double(), mode).to(dtype))


@pytest.mark.parametrize('mode', ['image', 'position', 'root'])
def test_the_memory_format_changes_nothing(mode):
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normalize_maps(last, mode), normalize_maps(x, mode))
    for maps in (x, last):
        torch.testing.assert_close(mean_over_positions(maps), x.mean((2, 3)))
    layer = FusedLinear([range(6)] * 2, 6, [3, 3], bias=False).double()
    torch.testing.assert_close(layer.pointwise(last), layer.pointwise(x))
    expected = torch.einsum('nchw,koc->nkohw', x, layer.weight).flatten(1, 2)
    torch.testing.assert_close(layer.pointwise(x), expected)


def test_signed_root_keeps_the_sign_and_is_exactly_nothing_at_zero():
    x = torch.tensor([4.0, -9.0, 0.0])
    assert signed_root(x).tolist() == [2, -3, 0]
    leaf = x.clone().requires_grad_()
    signed_root(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.tensor([1 / 4, 1 / 6, 0]))


@pytest.mark.parametrize('mode', ['avg', 'max', 'lse'])
def test_contributions_are_feature_times_gradient(mode):
    pool = GlobalPool(mode)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    torch.testing.assert_close(pool.contributions(x), 20 * x * gradient)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_gather_equals_a_loop(data):
    total = data.draw(st.integers(1, 12))
    channels = data.draw(
        st.lists(
            st.lists(st.integers(0, total - 1), min_size=1, max_size=total, unique=True),
            min_size=1,
            max_size=5,
        )
    )
    shape = data.draw(st.sampled_from([(), (2, 3)]))
    x = torch.randn(2, total, *shape)
    layer = FusedLinear(channels, total, [1] * len(channels))
    out = layer.gather(x)
    if layer.shared:
        assert out is x
        return
    width = max(len(c) for c in channels)
    out = out.unflatten(1, (len(channels), width))
    for head, own in enumerate(channels):
        assert torch.equal(out[:, head, : len(own)], x[:, own])
        assert not out[:, head, len(own) :].any()


def test_gather_copies_nothing_where_slices_follow_one_another():
    x = torch.randn(2, 6)
    for channels in ([[0, 1, 2], [3, 4, 5]], [range(6), range(6)], [range(3), range(3, 6)]):
        assert FusedLinear(channels, 6, [1, 1]).gather(x) is x


def test_padding_starts_at_zero():
    linear = FusedLinear([range(2), range(4)], 4, [3, 1])
    assert not linear.weight[0, :, 2:].any()
    assert not linear.weight[1, 1:].any()
    assert linear.head_view(0).weight.all()
    assert linear.head_view(1).weight.all()
    conv = FusedConv2d([range(2), range(3)], 3, [3, 1], 1, bias=True)
    assert conv.weight.shape == (6, 3, 1, 1)
    assert not conv.weight[:3, 2].any()
    assert not conv.weight[4:].any()


@pytest.mark.parametrize('shared', [True, False])
def test_pointwise_is_the_linear_layer_at_every_position_without_bias(shared):
    channels = [range(4)] * 3 if shared else [range(4), range(4, 8), range(8, 12)]
    layer = FusedLinear(channels, 4 if shared else 12, [2] * 3)
    maps = torch.randn(2, 4 if shared else 12, 3, 5)
    out = layer.pointwise(maps)
    assert out.shape == (2, 6, 3, 5)
    nn.init.zeros_(layer.bias)
    for i in range(3):
        for j in range(5):
            torch.testing.assert_close(out[:, :, i, j], layer(maps[:, :, i, j]))


def test_batch_statistics_are_those_of_one_head():
    stage = FusedConvStage([range(5)] * 2, 5, 4, 1, 3, dict(type='BN'), dict(type='ReLU'))
    plain = stage.head_view(1)
    plain[1].running_mean = plain[1].running_mean.clone()
    plain[4].running_var = plain[4].running_var.clone()
    x = torch.randn(3, 5, 6, 6)
    stage.train()(x)
    plain.train()(x)
    torch.testing.assert_close(stage.head_view(1)[1].running_mean, plain[1].running_mean)
    torch.testing.assert_close(stage.head_view(1)[4].running_var, plain[4].running_var)


def test_whole_modules_change_their_memory_format():
    stage = FusedConvStage([range(5)] * 2, 5, 4, 1, 3, dict(type='BN'), dict(type='ReLU'))
    x = torch.randn(3, 5, 6, 6)
    before = stage.eval()(x)
    stage.to(memory_format=torch.channels_last)
    torch.testing.assert_close(stage(x), before)
