import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models import MultiLabelClsHead, MultiLabelLinearClsHead

from mhc_plugin.class_maps import closed_form, inherent_maps, logits_and_maps


class TwoStageHead(MultiLabelClsHead):
    """Classes 0 and 1 look at the last stage, class 2 at the one before, class 3 at both."""

    def __init__(self):
        super().__init__()
        self.coarse = torch.nn.Linear(64, 3)
        self.fine = torch.nn.Linear(32, 2)

    def forward(self, feats):
        coarse = self.coarse(feats[-1].square().mean((2, 3)))
        fine = self.fine(feats[-2].mean((2, 3)))
        return torch.stack([coarse[:, 0], coarse[:, 1], fine[:, 0], coarse[:, 2] + fine[:, 1]], 1)


class HeadWithMaps(MultiLabelClsHead):
    def forward(self, feats):
        return feats[-1].mean((2, 3))[:, :4]

    def class_maps(self, feats):
        return torch.arange(4.0).view(1, 4, 1, 1).expand(len(feats[-1]), 4, 2, 2)


class DoublingNeck(BaseModule):
    def forward(self, feats):
        return tuple(feat.mul_(2) for feat in feats)


def slow_maps(model, feats, num_classes):
    """The definition, one class, image and stage after the other."""
    size = max((feat.shape[-2:] for feat in feats), key=lambda hw: hw[0] * hw[1])
    maps = torch.zeros(len(feats[0]), num_classes, *size, dtype=torch.float64)
    for n in range(len(feats[0])):
        for c in range(num_classes):
            leaves = [feat[n : n + 1].clone().requires_grad_() for feat in feats]
            necked = tuple(leaves) if model.neck is None else model.neck(tuple(leaves))
            model.head(necked)[0, c].backward()
            for leaf in leaves:
                if leaf.grad is None:
                    continue
                stage = leaf.shape[2] * leaf.shape[3] * (leaf * leaf.grad).sum(1, keepdim=True)
                maps[n, c] += F.interpolate(stage.detach(), size=size, mode='bilinear')[0, 0]
    return maps.clamp(min=0)


@pytest.fixture
def feats(images):

    def feats(model):
        model.double()
        with torch.no_grad():
            return model.extract_feat(images.double(), stage='backbone')

    return feats


def test_linear_head_has_closed_form_without_bias(build, feats):
    model = build()
    x = feats(model)
    maps = inherent_maps(model, x)
    by_hand = torch.einsum('kc,nchw->nkhw', model.head.fc.weight, x[-1]).clamp(min=0)
    assert closed_form(model, x) is not None
    torch.testing.assert_close(maps, by_hand.detach())
    torch.testing.assert_close(maps, slow_maps(model, x, 5))
    assert maps.shape == (3, 5, 3, 3)
    assert not maps.requires_grad


def test_mean_of_unclamped_map_is_logit_without_bias(build, feats):
    model = build()
    with torch.no_grad():
        model.head.fc.weight.abs_()
        model.head.fc.bias.zero_()
    x = feats(model)
    torch.testing.assert_close(
        inherent_maps(model, x).mean((2, 3)), model.head(model.neck(x)).detach()
    )


@pytest.mark.parametrize(
    'neck',
    [
        dict(type='GeneralizedMeanPooling'),
        dict(type='LinearNeck', in_channels=64, out_channels=16, gap_dim=2),
        dict(type='GlobalAveragePooling'),
    ],
)
def test_any_neck_and_head_follow_definition(build, feats, neck):
    in_channels = 16 if neck['type'] == 'LinearNeck' else 64
    head = dict(type='MultiLabelLinearClsHead', num_classes=5, in_channels=in_channels)
    model = build(head=head, neck=neck)
    x = feats(model)
    torch.testing.assert_close(inherent_maps(model, x), slow_maps(model, x, 5))


def test_csra_head_follows_definition(build, feats):
    model = build(
        head=dict(type='CSRAClsHead', num_classes=5, in_channels=64, num_heads=2, lam=0.1),
        neck=None,
    )
    x = feats(model)
    torch.testing.assert_close(inherent_maps(model, x), slow_maps(model, x, 5))


@pytest.mark.parametrize(
    'options',
    [
        dict(),  # linear layer and pooling neck
        dict(neck=dict(type='GeneralizedMeanPooling')),  # by gradient
        dict(head=HeadWithMaps(), neck=None),
        dict(
            head=dict(type='ConvMultiHeadClsHead', num_classes=5, in_channels=64, conv_channels=4),
            neck=None,
        ),
    ],
)
def test_logits_and_maps_are_what_each_of_them_is_alone(build, feats, options):
    model = build(**options)
    x = feats(model)
    logits, maps = logits_and_maps(model, x)
    with torch.no_grad():
        expected = model.head(x if model.neck is None else model.neck(x))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(maps.clamp(min=0), inherent_maps(model, x))
    assert not logits.requires_grad
    assert not maps.requires_grad


def test_subclass_of_linear_head_is_not_taken_for_it(build, feats):

    class Squared(MultiLabelLinearClsHead):
        def forward(self, feats):
            return self.fc(feats[-1]).square()

    model = build(head=Squared(5, 64))
    x = feats(model)
    assert closed_form(model, x) is None
    torch.testing.assert_close(inherent_maps(model, x), slow_maps(model, x, 5))


