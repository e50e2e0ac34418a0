import pytest
import torch
from torch import nn

from mhc_plugin.class_maps import left_as_found, unwrap_classifier


def describe(model):
    return (
        [
            (name, module.training, len(module._forward_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        ],
        [
            (name, p.requires_grad, None if p.grad is None else p.grad.clone())
            for name, p in model.named_parameters()
        ],
    )


def assert_same(before, after):
    assert before[0] == after[0]
    for (name, requires_grad, grad), (_, now_requires_grad, now_grad) in zip(before[1], after[1]):
        assert requires_grad == now_requires_grad, name
        assert (grad is None) == (now_grad is None), name
        assert grad is None or torch.equal(grad, now_grad), name


@pytest.fixture
def model(build):
    """A model in a state that nothing but care restores."""
    model = build(backbone=dict(frozen_stages=1, norm_eval=True))
    model.train()
    model.backbone.layer4.eval()
    model.backbone.conv1.weight.requires_grad_(True)
    model.backbone.layer3[0].conv1.weight.requires_grad_(False)
    model.head.fc.weight.grad = torch.ones_like(model.head.fc.weight)
    return model


def test_modes_and_gradients_come_back(model, images):
    before = describe(model)
    gradient = model.head.fc.weight.grad
    with left_as_found(model) as inside:
        assert inside is model
        assert not any(module.training for module in model.modules())
        model(images).sum().backward()
        model.requires_grad_(False)
    assert_same(before, describe(model))
    assert model.head.fc.weight.grad is gradient


def test_modes_and_gradients_come_back_after_an_error(model):
    before = describe(model)

    def fail():
        with left_as_found(model):
            model.requires_grad_(False)
            raise RuntimeError('in the middle')

    with pytest.raises(RuntimeError, match='in the middle'):
        fail()
    assert_same(before, describe(model))


def test_classifier_is_found_in_wrappers(build):
    model = build()
    assert unwrap_classifier(nn.DataParallel(model)) is model
    assert unwrap_classifier(model) is model


def test_model_without_backbone_is_refused():
    with pytest.raises(ValueError, match=r'classifier with a backbone and a head.*got `Linear`'):
        unwrap_classifier(nn.Linear(2, 2))
