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


CONV = dict(type='ConvMultiHeadClsHead', conv_channels=8)
STAGES = dict(connection='stages', in_channels=(12, 8, 16))


@pytest.mark.parametrize(
    'options',
    [
        dict(type='MultiHeadClsHead'),
        dict(type='MultiHeadClsHead', hidden_channels=[4]),
        dict(CONV, norm_cfg=dict(type='GN', num_groups=2)),
        dict(CONV, conv_channels=None, norm_cfg=None),
        dict(type='AttentionMultiHeadClsHead'),
        dict(type='MultiHeadClsHead', init_cfg=dict(type='Normal', layer='Linear', std=2)),
        dict(CONV, **STAGES),
        dict(type='AttentionMultiHeadClsHead', **STAGES),
    ],
)
def test_first_weights_follow_from_seed_and_name_alone(options):
    stages = [[0, 2], [1], [0, 2], [0, 1, 2], [1]]
    names = list('abcde')

    def drawn(places):
        more = dict(head_stages=[stages[i] for i in places]) if 'connection' in options else {}
        head = MODELS.build(dict(in_channels=12, num_classes=len(places)) | options | more)
        head.name_classes([names[i] for i in places], seed=3)
        torch.manual_seed(len(places))
        before = torch.random.get_rng_state()
        head.init_weights()
        assert torch.equal(torch.random.get_rng_state(), before)
        return [list(single.parameters()) for single in head.split_heads()]

    together = drawn(range(5))
    for i in range(5):
        (alone,) = drawn([i])
        assert len(alone) == len(together[i])
        assert all(torch.equal(one, other) for one, other in zip(alone, together[i]))
    # Classes that read the same differ.
    for one, other in ((0, 2), (1, 4)):
        assert any(not torch.equal(a, b) for a, b in zip(together[one], together[other]))


def test_what_is_drawn_outside_of_layers_is_refused():
    class Own(MODELS.get('MultiHeadClsHead')):
        def __init__(self, num_classes, in_channels, connection='all', head_stages=None):
            super().__init__(
                num_classes, in_channels, connection=connection, head_stages=head_stages
            )
            self.scale = nn.Parameter(torch.randn(num_classes))

    head = Own(3, 8)
    head.name_classes(list('abc'), seed=0)
    with pytest.raises(TypeError, match='Expected `Own` to draw `scale` in `reset_parameters`'):
        head.init_weights()


def test_second_draw_begins_anew():
    head = MODELS.build(dict(CONV, num_classes=2, in_channels=6))
    head.name_classes(list('ab'), seed=0)
    head.init_weights()
    first = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.train()((torch.rand(4, 6, 3, 3),)).sum().backward()
    assert any(not torch.equal(x, first[name]) for name, x in head.state_dict().items())
    head.init_weights()
    assert all(torch.equal(x, first[name]) for name, x in head.state_dict().items())
