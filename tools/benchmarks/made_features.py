"""Noise and a backbone of one layer, so that features of any shape are stored fast."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.datasets import BaseDataset
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from torch import Tensor, nn

from mhc_plugin.apis import load_config
from mhc_plugin.datasets.targets import MultiLabelTargets


@DATASETS.register_module()
class Noise(MultiLabelTargets, BaseDataset):
    """Images of seeded noise, each with some of the classes."""

    def __init__(self, length: int, size: int, num_classes: int, **kwargs) -> None:
        self.length, self.size, self.num_classes = length, size, num_classes
        super().__init__(
            ann_file='',
            classes=[str(c) for c in range(num_classes)],
            serialize_data=False,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        rng = np.random.RandomState(0)
        images = rng.randint(0, 256, (self.length, self.size, self.size, 3), dtype=np.uint8)
        scores = (rng.rand(self.length, self.num_classes) < 0.3).astype(np.float32)
        return [
            dict(img=image, gt_label=score.nonzero()[0].tolist())
            for image, score in zip(images, scores)
        ]


@TRANSFORMS.register_module()
class AsItIs:
    """Nothing."""

    def __call__(self, results: dict) -> dict:
        return results


@MODELS.register_module()
class OneLayer(BaseBackbone):
    """A 1 x 1 convolution to the wanted number of channels, for every stage half as large."""

    def __init__(self, channels: int | Sequence[int]) -> None:
        super().__init__()
        widths = [channels] if isinstance(channels, int) else channels
        self.layers = nn.ModuleList(nn.Conv2d(3, width, 1) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        stages = []
        for layer in self.layers:
            stages.append(torch.relu(layer(x)))
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return tuple(stages)


def made_config(
    head: str,
    channels: int | Sequence[int],
    size: int,
    length: int,
    epochs: int,
    work_dir: str,
    cache_dir: str,
) -> Config:
    """Config of a training on ``length`` features ``(channels, size, size)`` of noise."""
    cfg = load_config('efficientnet-lite0_multifc_combined0')
    dataset = dict(
        type='Noise',
        length=length,
        size=size,
        num_classes=10,
        pipeline=[dict(type='AsItIs'), dict(type='PackInputs')],
    )
    cfg.model = dict(
        type='FrozenBackboneClassifier',
        data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
        backbone=dict(type='OneLayer', channels=channels),
        head=dict(type=head, num_classes=10, in_channels=channels),
    )
    cfg.train_dataloader.merge(
        dict(dataset=dict(_delete_=True, **dataset), num_workers=0, persistent_workers=False)
    )
    cfg.train_cfg = dict(
        type='FeatureCacheTrainLoop', max_epochs=epochs, cache=dict(cache_dir=cache_dir)
    )
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.work_dir = work_dir
    cfg.log_level = 'WARNING'
    return cfg