def test_stages_are_resized_to_the_largest_and_added(build, feats):
    model = build(head=TwoStageHead(), neck=None, backbone=dict(out_indices=(2, 3)))
    x = feats(model)
    maps = inherent_maps(model, x)
    assert maps.shape == (3, 4, 6, 6)
    torch.testing.assert_close(maps, slow_maps(model, x, 4))


def test_stage_without_use_does_not_set_the_size(build, feats):
    model = build(
        head=dict(type='CSRAClsHead', num_classes=5, in_channels=64, num_heads=1, lam=1),
        neck=None,
        backbone=dict(out_indices=(1, 2, 3)),
    )
    assert inherent_maps(model, feats(model)).shape == (3, 5, 3, 3)


@pytest.mark.parametrize('head', [None, TwoStageHead()])
def test_classes_come_in_the_order_asked_for(build, feats, head):
    model = build(
        head=head,
        neck=None if head else dict(type='GlobalAveragePooling'),
        backbone=dict(out_indices=(2, 3)),
    )
    x = feats(model)
    torch.testing.assert_close(inherent_maps(model, x, [3, 0]), inherent_maps(model, x)[:, [3, 0]])


def test_head_tells_its_own_maps(build, feats):
    model = build(head=HeadWithMaps(), neck=None)
    x = feats(model)
    assert closed_form(model, x) is not None
    assert inherent_maps(model, x, [2, 1])[0, :, 0, 0].tolist() == [2, 1]


def test_own_maps_are_of_no_use_behind_a_pooling_neck(build, feats):
    model = build(head=HeadWithMaps())
    model.head.forward = lambda feats: feats[-1][:, :4]
    x = feats(model)
    torch.testing.assert_close(inherent_maps(model, x), x[-1][:, :4].clamp(min=0))


def test_neck_in_place_spares_the_features(build, feats):
    model = build(
        head=dict(type='CSRAClsHead', num_classes=5, in_channels=64, num_heads=1, lam=1),
        neck=DoublingNeck(),
    )
    x = feats(model)
    before = x[-1].clone()
    inherent_maps(model, x)
    assert torch.equal(x[-1], before)


def test_half_features_meet_float_heads(build, feats):
    model = build()
    x = tuple(feat.bfloat16() for feat in feats(model))
    assert inherent_maps(model.float(), x).dtype == torch.float32


@pytest.mark.parametrize(
    'head',
    [
        None,
        dict(type='CSRAClsHead', num_classes=5, in_channels=64, num_heads=1, lam=1),
        dict(type='MultiHeadClsHead', num_classes=5, in_channels=64),
        dict(type='AttentionMultiHeadClsHead', num_classes=5, in_channels=64),
    ],
)
def test_maps_are_the_same_under_autocast(build, images, head):
    model = build(head=head, neck=None if head else dict(type='GlobalAveragePooling'))
    with torch.no_grad():
        x = model.extract_feat(images, stage='backbone')
    expected = inherent_maps(model, x)
    with torch.autocast('cpu', torch.bfloat16):
        maps = inherent_maps(model, x)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, expected)


@pytest.mark.parametrize('given', [False, True])
@pytest.mark.parametrize(
    'head',
    [
        dict(type='MultiHeadClsHead'),
        dict(type='MultiHeadClsHead', hidden_channels=(8,), pool='lse'),
        dict(type='ConvMultiHeadClsHead', conv_channels=4),
        dict(type='ConvClsHead', conv_channels=4, pool='max'),
        dict(type='AttentionMultiHeadClsHead', num_attentions=2),
        dict(
            type='MultiHeadClsHead',
            connection='stages',
            in_channels=(32, 64),
            head_stages=[0, 1, [0, 1], 1, 0],
        ),
    ],
)
def test_heads_of_ours_have_closed_forms(build, feats, head, given):
    """At the features themselves, for heads without convolutions, the definition holds."""
    head = dict(dict(num_classes=5, in_channels=64), **head)
    model = build(head=head, neck=None, backbone=dict(out_indices=(2, 3)))
    x = feats(model)
    maps = inherent_maps(model, x, given=given)
    assert closed_form(model, x) is not None
    if head['type'] == 'MultiHeadClsHead':
        expected = slow_maps(model, x, 5)
        used = x[-2] if head.get('connection') else x[-1]
        assert maps.shape[2:] == used.shape[2:]
        if used is x[-1]:
            expected = slow_maps(model, x[-1:], 5)
        torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(inherent_maps(model, x, [4, 0], given), maps[:, [4, 0]])


def test_no_gradient_of_a_parameter_is_touched(build, feats):
    model = build(head=TwoStageHead(), neck=None, backbone=dict(out_indices=(2, 3)))
    inherent_maps(model, feats(model))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize('head', [dict(type='MultiHeadClsHead'), None])
def test_pooled_features_are_refused(build, feats, head):
    model = build(head=head and dict(num_classes=5, in_channels=64, **head))
    with pytest.raises(ValueError, match=r'maps of shape \(N, C, h, w\), but got \[\(3, 64\)\]'):
        inherent_maps(model, (feats(model)[-1].mean((2, 3)),))


def test_head_without_logits_is_refused(build, feats):

    class NoLogits(MultiLabelClsHead):
        def forward(self, feats):
            return feats

    model = build(head=NoLogits(), neck=None)
    with pytest.raises(ValueError, match='Expected the head to return logits of shape'):
        inherent_maps(model, feats(model))
