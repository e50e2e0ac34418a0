import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from mhc_plugin.models.backbone_weights import check_weights, load_backbone


def build():
    backbone = dict(
        type='ResNet',
        depth=18,
        base_channels=4,
        stem_channels=4,
        num_stages=1,
        strides=(1,),
        dilations=(1,),
        out_indices=(0,),
    )
    return MODELS.build(
        dict(
            type='mmpretrain.FrozenBackboneClassifier',
            backbone=backbone,
            head=dict(type='MultiLabelLinearClsHead', num_classes=2, in_channels=4),
        )
    )


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestLoadBackbone:
    @pytest.fixture
    def source(self):
        return build()

    @pytest.mark.parametrize(
        'form', ['model', 'backbone', 'wrapped', 'under_model', 'with_classifier']
    )
    def test_every_tensor_arrives_and_stays(self, source, form, tmp_path):
        backbone = source.backbone.state_dict()
        content = dict(
            model=dict(state_dict=source.state_dict(), meta={}),
            backbone=backbone,
            wrapped=dict(state_dict={f'module.{k}': v for k, v in source.state_dict().items()}),
            under_model=dict(model=backbone, epoch=3),
            with_classifier={**backbone, 'fc.weight': torch.ones(3)},
        )
        torch.save(content[form], tmp_path / 'a.pth')
        model = build()
        assert not equal(model.backbone.state_dict(), backbone)
        load_backbone(model, tmp_path / 'a.pth')
        model.init_weights()
        assert equal(model.backbone.state_dict(), backbone)

    def test_timms_own_names(self, tmp_path):
        timm_backbone = nn.Module()
        timm_backbone.timm_model = nn.Linear(2, 2)
        model = nn.Module()
        model.backbone = timm_backbone
        source = nn.Linear(2, 2)
        torch.save(source.state_dict(), tmp_path / 'a.pth')
        load_backbone(model, tmp_path / 'a.pth')
        assert equal(timm_backbone.timm_model.state_dict(), source.state_dict())

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (lambda s: s.pop('conv1.weight'), r'ResNet, but it lacks conv1\.weight\.'),
            (lambda s: s.pop('bn1.running_var'), r'lacks bn1\.running_var'),
            (lambda s: s.clear(), 'lacks .* and [0-9]+ more'),
            (
                lambda s: s.update({'bn1.bias': torch.ones(3)}),
                r'another shape of bn1\.bias \(3,\) instead of \(4,\)',
            ),
        ],
    )
    def test_weights_of_another_backbone(self, source, change, message, tmp_path):
        state = source.backbone.state_dict()
        change(state)
        torch.save(state, tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=message):
            load_backbone(build(), tmp_path / 'a.pth')


class TestCheckWeights:
    @pytest.fixture
    def state(self):
        return build().state_dict()

    @pytest.mark.parametrize('form', ['plain', 'wrapped', 'top'])
    def test_all_are_there(self, state, form):
        wrapped = {f'module.{name}': value for name, value in state.items()}
        contents = dict(plain=dict(state_dict=state), wrapped=dict(state_dict=wrapped), top=state)
        check_weights(build(), contents[form], 'a.pth')

    def test_missing_and_of_another_shape(self, state):
        del state['head.fc.bias']
        state['head.fc.weight'] = torch.ones(5, 4)
        with pytest.raises(
            ValueError,
            match=r'Expected a\.pth to hold the weights of this model, but it lacks '
            r'head\.fc\.weight \(2, 4\), head\.fc\.bias \(2,\)\. '
            r'Is it a checkpoint of another config\?',
        ):
            check_weights(build(), dict(state_dict=state), 'a.pth')

    def test_under_model(self, state):
        with pytest.raises(ValueError, match=r'and 29 more\. Its weights lie under `model`'):
            check_weights(build(), dict(model=state, epoch=3), 'a.pth')
