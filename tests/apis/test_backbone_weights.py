import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from mhc_plugin.apis.backbone_weights import load_backbone, replace_pretrained


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


class TestReplacePretrained:
    @pytest.fixture
    def cfg(self):
        return Config(
            dict(
                model=dict(
                    type='ImageClassifier',
                    pretrained='https://example.org/a.pth',
                    backbone=dict(
                        type='TIMMBackbone',
                        pretrained=True,
                        init_cfg=dict(type='Pretrained', checkpoint='https://example.org/a.pth'),
                    ),
                )
            )
        )

    def test_nothing_is_left_to_download(self, cfg):
        replace_pretrained(cfg, 'none')
        assert cfg.model == dict(
            type='ImageClassifier', backbone=dict(type='TIMMBackbone', pretrained=False)
        )
        assert cfg.backbone_weights == 'none'

    def test_missing_file(self, cfg):
        with pytest.raises(FileNotFoundError, match=r'There is no file a\.pth .* or `none`'):
            replace_pretrained(cfg, 'a.pth')

    def test_model_without_backbone(self):
        with pytest.raises(ValueError, match='Expected a model with a backbone, but Odd has none'):
            replace_pretrained(Config(dict(model=dict(type='Odd'))), 'none')


class TestLoadBackbone:
    @pytest.fixture
    def source(self):
        return build()

    @pytest.mark.parametrize('form', ['model', 'backbone', 'wrapped', 'with_classifier'])
    def test_every_tensor_arrives_and_stays(self, source, form, tmp_path):
        backbone = source.backbone.state_dict()
        content = dict(
            model=dict(state_dict=source.state_dict(), meta={}),
            backbone=backbone,
            wrapped=dict(state_dict={f'module.{k}': v for k, v in source.state_dict().items()}),
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
