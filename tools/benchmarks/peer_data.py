"""Stored features of the data sets that peers are trained and tested on."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from mmpretrain.registry import DATASETS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mhc_plugin.analysis.swap_test import SwappedSplices
from mhc_plugin.apis import load_config
from mhc_plugin.datasets import SplicedDataset
from mhc_plugin.utils.seeding import seeded


@dataclass
class Part:
    """Stored features of a data set.

    Attributes:
        maps (Tensor): float16 ``(N, C, h, w)``.
        targets (Tensor): 1, 0 or -1, ``(N, num_classes)``.
        samples (list[dict]): Cells or boxes of every image.
    """

    maps: Tensor
    targets: Tensor
    samples: list[dict]


@torch.no_grad()
def read_part(model: nn.Module, dataset: Dataset, num_classes: int, path: Path) -> Part:
    """Features of a data set, from the file where they are kept or from its images."""
    if path.is_file():
        return Part(**torch.load(path, weights_only=False))
    maps, targets, samples = [], [], []
    for start in range(0, len(dataset), 32):
        images = []
        for index in range(start, min(start + 32, len(dataset))):
            with seeded(0, index, 0):
                packed = dataset[index]
            images.append(packed['inputs'])
            sample = packed['data_samples']
            target = sample.get('gt_score')
            if target is None:
                target = torch.zeros(num_classes).index_fill(0, sample.gt_label, 1)
            targets.append(target.float())
            samples.append({k: v for k, v in sample.to_dict().items() if k != 'gt_score'})
        inputs = model.data_preprocessor(dict(inputs=torch.stack(images)))['inputs']
        maps.append(model.extract_feat(inputs, stage='backbone')[-1].contiguous().half())
    part = dict(maps=torch.cat(maps), targets=torch.stack(targets), samples=samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(part, path)
    return Part(**part)


class Data:
    """Data sets, their stored features, and the frozen classifier that made them."""

    def __init__(self, args: argparse.Namespace) -> None:
        cfg = load_config(args.config)
        own = dict(train=dict(cfg.train_dataloader.dataset))
        if args.train_split is not None:
            own['train']['split'] = args.train_split
        for split in args.test_splits or ['test']:
            own[split] = dict(cfg.test_dataloader.dataset)
            if args.test_splits:
                own[split]['split'] = split
        if args.min_labels is not None:
            for dataset in own.values():
                dataset['min_labels'] = args.min_labels
        self.tests = list(own)[1:]
        preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
        self.model = MODELS.build(dict(cfg.model, data_preprocessor=preprocessor))
        self.model.init_weights()
        self.model.eval()
        self.sets: dict[str, Dataset] = {name: DATASETS.build(d) for name, d in own.items()}
        self.num_classes = len(self.sets['train'].metainfo['classes'])
        self.swaps = None
        if isinstance(self.sets[self.tests[0]], SplicedDataset):
            self.swaps = SwappedSplices(self.sets[self.tests[0]])
        text = repr((own, cfg.model.backbone, preprocessor))
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        self.folder = Path(args.work_dir) / f'{Path(args.config).stem}-{digest}'
        parts = dict(self.sets) if self.swaps is None else dict(self.sets, swapped=self.swaps)
        self.parts = {
            name: read_part(self.model, dataset, self.num_classes, self.folder / f'{name}.pt')
            for name, dataset in parts.items()
        }
