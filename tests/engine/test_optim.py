import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from mhc_plugin.engine import CPUAmpOptimWrapper, TrainedOptimWrapperConstructor


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


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2))
        self.head[1].weight.requires_grad_(False)


def built(kind, model):
    optimizer = dict(type='SGD', lr=0.1, weight_decay=0.03)
    paramwise = dict(custom_keys=dict(bias=dict(decay_mult=0.0)))
    return kind(dict(optimizer=optimizer), paramwise)(model).optimizer.param_groups


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.warnings = []

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            self.warnings.append(record.getMessage())


@pytest.mark.parametrize('kind', [DefaultOptimWrapperConstructor, TrainedOptimWrapperConstructor])
def test_settings_of_trained_parameters(kind):
    model = Model()
    groups = built(kind, model)
    first, second = model.head
    expected = [(first.weight, 0.03), (first.bias, 0.0), (second.bias, 0.0)]
    assert len(groups) == len(expected)
    for group, (parameter, decay) in zip(groups, expected):
        assert group['params'][0] is parameter
        assert group['weight_decay'] == decay


def test_no_line_for_a_frozen_module():
    logger, lines = MMLogger.get_current_instance(), Lines()
    logger.addHandler(lines)
    try:
        built(TrainedOptimWrapperConstructor, Model())
    finally:
        logger.removeHandler(lines)
    # What is frozen beside something trained, and may be so by mistake, is still named.
    assert [line for line in lines.warnings if 'requires_grad' in line] == [
        'head.1.weight is skipped since its requires_grad=False'
    ]


def test_constructor_is_registered():
    name = 'TrainedOptimWrapperConstructor'
    assert OPTIM_WRAPPER_CONSTRUCTORS.get(name) is TrainedOptimWrapperConstructor
