import torch
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import nn

from mhc_plugin.engine import CPUAmpOptimWrapper


def make(**kwargs):
    model = nn.Linear(4, 2)
    return model, CPUAmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)


def test_forward_in_bfloat16_and_weights_in_float32():
    model, wrapper = make()
    with wrapper.optim_context(model):
        output = model(torch.ones(3, 4))
    assert output.dtype == torch.bfloat16
    before = model.weight.clone()
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    assert (model.weight != before).all()
    assert model(torch.ones(3, 4)).dtype == torch.float32


def test_gradients_accumulate():
    model, wrapper = make(accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    before = model.weight.clone()
    for changed in (False, True):
        with wrapper.optim_context(model):
            wrapper.update_params(model(torch.ones(3, 4)).float().sum())
        assert torch.equal(model.weight, before) != changed


def test_state_of_a_wrapper_with_a_scaled_loss():
    _, wrapper = make()
    wrapper.load_state_dict({**wrapper.state_dict(), 'loss_scaler': dict(scale=1.0)})


def test_registered():
    assert OPTIM_WRAPPERS.get('CPUAmpOptimWrapper') is CPUAmpOptimWrapper
