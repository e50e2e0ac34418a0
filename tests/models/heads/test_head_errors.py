"""Arguments and features that do not fit a head are named, with what would."""

import pytest
import torch
from mmpretrain.registry import MODELS

import mhc_plugin  # noqa: F401

CLASSES = 7
ERRORS = [
    (dict(num_classes=0), '`num_classes` to be an int of at least 1, but got 0'),
    (dict(pool='mean'), "`pool` to be one of .* but got 'mean'"),
    (dict(lse_r=0), '`lse_r` to be a number above 0, but got 0'),
    (dict(normalize='channel'), "`normalize` to be one of .* but got 'channel'"),
    (dict(dropout=1.0), r'`dropout` to be a number in \[0, 1\), but got 1.0'),
    (dict(thr=2), r'`thr` to be a number in \[0, 1\], but got 2'),
    (dict(topk=8), r'`topk` to be an int in 1\.\.7, but got 8'),
    (dict(in_channels=0), '`in_channels` to be a sequence of ints of at least 1'),
    (dict(connection='some'), "`connection` to be one of .* but got 'some'"),
    (dict(head_groups=[[0, 1, 2], [3, 4, 5]]), r'missing: \[6\]'),
    (dict(head_groups=[[0, 1, 2, 3], [3, 4, 5, 6]]), r'repeated: \[3\]'),
    (dict(head_groups=[[0, 1, 2, 3], [4, 5, 6, 7]]), r'unknown: \[7\]'),
    (dict(head_groups=[[0, 1, 2, 3, 4, 5, 6], []]), 'no empty group'),
    (dict(connection='channels', in_channels=6), '7 heads for 6 channels'),
    (dict(head_stages=[0] * 7), 'only with `connection="stages"`'),
    (dict(connection='stages', head_stages=[0] * 7), '`in_channels` to be a sequence'),
    (dict(connection='stages', in_channels=(3, 4)), 'each of the 7 heads, but got none'),
    (dict(connection='stages', in_channels=(3, 4), head_stages=[0] * 6), 'but got 6 entries'),
    (dict(connection='stages', in_channels=(3, 4), head_stages=[2] * 7), r'in 0\.\.1 .* got 2'),
    (dict(connection='stages', in_channels=(3, 4), head_stages=[(0, 0)] * 7), 'different stages'),
]


@pytest.mark.parametrize('name', ['MultiHeadClsHead', 'ConvMultiHeadClsHead'])
@pytest.mark.parametrize(('kwargs', 'message'), ERRORS)
def test_wrong_arguments_are_named(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(dict(type=name, num_classes=CLASSES, in_channels=20), **kwargs))


@pytest.mark.parametrize(
    ('name', 'kwargs', 'message'),
    [
        (
            'MultiHeadClsHead',
            dict(hidden_channels=(0,)),
            '`hidden_channels` to be a sequence of ints',
        ),
        ('ConvMultiHeadClsHead', dict(conv_channels=0), '`conv_channels` to be an int'),
        ('ConvMultiHeadClsHead', dict(conv_channels=None, num_convs=0), '`num_convs` to be'),
        ('ConvMultiHeadClsHead', dict(kernel_size=2), '`kernel_size` to be odd'),
        ('ConvMultiHeadClsHead', dict(norm_cfg=dict(type='LN')), '`norm_cfg` to have a type'),
        ('ConvMultiHeadClsHead', dict(norm_cfg=dict(type='GN', num_groups=3)), 'divide'),
        ('ConvMultiHeadClsHead', dict(act_cfg=dict(type='PReLU')), 'without parameters'),
    ],
)
def test_wrong_arguments_of_one_head_are_named(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type=name, num_classes=CLASSES, in_channels=20, **kwargs))


def test_features_that_do_not_fit_are_named():
    head = MODELS.build(dict(type='MultiHeadClsHead', in_channels=20, num_classes=CLASSES))
    with pytest.raises(ValueError, match=r'feature -1 to have 20 channels .* but got 19'):
        head((torch.rand(2, 19, 3, 3),))
    with pytest.raises(ValueError, match='a tuple of features'):
        head(torch.rand(2, 20, 3, 3))
    with pytest.raises(ValueError, match='shape'):
        head((torch.rand(2, 20, 3),))
    with pytest.raises(ValueError, match='lost the positions'):
        head.class_maps((torch.rand(2, 20),))
    conv = MODELS.build(dict(type='ConvMultiHeadClsHead', in_channels=20, num_classes=CLASSES))
    with pytest.raises(ValueError, match='Take out the pooling neck'):
        conv((torch.rand(2, 20),))
    stages = dict(connection='stages', in_channels=(3, 4), head_stages=[0] * CLASSES)
    staged = MODELS.build(dict(type='MultiHeadClsHead', num_classes=CLASSES, **stages))
    with pytest.raises(ValueError, match=r'\(2\), but the backbone gives 1'):
        staged((torch.rand(2, 4, 3, 3),))
    with pytest.raises(ValueError, match='7 heads, but got 1'):
        head.stack_heads(head.split_heads()[:1])
