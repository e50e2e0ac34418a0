"""What is stored is what the model computes, bit by bit, or it is refused."""

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.models import GlobalAveragePooling
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from tiny_cache_run import make_cfg
from torch import nn

from mhc_plugin.features.extractor import FeatureExtractor
from mhc_plugin.features.loader import cached_loader
from mhc_plugin.features.options import CacheOptions
from mhc_plugin.models import (
    ConvMultiHeadClsHead,
    FeatureDataPreprocessor,
    FrozenBackboneClassifier,
    MultiHeadClsHead,
)
from mhc_plugin.models.layers import GlobalPool
from mhc_plugin.utils.batch import Features


@MODELS.register_module(force=True)
class TokenBackbone(BaseBackbone):
    """Gives one stage of tokens (N, L, C)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 4, 4)

    def forward(self, x):
        return (self.conv(x).flatten(2).transpose(1, 2),)


@MODELS.register_module(force=True)
class NormalizedPooling(GlobalAveragePooling):
    """Pools, and sets the length to 1."""

    def forward(self, inputs):
        return tuple(nn.functional.normalize(x) for x in super().forward(inputs))


@MODELS.register_module(force=True)
class ShiftingNeck(nn.Module):
    """A neck without parameters that keeps maps."""

    def __init__(self):
        super().__init__()
        self._shift = torch.linspace(-1, 1, 12).view(-1, 1, 1)

    def forward(self, feats):
        return tuple(feat * 2 + self._shift for feat in feats)


@MODELS.register_module(force=True)
class SquaringHead(MultiHeadClsHead):
    """Does something to maps before it pools them, and does not say so."""

    def pre_logits(self, feats):
        return [x * x for x in super().pre_logits(feats)]


@MODELS.register_module(force=True)
class PeakHead(MultiHeadClsHead):
    """Scores in another way than its parent, which pools."""

    def score(self, feats, with_maps=False):
        return super().score([x.flatten(2).max(2).values for x in feats], with_maps)


@MODELS.register_module(force=True)
class LastStageHead(MultiHeadClsHead):
    """Reads another stage than its parent."""

    def forward(self, feats):
        return super().forward((feats[0],))


@MODELS.register_module(force=True)
class OwnPoolHead(MultiHeadClsHead):
    """Pools by a module of its own, which is not the same twice."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)

        class Halved(GlobalPool):
            def forward(self, x):
                return super().forward(x) / 2

        self.global_pool = Halved()


@MODELS.register_module(force=True)
class MapLossHead(MultiHeadClsHead):
    """Has a loss that looks at maps."""

    def loss(self, feats, data_samples, **kwargs):
        return dict(super().loss(feats, data_samples), size=feats[-1].flatten(1).norm())


TOKENS = dict(type='TokenBackbone')
TWO_STAGES = dict(type='TinyBackbone', out_indices=(0, 1))
LINEAR = dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss'))
GAP = dict(type='GlobalAveragePooling')
# Model, and the shape that is stored of each stage.
MODELS_AND_SHAPES = dict(
    multifc=(dict(), [(12,)]),
    max=(dict(head=dict(pool='max')), [(12,)]),
    lse=(dict(head=dict(pool='lse', lse_r=3.0)), [(12,)]),
    normalized=(dict(head=dict(normalize='root')), [(12,)]),
    normalized_maximum=(dict(head=dict(normalize='image', pool='max')), [(12,)]),
    attention=(dict(head=dict(type='AttentionMultiHeadClsHead')), [(12, 2, 2)]),
    maps=(dict(head=dict(), store='maps'), [(12, 2, 2)]),
    maps_of_one_stage=(
        dict(backbone=TWO_STAGES, head=dict(type='ConvMultiHeadClsHead', conv_channels=4)),
        [(0,), (12, 2, 2)],
    ),
    multiconv=(dict(head=dict(type='ConvMultiHeadClsHead', conv_channels=4)), [(12, 2, 2)]),
    baseline=(dict(head=LINEAR, neck=GAP), [(12,)]),
    baseline_maps=(dict(head=LINEAR, neck=GAP, store='maps'), [(12, 2, 2)]),
    stages=(
        dict(
            backbone=TWO_STAGES,
            head=dict(in_channels=(8, 12), connection='stages', head_stages=[0, 1, (0, 1), 1]),
        ),
        [(8,), (12,)],
    ),
    first_stage=(
        dict(
            backbone=TWO_STAGES,
            head=dict(in_channels=(8, 12), connection='stages', head_stages=[0, 0, 0, 0]),
        ),
        [(8,), (0,)],
    ),
    last_stage=(dict(backbone=TWO_STAGES), [(0,), (12,)]),
    neck_subclass=(dict(head=LINEAR, neck=dict(type='NormalizedPooling')), [(12,)]),
    neck_subclass_maps=(
        dict(head=LINEAR, neck=dict(type='NormalizedPooling'), store='maps'),
        [(12,)],
    ),
    neck_of_maps=(dict(neck=dict(type='ShiftingNeck')), [(12,)]),
    neck_of_maps_kept=(dict(neck=dict(type='ShiftingNeck'), store='maps'), [(12, 2, 2)]),
    tokens=(dict(backbone=TOKENS, head=dict(LINEAR, in_channels=1), neck=GAP), [(16, 12)]),
    head_before_pool=(dict(head=dict(type='SquaringHead')), [(12, 2, 2)]),
    head_before_score=(dict(head=dict(type='PeakHead')), [(12, 2, 2)]),
    head_of_other_stage=(
        dict(backbone=TWO_STAGES, head=dict(type='LastStageHead', in_channels=8)),
        [(8, 4, 4), (12, 2, 2)],
    ),
    head_of_own_pool=(dict(head=dict(type='OwnPoolHead')), [(12, 2, 2)]),
    head_of_map_loss=(dict(head=dict(type='MapLossHead')), [(12, 2, 2)]),
)


