"""A model, images and a config that train in a second, for tests of the feature cache."""

import json
import uuid
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from PIL import Image
from torch import nn

NUM_CLASSES = 4
SIZE = 16


@MODELS.register_module(force=True)
class TinyBackbone(BaseBackbone):
    """Two stages; counts the images that pass."""

    num_images = 0

    def __init__(self, out_indices=(1,), init_cfg=None):
        super().__init__(init_cfg)
        self.out_indices = out_indices
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU()),
                nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU()),
            ]
        )

    def forward(self, x):
        TinyBackbone.num_images += len(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


def make_images(folder: Path, count: int = 12, seed: int = 0) -> Path:
    """Images whose quarters tell the labels, and their annotations in OpenMMLab's format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    data_list = []
    for i in range(count):
        pixels = rng.randint(0, 100, (SIZE + 4, SIZE, 3), dtype=np.uint8)
        labels = sorted(rng.choice(NUM_CLASSES, 2, replace=False).tolist())
        for label in labels:
            pixels[4 * label : 4 * label + 4, :, label % 3] += 150
        Image.fromarray(pixels).save(folder / f'{i}.png')
        data_list.append(dict(img_path=f'{i}.png', gt_label=labels))
    metainfo = dict(classes=[f'class {c}' for c in range(NUM_CLASSES)])
    (folder / 'ann.json').write_text(json.dumps(dict(metainfo=metainfo, data_list=data_list)))
    return folder


def pipeline(*random_transforms: dict) -> list[dict]:
    return [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(SIZE, SIZE)),
        *random_transforms,
        dict(type='PackInputs'),
    ]


FLIP = dict(type='RandomFlip', prob=0.5)
CROP = dict(type='RandomCrop', crop_size=SIZE, padding=4)


def loader(folder: Path, shuffle: bool, transforms: list[dict], **kwargs) -> dict:
    return dict(
        batch_size=4,
        num_workers=0,
        dataset=dict(
            type='MultiLabelDataset',
            data_root=str(folder),
            ann_file='ann.json',
            data_prefix='',
            serialize_data=False,
            pipeline=transforms,
        ),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        **kwargs,
    )


def make_cfg(
    images: Path,
    work_dir: Path,
    cached: bool = True,
    epochs: int = 3,
    transforms: list[dict] | None = None,
    val_images: Path | None = None,
    head: dict | None = None,
    neck: dict | None = None,
    **cache,
) -> Config:
    """Config of a training; with ``cached`` through the feature cache, in float32."""
    cache = dict(cache_dir=str(Path(work_dir).parent / 'cache'), storage='fp32') | cache
    head = dict(type='MultiHeadClsHead', in_channels=12, num_classes=NUM_CLASSES) | (head or {})
    return Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(work_dir),
            experiment_name=uuid.uuid4().hex,
            model=dict(
                type='FrozenBackboneClassifier',
                data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True),
                backbone=dict(type='TinyBackbone', out_indices=(1,)),
                neck=neck,
                head=head,
            ),
            train_dataloader=loader(images, True, transforms or pipeline()),
            val_dataloader=loader(val_images or images, False, pipeline()),
            val_evaluator=dict(type='MultiLabelMeanAP'),
            test_dataloader=loader(val_images or images, False, pipeline()),
            test_evaluator=dict(type='MultiLabelMeanAP'),
            train_cfg=(
                dict(type='FeatureCacheTrainLoop', cache=cache) if cached else dict(by_epoch=True)
            )
            | dict(max_epochs=epochs, val_interval=epochs),
            val_cfg=dict(type='FeatureCacheValLoop', cache=cache) if cached else dict(),
            test_cfg=dict(type='FeatureCacheTestLoop', cache=cache) if cached else dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            param_scheduler=dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
                reproducible=dict(type='ReproducibleEpochHook'),
            ),
            randomness=dict(seed=3),
            visualizer=dict(type='UniversalVisualizer', vis_backends=[]),
            log_level='WARNING',
        )
    )


def run(cfg: Config) -> Runner:
    """Train, with the same initial weights every time."""
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def head_weights(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in runner.model.head.state_dict().items()}
