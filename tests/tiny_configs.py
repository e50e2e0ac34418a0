"""A config small enough to be trained and tested in seconds."""

import pytest
import torch
from mmengine.config import Config

import mhc_plugin.apis

CLASSES = [str(digit) for digit in range(10)]


def _loader(split, length, batch_size=8, **kwargs):
    dataset = dict(
        type='SplicedDataset',
        source=dict(type='SklearnDigits', split=split),
        classes=CLASSES,
        tile_size=32,
        length=length,
        seed=0,
        pipeline=[dict(type='ComposeTiles'), dict(type='PackInputs', algorithm_keys=('gt_cells',))],
        **kwargs,
    )
    return dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
    )


@pytest.fixture
def tiny_cfg(tmp_path):
    """Splices of digits, 64 x 64 pixels, and a ResNet with maps (N, 64, 4, 4)."""
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='FrozenBackboneClassifier',
                backbone=dict(
                    type='ResNet', depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1)
                ),
                head=dict(type='MultiHeadClsHead', num_classes=10, in_channels=64),
            ),
            data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, to_rgb=True),
            train_dataloader=_loader('train', 16),
            val_dataloader=_loader('test', 12, test_mode=True),
            test_dataloader=_loader('test', 12, test_mode=True),
            val_evaluator=[dict(type='MultiLabelMeanAP')],
            test_evaluator=[dict(type='MultiLabelMeanAP')],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            val_cfg=dict(),
            test_cfg=dict(),
            work_dir=str(tmp_path / 'work'),
            randomness=dict(seed=0),
            log_level='ERROR',
        )
    )


@pytest.fixture
def tiny_model(tiny_cfg):
    """An untrained model whose classes differ."""
    model = mhc_plugin.apis.load_model(tiny_cfg, device='cpu')
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.fc.weight)
    return model


@pytest.fixture
def tiny_checkpoint(tiny_model, tmp_path):
    """The weights of ``tiny_model`` in a file, as a runner writes them."""
    path = tmp_path / 'tiny.pth'
    torch.save(
        dict(
            state_dict=tiny_model.state_dict(),
            meta=dict(dataset_meta=dict(classes=CLASSES)),
            message_hub={},
        ),
        path,
    )
    return path
