"""What the loss does not take, and what it says of it."""

import math

import pytest
import torch

from mhc_plugin.models.losses import PerHeadBCELoss


def test_255_is_not_unknown():
    with pytest.raises(ValueError, match=r'`target` .* got 255 for sample 1, class 0'):
        PerHeadBCELoss()(torch.zeros(2, 1), torch.tensor([[1], [255]], dtype=torch.uint8))


@pytest.mark.parametrize('value', [2.0, -0.5, -2.0, 1.01, math.nan, math.inf, -math.inf])
def test_any_other_target_is_an_error(value):
    target = torch.zeros(3, 4)
    target[1, 2] = value
    with pytest.raises(ValueError, match=rf'`target` .* got {value:g} for sample 1, class 2'):
        PerHeadBCELoss()(torch.zeros(3, 4), target)


@pytest.mark.cuda
def test_a_step_on_a_gpu_waits_for_nothing_and_tells_a_bad_target_later():
    loss = PerHeadBCELoss(loss_weight=[1.0, 2.0, 3.0]).cuda()
    logits = torch.zeros(4, 3, device='cuda', requires_grad=True)
    target = torch.ones(4, 3, device='cuda')
    loss(logits, target).backward()
    torch.cuda.set_sync_debug_mode('error')
    try:
        loss(logits, target).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    target[1, 2] = 7
    loss(logits, target)
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=r'`target` to hold .* others for classes \[2\]'):
        loss(logits, target.clamp(max=1))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(head_reduction='none'), "`head_reduction` to be one of .*, but got 'none'"),
        (dict(loss_weight=-1.0), '`loss_weight` to be a finite number of 0 or more.* got -1'),
        (dict(loss_weight=[1.0, math.nan]), '`loss_weight` .* got .*nan'),
        (dict(pos_weight=math.inf), '`pos_weight` .* got inf'),
        (dict(pos_weight=[[1.0]]), r'`pos_weight` .* got \[\[1'),
        (dict(class_names=['a', 'b', 'a']), '`class_names` to hold distinct names'),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PerHeadBCELoss(**kwargs)


@pytest.mark.parametrize(
    'kwargs',
    [dict(loss_weight=[1.0, 2.0]), dict(pos_weight=[1.0, 2.0]), dict(class_names=['a', 'b'])],
)
def test_per_class_arguments_must_fit_the_classes(kwargs):
    name = next(iter(kwargs))
    with pytest.raises(ValueError, match=rf'`{name}` to have 3 entries \(num_classes\).* got 2'):
        PerHeadBCELoss(**kwargs)(torch.zeros(1, 3), torch.zeros(1, 3))


@pytest.mark.parametrize(
    ('score', 'target'),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(2, 3), torch.zeros(2, 1)),
        (torch.zeros(3), torch.zeros(3)),
    ],
)
def test_shapes_must_fit(score, target):
    with pytest.raises(ValueError, match='`cls_score` and `target` to have one shape'):
        PerHeadBCELoss()(score, target)


def test_weight_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r'`weight` to have shape \(2,\) or \(2, 3\).* got \(3,\)'):
        PerHeadBCELoss()(torch.zeros(2, 3), torch.zeros(2, 3), weight=torch.ones(3))
