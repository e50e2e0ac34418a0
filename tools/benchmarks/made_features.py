"""Noise and a backbone of one layer, so that features of any shape are stored fast."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.datasets import BaseDataset
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from torch import Tensor, nn

from mhc_plugin.apis import load_config
from mhc_plugin.datasets.label_table import LabelTable
from mhc_plugin.datasets.sample_table import SampleTable
from mhc_plugin.datasets.subset import SubsetMixin
from mhc_plugin.datasets.targets import MultiLabelTargets

# Files may have no more names.
IMAGES_OF_A_FILE = 50_000


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


def link_images(folder: Path, length: int) -> None:
    """Make so many files, few of which have bytes of their own."""
    folder.mkdir(parents=True)
    for i in range(length):
        path = f'{folder}/{i:08d}.jpg'
        if i % IMAGES_OF_A_FILE == 0:
            first = path
            Path(path).write_bytes(np.random.RandomState(i).bytes(1000))
        else:
            os.link(first, path)


@DATASETS.register_module()
class LinkedImages(SubsetMixin, BaseDataset):
    """Files of :func:`link_images`; so many labels of an image are known, as in OpenImages."""

    def __init__(
        self, folder: str, length: int, num_classes: int, num_known: int, **kwargs
    ) -> None:
        self.folder, self.length, self.num_known = folder, length, num_known
        self.split = 'made'
        self.init_subset(0, None, None, 0)
        super().__init__(
            ann_file='',
            classes=[str(c) for c in range(num_classes)],
            serialize_data=False,
            **kwargs,
        )

    def read_samples(self) -> SampleTable:
        """One known class in each of ``num_known`` equal parts of the classes."""
        rng, num_classes = np.random.RandomState(0), len(self.CLASSES)
        width, shape = num_classes // self.num_known, (self.length, self.num_known)
        classes = rng.randint(0, width, shape, np.int16)
        classes += width * np.arange(self.num_known, dtype=np.int16)
        labels = LabelTable(
            self.num_known * np.arange(self.length + 1),
            classes.ravel(),
            (rng.randint(0, 10, shape, np.int8) < 3).view(np.int8).ravel(),
            num_classes,
            fill=-1,
        )
        names = np.empty((self.length, 8), np.uint8)
        for place in range(8):
            names[:, place] = np.arange(self.length) // 10 ** (7 - place) % 10 + ord('0')
        return SampleTable(
            folders=[self.folder],
            folder_of=np.zeros(self.length, np.uint8),
            names=names.view('S8')[:, 0],
            labels=labels,
            ending='.jpg',
        )


@TRANSFORMS.register_module()
class AsItIs:
    """The image that is there, or one pixel."""

    def __call__(self, results: dict) -> dict:
        results.setdefault('img', np.zeros((1, 1, 3), np.uint8))
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
    num_classes: int = 10,
) -> Config:
    """Config of a training on ``length`` features ``(channels, size, size)`` of noise."""
    cfg = load_config('efficientnet-lite0_multifc_combined0')
    dataset = dict(
        type='Noise',
        length=length,
        size=size,
        num_classes=num_classes,
        pipeline=[dict(type='AsItIs'), dict(type='PackInputs')],
    )
    cfg.model = dict(
        type='FrozenBackboneClassifier',
        data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
        backbone=dict(type='OneLayer', channels=channels),
        head=dict(type=head, num_classes=num_classes, in_channels=channels),
    )
    cfg.train_dataloader.merge(
        dict(dataset=dict(_delete_=True, **dataset), num_workers=0, persistent_workers=False)
    )
    cfg.train_cfg = dict(
        type='FeatureCacheTrainLoop', max_epochs=epochs, cache=dict(cache_dir=cache_dir)
    )
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    # One at the end: those of every epoch would take as long as the epochs.
    cfg.default_hooks.checkpoint.interval = epochs
    cfg.work_dir = work_dir
    cfg.log_level = 'WARNING'
    return cfg
