"""A head trained in company is, to the bit, the head that is trained alone."""

import pytest
import torch
from mmpretrain.registry import MODELS

import mhc_plugin  # noqa: F401

NAMES = [f'class {c}' for c in range(11)]
STAGES = {name: [[0], [1], [0, 1]][c % 3] for c, name in enumerate(NAMES)}
SHAPES = [(6, 6, 5), (13, 5, 4)]
CASES = {
    'linear': dict(type='MultiHeadClsHead'),
    'linear-lse-dropout': dict(type='MultiHeadClsHead', pool='lse', dropout=0.3),
    'linear-stages': dict(type='MultiHeadClsHead', connection='stages', dropout=0.3),
    'hidden': dict(type='MultiHeadClsHead', hidden_channels=(5, 3), dropout=0.3),
    'conv': dict(type='ConvMultiHeadClsHead', conv_channels=5),
    'conv-whole': dict(type='ConvMultiHeadClsHead'),
    'conv-groups-lse': dict(
        type='ConvMultiHeadClsHead',
        conv_channels=6,
        pool='lse',
        norm_cfg=dict(type='GN', num_groups=2),
        act_cfg=dict(type='GELU'),
        dropout=0.3,
    ),
    'conv-stages': dict(type='ConvMultiHeadClsHead', connection='stages', dropout=0.3),
    'conv-wide': dict(type='ConvMultiHeadClsHead', conv_channels=None, norm_cfg=None),
    'attention': dict(type='AttentionMultiHeadClsHead'),
    'attention-stages': dict(type='AttentionMultiHeadClsHead', connection='stages'),
    'attention-one': dict(type='AttentionMultiHeadClsHead', num_attentions=1, normalize='image'),
}
OPTIMIZERS = {
    'SGD': lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    'AdamW': lambda p: torch.optim.AdamW(p, 0.01),
    'Adam, foreach': lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01, foreach=True),
}


def trained(cfg, names, optimizer='SGD', steps=3, size=9, loss=None):
    """For every name the tensors of its head, after some steps on batches of its own labels."""
    stages = cfg.get('connection') == 'stages'
    if stages:
        cfg = dict(cfg, head_stages=[STAGES[name] for name in names])
    head = MODELS.build(
        dict(
            cfg,
            num_classes=len(names),
            separate=True,
            in_channels=[channels for channels, *_ in SHAPES] if stages else SHAPES[-1][0],
            loss=dict(type='PerHeadBCELoss', **(loss or {})),
        )
    )
    head.name_classes(names, seed=3)
    head.init_weights()
    optimizer = OPTIMIZERS[optimizer](head.parameters())
    head.train()
    for step in range(steps):
        head.seed_dropout(0, step // 2)
        draw = torch.Generator().manual_seed(step)
        feats = tuple(torch.randn(size, *shape, generator=draw).relu() for shape in SHAPES)
        table = torch.randint(-1, 2, (size, len(NAMES)), generator=draw).float()
        target = table[:, [NAMES.index(name) for name in names]]
        optimizer.zero_grad()
        head.loss_module(head(feats), target).backward()
        optimizer.step()
    return {name: head.head_view(i).state_dict() for i, name in enumerate(names)}


def differing(one, other):
    return {
        name
        for name in one.keys() & other.keys()
        if any(not torch.equal(x, other[name][key]) for key, x in one[name].items())
    }


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('case', CASES)
def test_company_changes_no_bit(case, threads):
    optimizer = list(OPTIMIZERS)[list(CASES).index(case) % len(OPTIMIZERS)]
    together = trained(CASES[case], NAMES, optimizer)
    for names in (NAMES[3:4], NAMES[::-2]):
        assert differing(trained(CASES[case], names, optimizer), together) == set()


@pytest.mark.parametrize('options', [dict(connection='channels'), dict(head_groups=[[0, 1], [2]])])
def test_heads_that_depend_on_others_are_refused(options):
    with pytest.raises(ValueError, match='Expected argument `separate` to be False with'):
        MODELS.build(
            dict(type='MultiHeadClsHead', in_channels=8, separate=True, num_classes=3) | options
        )


@pytest.mark.parametrize('number', [0, 1, 2, 5])
def test_convolutions_get_maps_channels_last(number):
    head = MODELS.build(dict(type='ConvMultiHeadClsHead', num_classes=2, in_channels=24))
    x = torch.rand(number, 24, 7, 5)
    expected = x.contiguous(memory_format=torch.channels_last)
    (given,) = head.shared_inputs([x])
    assert torch.equal(given, x)
    # Also of one image, whose strides could be others and would change the bits.
    assert number == 0 or given.stride() == expected.stride()
