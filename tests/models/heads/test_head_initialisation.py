"""What heads start with, by default and by ``init_cfg``."""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

import mhc_plugin  # noqa: F401


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


def test_linear_layer_on_features_starts_as_mmpretrains():
    head = MODELS.build(dict(type='MultiHeadClsHead', num_classes=40, in_channels=64))
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert not head.fc.bias.any()


@pytest.mark.parametrize('name', ['ConvMultiHeadClsHead', 'ConvClsHead'])
def test_convolutions_start_as_those_of_one_head(name):
    head = MODELS.build(dict(type=name, num_classes=40, in_channels=64))
    head.init_weights()
    convs = [layer for layer in head.convs[0] if hasattr(layer, 'kernel_size')]
    assert len(convs) == 2
    for conv in convs:
        fan_in = max(conv.in_sizes) * conv.kernel_size**2
        assert conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ('name', 'width', 'options'),
    [
        ('ConvMultiHeadClsHead', 16, {}),
        ('ConvClsHead', 25, dict(conv_channels=25)),
        ('MultiHeadClsHead', 9, dict(hidden_channels=(12, 9))),
    ],
)
def test_linear_layers_behind_others_start_as_nn_linear(name, width, options):
    # With so few inputs, weights of a std of 0.01 would all be pushed below 0 in the first steps,
    # since most targets are 0: the head would learn what speaks against its class.
    head = MODELS.build(dict(type=name, num_classes=40, in_channels=64, **options))
    head.init_weights()
    for weight in (*(layer.weight for layer in getattr(head, 'hidden', [])), head.fc.weight):
        bound = nn.Linear(weight.shape[-1], 2000).weight.abs().max().item()
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.03)
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert head.fc.weight.shape[-1] == width
    assert not head.fc.bias.any()


def test_init_cfg_means_the_layers_of_split_heads():
    init = [
        dict(type='Xavier', layer='Conv2d', distribution='uniform'),
        dict(type='Constant', layer='Linear', val=0.5, bias=2.0),
    ]
    head = MODELS.build(
        dict(
            type='ConvMultiHeadClsHead',
            num_classes=30,
            in_channels=48,
            conv_channels=8,
            init_cfg=init,
        )
    )
    head.init_weights()
    assert (head.fc.weight == 0.5).all()
    assert (head.fc.bias == 2.0).all()
    bound = (6 / (48 + 8)) ** 0.5  # of one head's 1 x 1 convolution
    weight = head.convs[0][0].weight
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_head_checkpoint_can_be_named_in_init_cfg(tmp_path):
    cfg = dict(type='MultiHeadClsHead', num_classes=7, in_channels=20)
    source = MODELS.build(cfg)
    torch.save(
        dict(state_dict={f'head.{k}': v for k, v in source.state_dict().items()}),
        tmp_path / 'head.pth',
    )
    head = MODELS.build(
        dict(
            cfg,
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'), prefix='head.'),
        )
    )
    assert not torch.equal(head.fc.weight, source.fc.weight)
    head.init_weights()
    assert torch.equal(head.fc.weight, source.fc.weight)
