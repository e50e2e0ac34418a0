"""Backbones and data of the configs can be described, so that runs share their features."""

import pytest
import torch
from mmpretrain.registry import DATASETS, MODELS

from mhc_plugin.apis import load_config
from mhc_plugin.features.description import describe, describe_dataset
from mhc_plugin.features.store import FileHashes

BACKBONES = {
    'seresnet50': dict(type='SEResNet', depth=50),
    'vgg19': dict(type='VGG', depth=19),
    'swin-tiny': dict(type='SwinTransformer', arch='tiny', pad_small_map=True),
    'efficientnet-lite0': dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'),
    'features only': dict(
        type='TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        out_indices=(4,),
    ),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_of_the_configs_are_described_and_a_forward_pass_changes_nothing(name):
    backbone = MODELS.build(BACKBONES[name])
    backbone.eval()
    before = describe(backbone, FileHashes())
    with torch.no_grad():
        backbone(torch.rand(1, 3, 64, 64))
    backbone.is_init = True
    assert describe(backbone, FileHashes()) == before


@pytest.mark.real_data
@pytest.mark.parametrize('data', ['combined0', 'combined1', 'voc', 'openimages'])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_data_of_the_configs_can_be_shared(data_root, monkeypatch, data, split):
    monkeypatch.setenv('MHC_DATA_ROOT', str(data_root))
    cfg = load_config(f'efficientnet-lite0_multifc_{data}')[f'{split}_dataloader'].dataset
    if data == 'openimages':
        cfg.image_folder = str(data_root / 'VOCdevkit' / 'VOC2012' / 'JPEGImages')
    dataset = DATASETS.build(cfg)
    description = describe_dataset(dataset, FileHashes())
    assert description['num_samples'] == len(dataset) > 100
    assert str(data_root) not in str(description)
