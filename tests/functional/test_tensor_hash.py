"""Tensors are named by names, dtypes, shapes and each bit of their values."""

import pytest
import torch
from torch import nn

from mhc_plugin.utils.tensor_hash import hash_tensors, hash_weights


def test_hash_tensors_ignores_format_gradient_and_order():
    weight, bias = torch.rand(4, 3, 2, 2), torch.rand(4)
    plain = hash_tensors([('w', weight), ('b', bias)])
    other = weight.clone().to(memory_format=torch.channels_last).requires_grad_()
    assert hash_tensors([('b', bias), ('w', other)]) == plain


@pytest.mark.parametrize(
    'changed',
    [
        lambda t: t + 1e-7,
        lambda t: t.half(),
        lambda t: t.view(2, 2),
        lambda t: torch.where(t == 0, -0.0, t),
    ],
)
def test_hash_tensors_sees_each_bit(changed):
    tensor = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert hash_tensors([('w', tensor)]) != hash_tensors([('w', changed(tensor))])
    assert hash_tensors([('w', tensor)]) != hash_tensors([('v', tensor)])


def test_hash_tensors_takes_scalars_and_empty_tensors():
    assert hash_tensors([('n', torch.tensor(3))]) != hash_tensors([('n', torch.tensor(4))])
    assert hash_tensors([('n', torch.empty(0))]) != hash_tensors([('n', torch.empty(0, 2))])


def test_hash_weights_covers_parameters_and_all_buffers():
    module = nn.BatchNorm1d(2)
    module.register_buffer('mean', torch.zeros(2), persistent=False)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert set(named) == {
        'weight',
        'bias',
        'running_mean',
        'running_var',
        'num_batches_tracked',
        'mean',
    }
    before = hash_weights(module)
    assert before == hash_tensors(named.items())
    module.mean += 1
    assert hash_weights(module) != before