def runner_of(images, work_dir, backbone=None, store='auto', **kwargs):
    cfg = make_cfg(images, work_dir, store=store, **kwargs)
    if backbone is not None:
        cfg.model.backbone = backbone
    runner = Runner.from_cfg(cfg)
    torch.manual_seed(0)
    for parameter in runner.model.parameters():
        nn.init.normal_(parameter)
    return runner


def head_pool(head, feats):
    """What a head makes of its features before anything of its own acts on them."""
    if type(head) in (MultiHeadClsHead, ConvMultiHeadClsHead) and head.reduction:
        return tuple(head.reduction(x) if x.dim() == 4 else x for x in feats)
    return feats


@pytest.mark.parametrize('name', MODELS_AND_SHAPES)
def test_stored_features_are_those_of_the_model_bit_by_bit(images, tmp_path, name):
    kwargs, shapes = MODELS_AND_SHAPES[name]
    runner = runner_of(images, tmp_path / 'a', **kwargs)
    loop = runner.build_train_loop(runner.cfg.train_cfg)
    pixels = torch.stack([loop.dataloader.dataset[i]['inputs'] for i in range(12)])
    loop.use_features('train', training=True)
    batch = loop.dataloader.dataset.__getitems__(range(12))
    stored = batch['inputs']
    assert [tuple(feat.shape[1:]) for feat in stored] == shapes
    assert all(len(feat.unique(dim=0)) == 12 for feat in stored if feat.numel())

    model = runner.model.eval()
    inputs = model.data_preprocessor(dict(inputs=pixels))['inputs']
    with torch.no_grad():
        by_neck, by_backbone = model.extract_feat(inputs), model.extract_feat(inputs, 'backbone')
        expected = by_neck
        if kwargs.get('store') == 'maps' and type(model.neck if model.with_neck else None) in (
            GlobalAveragePooling,
        ):
            expected = by_backbone
        elif kwargs.get('store') != 'maps':
            expected = head_pool(model.head, by_neck)
        if name == 'tokens':
            expected = by_backbone
        for ours, theirs, shape in zip(stored, expected, shapes):
            assert shape == (0,) or torch.equal(ours, theirs)
        # And what the head makes of them; sums over maps differ with their format in memory.
        tolerance = dict(rtol=1e-5, atol=1e-5) if stored[-1].dim() > 2 else dict(rtol=0, atol=0)
        torch.testing.assert_close(model(stored), model(inputs), **tolerance)
        losses = [model(x, batch['data_samples'], mode='loss') for x in (stored, inputs)]
        torch.testing.assert_close(*losses, **tolerance)


# ---- what cannot be owned exactly


class FlippingClassifier(FrozenBackboneClassifier):
    def extract_feat(self, inputs, stage='neck'):
        return super().extract_feat(inputs.flip(3), stage)


class UnfrozenClassifier(FrozenBackboneClassifier):
    def train(self, mode=True):
        super().train(mode)
        self.backbone.stages[0][1].train(mode)
        return self


class BrighterPreprocessor(FeatureDataPreprocessor):
    def forward(self, data, training=False):
        data = super().forward(data, training)
        return dict(data, inputs=data['inputs'] * 2)


