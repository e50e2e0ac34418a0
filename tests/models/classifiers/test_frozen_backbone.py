"""Frozen means frozen, whatever the backbone."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mhc_plugin.models import FeatureDataPreprocessor
from mhc_plugin.utils.batch import Features

BACKBONES = {
    'seresnet50': (dict(type='SEResNet', depth=50), 2048),
    'vgg19': (dict(type='VGG', depth=19, out_indices=(4,)), 512),
    'vgg19-bn': (dict(type='VGG', depth=19, out_indices=(4,), norm_cfg=dict(type='BN')), 512),
    'swin-tiny': (dict(type='SwinTransformer', arch='tiny', pad_small_map=True), 768),
    'efficientnet-lite0': (dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'), 1280),
}


def classifier(backbone, channels, head='MultiHeadClsHead', **kwargs):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='FrozenBackboneClassifier',
            backbone=copy.deepcopy(backbone),
            head=dict(type=head, num_classes=3, in_channels=channels),
            **kwargs,
        )
    )


def batch(n=2, size=64):
    targets = torch.randint(0, 2, (n, 3)).float()
    return dict(
        inputs=torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_score(t) for t in targets],
    )


def tiny(**kwargs):
    return classifier(dict(type='ResNet', depth=18, base_channels=8, stem_channels=8), 64, **kwargs)


@pytest.mark.parametrize('frozen_stages', [False, True])
@pytest.mark.parametrize('name', BACKBONES)
def test_nothing_of_the_backbone_moves(name, frozen_stages):
    if name == 'efficientnet-lite0':
        pytest.importorskip('timm')
        if frozen_stages:
            pytest.skip('wrapped timm models have no frozen_stages')
    backbone, channels = BACKBONES[name]
    if frozen_stages:
        backbone = dict(backbone, frozen_stages={'seresnet50': 4, 'swin-tiny': 3}.get(name, 5))
    model = classifier(backbone, channels)
    state = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    ema = ExponentialMovingAverage(model, momentum=0.1)
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    model.train()
    model.train()
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(m.training for m in model.backbone.modules())
    assert model.head.training
    head = model.head.fc.weight.clone()
    for _ in range(2):
        model.train_step(batch(), optim)
        ema.update_parameters(model)
    assert not torch.equal(model.head.fc.weight, head)
    for moved in (model, ema.module):
        for key, value in moved.backbone.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_backbone_runs_without_autograd_in_training_only():
    model = tiny()
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert not model.train().extract_feat(images)[0].requires_grad
    assert model.eval().extract_feat(images)[0].requires_grad
    with torch.no_grad():
        assert not model.extract_feat(images)[0].requires_grad


def test_few_images_at_a_time_give_the_features_of_all_at_once():
    model = tiny().double().train()
    images = torch.rand(19, 3, 32, 32, dtype=torch.float64)
    at_once = model.backbone(images)
    for a, b in zip(model.extract_feat(images), at_once):
        torch.testing.assert_close(a, b)


def test_neck_is_frozen_only_without_parameters():
    pooled = tiny(neck=dict(type='GlobalAveragePooling'))
    assert pooled.with_frozen_neck
    assert not pooled.train().neck.training
    trained = tiny(neck=dict(type='LinearNeck', in_channels=64, out_channels=64))
    assert not trained.with_frozen_neck
    assert all(p.requires_grad for p in trained.train().neck.parameters())
    assert trained.neck.training
    loss = trained.loss(torch.rand(2, 3, 32, 32), batch()['data_samples'])['loss']
    loss.backward()
    assert trained.neck.fc.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('head', ['MultiHeadClsHead', 'ConvMultiHeadClsHead', 'ConvClsHead'])
def test_features_do_what_images_do(head):
    model = tiny(head=head).eval()
    data = model.data_preprocessor(batch())
    feats = Features(model.extract_feat(data['inputs']))
    given = model.data_preprocessor(dict(inputs=feats, data_samples=data['data_samples']))
    assert isinstance(given['inputs'], Features)
    assert torch.equal(model(**given), model(**data))
    assert torch.equal(model(**given, mode='loss')['loss'], model(**data, mode='loss')['loss'])
    for a, b in zip(model(**given, mode='predict'), model(**data, mode='predict')):
        assert torch.equal(a.pred_score, b.pred_score)
    with pytest.raises(ValueError, match='got features of the neck'):
        model.extract_feat(feats, stage='backbone')


@pytest.mark.parametrize(
    'cfg',
    [
        None,
        dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0]),
        dict(type='ClsDataPreprocessor'),
        dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=True),
    ],
)
def test_the_preprocessor_is_ours_also_where_mmpretrains_is_named(cfg):
    assert type(tiny(data_preprocessor=cfg).data_preprocessor) is FeatureDataPreprocessor


def test_a_preprocessor_of_another_kind_is_kept():
    other = nn.Identity()
    assert tiny(data_preprocessor=other).data_preprocessor is other


def test_missing_stages_are_told_when_the_model_is_built():
    with pytest.raises(ValueError, match=r'\(2\), but the backbone gives 1. Set its `out_indices`'):
        MODELS.build(
            dict(
                type='FrozenBackboneClassifier',
                backbone=dict(type='ResNet', depth=18),
                head=dict(
                    type='MultiHeadClsHead',
                    num_classes=2,
                    in_channels=(256, 512),
                    connection='stages',
                    head_stages=[0, 1],
                ),
            )
        )


def test_heads_work_in_mmpretrains_own_classifier():
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18),
            head=dict(type='ConvMultiHeadClsHead', num_classes=3, in_channels=512),
        )
    )
    loss = model.loss(torch.rand(2, 3, 32, 32), batch()['data_samples'])['loss']
    loss.backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_maps_given_as_features_pass_a_neck_that_pools_globally():
    model = tiny(neck=dict(type='GlobalAveragePooling'))
    maps, vectors = torch.rand(2, 3, 4, 4), torch.rand(2, 5)
    pooled, same, empty = model.extract_feat(Features([maps, vectors, torch.empty(2, 0)]))
    torch.testing.assert_close(pooled, maps.mean((2, 3)))
    assert same is vectors
    assert empty.shape == (2, 0)


def test_data_samples_beside_features_are_copied_only_to_another_device():
    model, samples = tiny(), batch()['data_samples']
    features = Features([torch.rand(2, 64)])
    given = model.data_preprocessor(dict(inputs=features, data_samples=samples))
    assert all(one is other for one, other in zip(given['data_samples'], samples))
    assert model.data_preprocessor(dict(inputs=features))['data_samples'] is None
    moved = model.to('meta').data_preprocessor(dict(inputs=features, data_samples=samples))
    assert moved['inputs'][0].is_meta
    assert moved['data_samples'][0].gt_score.is_meta
    assert not samples[0].gt_score.is_meta
