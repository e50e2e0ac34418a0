"""Frozen means frozen, whatever the backbone."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mhc_plugin.models import FeatureDataPreprocessor, MultiHeadClsHead
from mhc_plugin.utils.batch import DataSamples, Features
from mhc_plugin.utils.known_pairs import KnownPairs

BACKBONES = {
    'seresnet50': (dict(type='SEResNet', depth=50), 2048),
    'vgg19': (dict(type='VGG', depth=19, out_indices=(4,)), 512),
    'vgg19-bn': (dict(type='VGG', depth=19, out_indices=(4,), norm_cfg=dict(type='BN')), 512),
    'swin-tiny': (dict(type='SwinTransformer', arch='tiny', pad_small_map=True), 768),
    'efficientnet-lite0': (dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'), 1280),
}


def classifier(backbone, channels, head='MultiHeadClsHead', head_cfg=None, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='FrozenBackboneClassifier',
            backbone=copy.deepcopy(backbone),
            head=dict(type=head, num_classes=3, in_channels=channels, **(head_cfg or {})),
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


def test_data_samples_beside_features_are_moved_with_them():
    model, samples = tiny(), batch()['data_samples']
    features = Features([torch.rand(2, 64)])
    assert model.data_preprocessor(dict(inputs=features))['data_samples'] is None
    moved = model.to('meta').data_preprocessor(dict(inputs=features, data_samples=samples))
    assert moved['inputs'][0].is_meta
    assert moved['data_samples'][0].gt_score.is_meta
    assert not samples[0].gt_score.is_meta


def test_data_samples_that_are_still_to_be_made_are_moved_when_they_are():
    model, samples = tiny(), batch()['data_samples']
    features, made = Features([torch.rand(2, 64)]), []
    targets = torch.stack([sample.gt_score for sample in samples]).to(torch.int8)
    lazy = DataSamples([1, 0], lambda row: made.append(row) or samples[row].clone(), targets)
    first = lazy[0]
    assert torch.equal(first.gt_score, samples[1].gt_score)
    assert model.data_preprocessor(dict(inputs=features, data_samples=lazy))['data_samples'] is lazy
    assert lazy[0] is first
    moved = model.to('meta').data_preprocessor(dict(inputs=features, data_samples=lazy))
    assert moved['data_samples'].targets.is_meta
    assert made == [1]
    assert all(sample.gt_score.is_meta for sample in moved['data_samples'])
    assert made == [1, 0]


HEADS_AND_LOSSES = {
    'ours': dict(type='MultiHeadClsHead'),
    'asymmetric': dict(type='MultiHeadClsHead', loss=dict(type='AsymmetricLoss')),
    'linear': dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss')),
    'linear and its own loss': dict(type='MultiLabelLinearClsHead'),
    'csra': dict(type='CSRAClsHead', num_heads=1, lam=0.1),
}


@pytest.mark.parametrize('cfg', HEADS_AND_LOSSES.values(), ids=HEADS_AND_LOSSES)
@pytest.mark.parametrize('with_scores', [True, False], ids=['scores', 'labels'])
@pytest.mark.parametrize('form', [torch.Tensor, KnownPairs])
def test_targets_give_the_loss_that_data_samples_give(cfg, with_scores, form):
    maps = torch.rand(4, 5, 2, 2)
    model = classifier(
        dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
        5,
        cfg['type'],
        neck=dict(type='GlobalAveragePooling') if 'Linear' in cfg['type'] else None,
        **{'head_cfg': {k: v for k, v in cfg.items() if k != 'type'}},
    )
    targets = torch.randint(0, 2, (4, 3), generator=torch.Generator().manual_seed(1))
    samples = [DataSample().set_gt_label(t.nonzero().flatten()) for t in targets]
    if with_scores:
        samples = [s.set_gt_score(t.float()) for s, t in zip(samples, targets)]
    made, compact = [], targets.to(torch.int8)
    if form is KnownPairs:
        compact = KnownPairs.from_dense(compact)
    lazy = DataSamples(range(4), lambda row: made.append(row) or samples[row], compact)
    assert model.takes_targets
    expected = model.loss(Features([maps]), samples)
    given = model.loss(Features([maps]), lazy)
    assert made == []
    assert given.keys() == expected.keys() == {'loss'}
    if form is KnownPairs:
        torch.testing.assert_close(given['loss'], expected['loss'], rtol=1e-6, atol=0)
    else:
        assert torch.equal(given['loss'], expected['loss'])


class WeightedHead(MultiHeadClsHead):
    def _get_loss(self, cls_score, data_samples, **kwargs):
        weights = torch.stack([sample.weight for sample in data_samples])
        return dict(loss=(cls_score.sum(1) * weights).sum())


def test_a_head_with_a_loss_of_its_own_gets_data_samples():
    model = tiny()
    model.head.__class__ = WeightedHead
    assert not model.takes_targets
    sample = DataSample()
    sample.weight = torch.tensor(2.0)
    features = Features([torch.rand(1, 64)])
    loss = model.loss(features, DataSamples([0], lambda row: sample, torch.zeros(1, 3)))['loss']
    torch.testing.assert_close(loss, 2 * model(features).sum())


def test_a_head_of_one_label_gets_data_samples():
    model = tiny(head='LinearClsHead', neck=dict(type='GlobalAveragePooling'))
    assert not model.takes_targets
    samples = DataSamples([0], lambda row: DataSample().set_gt_label(1), torch.zeros(1, 3))
    assert model.loss(Features([torch.rand(1, 64)]), samples)['loss'] > 0