class ChattyPreprocessor(FeatureDataPreprocessor):
    """Changes nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes = 'of no effect'


def change_class(kind, part=''):
    def change(model):
        (model.get_submodule(part) if part else model).__class__ = kind

    return change


REFUSED = {
    'a subclass with features of its own': (
        change_class(FlippingClassifier),
        '`FlippingClassifier` has a `extract_feat` of its own, which the feature cache would not',
    ),
    'a model with features of its own': (
        lambda model: setattr(model, 'extract_feat', lambda inputs, stage='neck': inputs),
        '`FrozenBackboneClassifier` has a `extract_feat` of its own',
    ),
    'a subclass that trains': (
        change_class(UnfrozenClassifier),
        'in evaluation mode, but `UnfrozenClassifier` leaves some of its layers in training mode',
    ),
    'a preprocessor of its own': (
        change_class(BrighterPreprocessor, 'data_preprocessor'),
        '`BrighterPreprocessor` has a `forward` of its own, which the feature cache would not run',
    ),
    'another preprocessor': (
        lambda model: setattr(model, 'data_preprocessor', nn.Identity()),
        'needs the data preprocessor `FeatureDataPreprocessor`, but the model has a `Identity`',
    ),
}


@pytest.mark.parametrize(('change', 'sentence'), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_owned_exactly_is_refused(images, tmp_path, change, sentence):
    model = runner_of(images, tmp_path / 'a').model
    change(model)
    with pytest.raises(ValueError, match=sentence):
        FeatureExtractor.of(model, training=True)


def test_a_subclass_that_changes_nothing_of_the_features_is_taken(images, tmp_path):
    model = runner_of(images, tmp_path / 'a').model
    change_class(ChattyPreprocessor, 'data_preprocessor')(model)
    change_class(type('Named', (FrozenBackboneClassifier,), {}))(model)
    assert FeatureExtractor.of(model, training=True).backbone is model.backbone


def test_a_backbone_that_gives_one_tensor_is_refused(images, tmp_path, monkeypatch):
    runner = runner_of(images, tmp_path / 'a')
    monkeypatch.setattr(
        type(runner.model.backbone), 'forward', lambda self, x: self.stages[1](self.stages[0](x))
    )
    with pytest.raises(ValueError, match='a tuple of tensors, one per stage, but got Tensor'):
        FeatureExtractor.of(runner.model)(torch.zeros(9, 3, 16, 16))


def test_a_head_that_reads_more_than_there_is_is_refused(images, tmp_path):
    runner = runner_of(images, tmp_path / 'a')
    extractor = FeatureExtractor.of(runner.model)
    extractor.positions = (1,)
    with pytest.raises(
        ValueError, match=r'features at \(1,\), which the head reads, but it gives 1'
    ):
        extractor(torch.zeros(1, 3, 16, 16))


# ---- precision


def test_float32_is_computed_in_full_precision(images, tmp_path):
    runner = runner_of(images, tmp_path / 'a')
    loop = runner.build_train_loop(runner.cfg.train_cfg)
    seen = []
    runner.model.backbone.register_forward_hook(note_precision)
    NOTES.clear()
    torch.set_float32_matmul_precision('medium')
    try:
        before = precisions()
        loader = cached_loader(
            runner, loop.dataloader, CacheOptions(str(tmp_path / 'cache')), 'train', True
        )
        assert precisions() == before
        seen = NOTES
    finally:
        torch.set_float32_matmul_precision('highest')
    assert len(loader.dataset) == 12
    assert len(seen) >= 2
    assert all('ieee' in note or 'highest' in note for note in seen)
    assert not any('tf32' in note or 'bf16' in note or True in note for note in seen)


NOTES = []


def precisions():
    backends = torch.backends
    if not hasattr(backends.cuda.matmul, 'fp32_precision'):
        return (torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32)
    parts = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    return tuple(part.fp32_precision for part in parts)


def note_precision(module, args, output):
    NOTES.append(precisions())


# ---- the type of features


def test_features_are_no_sequence_and_act_as_one():
    stages = (torch.rand(2, 3), torch.rand(2, 0))
    feats = Features(stages)
    assert not isinstance(feats, (tuple, list))
    assert len(feats) == 2
    assert all(a is b for a, b in zip(feats, stages))
    assert feats[0] is stages[0]
    assert feats[-1] is stages[1]
    assert [x.dtype for x in feats.to(torch.float16)] == [torch.float16] * 2
    assert all(x.is_meta for x in feats.to('meta', non_blocking=True))
    assert repr(feats) == 'Features([(2, 3), (2, 0)])'


def test_pinning_keeps_the_type(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self, device=None: self + 1)
    batch = pin_memory(dict(inputs=Features([torch.zeros(2, 3)]), data_samples=[]))
    assert type(batch['inputs']) is Features
    assert torch.equal(batch['inputs'][0], torch.ones(2, 3))
