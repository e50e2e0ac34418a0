"""Heads of ours and of others on the same stored features: scores, sight and costs.

What is trained are the heads alone, with one draw of the training augmentation. Peers that are no
part of the package live here. Every run leaves a record, and is not repeated where there is one.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmpretrain.models import MultiLabelClsHead
from mmpretrain.registry import DATASETS, METRICS, MODELS
from mmpretrain.structures import DataSample
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

import mhc_plugin.apis  # noqa: F401 (before `analysis`)
from mhc_plugin.analysis.road import road
from mhc_plugin.analysis.swap_test import SwappedSplices
from mhc_plugin.apis import load_config
from mhc_plugin.datasets import SplicedDataset
from mhc_plugin.functional.average_precision import average_precision
from mhc_plugin.functional.localisation import completeness
from mhc_plugin.functional.swap import logit_std, swap_effects
from mhc_plugin.functional.topk import label_scores, topk_counts
from mhc_plugin.models.layers import normalize_maps
from mhc_plugin.utils.seeding import seeded

from .timing import medians, print_table

BATCH = 128


# ---- peers that are no part of the package


class BcosLinearHead(MultiLabelClsHead):
    """The mean over positions of a linear B-cos unit (Boehle et al., CVPR 2022) with B = 2."""

    def __init__(self, num_classes: int, in_channels: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.weight = nn.Parameter(0.01 * torch.randn(num_classes, in_channels))
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def logits_and_maps(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x = feats[-1]
        projected = F.conv2d(x, F.normalize(self.weight)[..., None, None])
        cosine = projected / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
        maps = projected * cosine.abs() * self.scale[:, None, None]
        return maps.mean((2, 3)) + self.bias, maps

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.logits_and_maps(feats)[0]

    def class_maps(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.logits_and_maps(feats)[1].clamp(min=0)

    @property
    def class_bias(self) -> Tensor:
        return self.bias


class MLDecoderHead(MultiLabelClsHead):
    """timm's ML-Decoder (Ridnik et al., WACV 2023), its parts called one by one.

    ``nn.TransformerDecoder`` of newer versions of torch hands arguments to its layers that timm's
    do not take.
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs) -> None:
        from timm.layers.ml_decoder import MLDecoder

        super().__init__(**kwargs)
        self.decoder = MLDecoder(num_classes, initial_num_features=in_channels)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        d = self.decoder
        memory = d.embed_standart(feats[-1].flatten(2).transpose(1, 2)).relu().transpose(0, 1)
        out = d.query_embed.weight.unsqueeze(1).expand(-1, memory.shape[1], -1)
        for layer in d.decoder.layers:
            out = layer(out, memory)
        out = torch.einsum('qnd,qdf->nqf', out, d.duplicate_pooling).flatten(1)
        return out[:, : d.num_classes] + d.duplicate_pooling_bias


@dataclass(frozen=True)
class Peer:
    """A head and how it is trained.

    Attributes:
        head (dict | type): Config without ``num_classes`` and ``in_channels``, or class of one.
        optimizer (dict): Changes to SGD with a learning rate of 0.01 and momentum 0.9.
        weight_decay (float): Of the weights, not of biases and scales.
        epochs (int): Cosine annealing ends with them.
    """

    head: dict | type
    optimizer: dict = field(default_factory=dict)
    weight_decay: float = 0.0
    epochs: int = 30


DECODER = dict(type='AdamW', lr=3e-4, betas=(0.9, 0.999))
PEERS = {
    'linear = MultiFC, avg': Peer(dict(type='MultiHeadClsHead')),
    'linear, normalised by image': Peer(dict(type='MultiHeadClsHead', normalize='image')),
    'linear, by position': Peer(dict(type='MultiHeadClsHead', normalize='position')),
    'linear, by root': Peer(dict(type='MultiHeadClsHead', normalize='root'), weight_decay=0.03),
    'MultiFC, max': Peer(dict(type='MultiHeadClsHead', pool='max')),
    'MultiFC, lse': Peer(dict(type='MultiHeadClsHead', pool='lse')),
    'B-cos linear': Peer(BcosLinearHead, dict(lr=0.1)),
    'CSRA': Peer(dict(type='CSRAClsHead', num_heads=1, lam=0.1)),
    'attention': Peer(dict(type='AttentionMultiHeadClsHead', num_attentions=1), weight_decay=0.03),
    'two attentions': Peer(dict(type='AttentionMultiHeadClsHead'), weight_decay=0.03),
    'ConvFC-16': Peer(dict(type='ConvClsHead')),
    'ConvFC-160': Peer(dict(type='ConvClsHead', conv_channels=160)),
    'MultiConv': Peer(dict(type='ConvMultiHeadClsHead')),
    'MultiConv, by root': Peer(dict(type='ConvMultiHeadClsHead', normalize='root')),
    'ML-Decoder': Peer(MLDecoderHead, DECODER, 0.01, 10),
}


def build_head(peer: Peer, num_classes: int, in_channels: int, seed: int) -> nn.Module:
    with seeded(seed):
        options = dict(num_classes=num_classes, in_channels=in_channels)
        options['loss'] = dict(type='PerHeadBCELoss')
        if isinstance(peer.head, dict):
            head = MODELS.build(dict(peer.head, **options))
            head.init_weights()
            return head
        return peer.head(**options)


# ---- features


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


# ---- training and measures


def parameters_of(head: nn.Module, weight_decay: float) -> list[dict]:
    """Groups of parameters: matrices alone decay."""
    others = ('bias', 'sharpness', 'scale')
    matrices = [
        p
        for name, p in head.named_parameters()
        if p.requires_grad and p.dim() > 1 and not name.endswith(others)
    ]
    kept = {id(p) for p in matrices}
    rest = [p for p in head.parameters() if p.requires_grad and id(p) not in kept]
    return [dict(params=matrices, weight_decay=weight_decay), dict(params=rest, weight_decay=0.0)]


def train(head: nn.Module, peer: Peer, part: Part, seed: int) -> None:
    options = dict(type='SGD', lr=0.01, momentum=0.9)
    if 'type' in peer.optimizer:
        options = {}
    options |= peer.optimizer
    kind, lr = getattr(torch.optim, options.pop('type')), options['lr']
    optimizer = kind(parameters_of(head, peer.weight_decay), **options)
    # What a head makes of an image before its weights does not change while they are trained.
    inputs, normalize = part.maps, getattr(head, 'normalize', None)
    if getattr(head, 'reduction', None) is not None:
        inputs = torch.cat([head.reduction(x.float()) for x in inputs.split(256)])
    elif normalize is not None:
        inputs = torch.cat([normalize_maps(x.float(), normalize).half() for x in inputs.split(256)])
        head.normalize = None
    if inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    head.train()
    with seeded(seed, 1):
        for epoch in range(peer.epochs):
            for group in optimizer.param_groups:
                group['lr'] = lr * (1 + math.cos(math.pi * epoch / peer.epochs)) / 2
            for batch in torch.randperm(len(inputs)).split(BATCH):
                loss = head.loss_module(head((inputs[batch].float(),)), part.targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    if normalize is not None:
        head.normalize = normalize
    head.eval()


def logits_and_maps(head: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and signed maps of a head; where it has none of its own, feature times gradient."""
    if hasattr(head, 'logits_and_maps'):
        with torch.no_grad():
            return head.logits_and_maps((x,))
    x = x.detach().requires_grad_()
    logits = head((x,))
    places = x.shape[2] * x.shape[3]
    maps = [
        places * (x * torch.autograd.grad(logits[:, c].sum(), x, retain_graph=True)[0]).sum(1)
        for c in range(logits.shape[1])
    ]
    return logits.detach(), torch.stack(maps, 1).detach()


def logits_of(head: nn.Module, part: Part) -> Tensor:
    with torch.no_grad():
        return torch.cat([head((x.float(),)) for x in part.maps.split(BATCH)])


def measure(head: nn.Module, part: Part, size: int) -> dict[str, float]:
    """Scores and sight of a trained head, in percent."""
    metrics = {}
    if 'gt_cells' in part.samples[0]:
        metrics['GridPG'] = (
            'grid_pg',
            METRICS.build(dict(type='GridPointingGame', size=(size,) * 2)),
        )
    if 'gt_bboxes' in part.samples[0]:
        for name, kind in (('EnergyPG', 'EnergyPointingGame'), ('Pointing', 'PointingGame')):
            metric = METRICS.build(dict(type=kind, size=(size,) * 2))
            metrics[name] = (metric.name, metric)
    logits, means = [], []
    for start in range(0, len(part.maps), 64):
        own, maps = logits_and_maps(head, part.maps[start : start + 64].float())
        logits.append(own)
        means.append(maps.mean((2, 3)))
        samples = [
            DataSample(pred_score=score.sigmoid(), pred_cam=cam, **sample).to_dict()
            for score, cam, sample in zip(own, maps.clamp(min=0), part.samples[start:])
        ]
        for _, metric in metrics.values():
            metric.process(None, samples)
    logits, means = torch.cat(logits), torch.cat(means)
    if hasattr(head, 'class_bias'):
        bias = head.class_bias.detach()
    else:
        with torch.no_grad():
            bias = head((torch.zeros_like(part.maps[:1]).float(),))[0]
    target = part.targets
    result = dict(mAP=100 * average_precision(logits, target).nanmean().item())
    counts = topk_counts(logits, target, 4)[4]
    result['top-4'] = 100 * label_scores(counts, 'micro')['precision'].item()
    result['completeness'] = 100 * completeness(logits, means, bias)
    for name, (key, metric) in metrics.items():
        result[name] = metric.compute_metrics(metric.results)[key]
    return result


def swap_score(head: nn.Module, part: Part, swapped: Part, swaps: SwappedSplices) -> float:
    before, after = logits_of(head, part), logits_of(head, swapped)
    removed, added = torch.tensor(swaps.removed), torch.tensor(swaps.added)
    return 100 * swap_effects(before, after, removed, added, logit_std(before)).scores.mean().item()


# ---- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='whose data and backbone are used; its head is not')
    parser.add_argument('--peers', nargs='+', choices=PEERS, default=list(PEERS), metavar='PEER')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', default='work_dirs/peers', help='of features and records')
    parser.add_argument('--size', type=int, default=112, help='to which maps are resized')
    parser.add_argument('--road-images', type=int, default=0, help='for ROAD, of the first seed')
    parser.add_argument('--min-labels', type=int, help="change the data set's `min_labels`")


COLUMNS = ('mAP', 'top-4', 'GridPG', 'EnergyPG', 'Pointing', 'Swap', 'ROAD', 'completeness')


def main(args: argparse.Namespace) -> None:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        run(args)


def run(args: argparse.Namespace) -> None:
    cfg = load_config(args.config)
    parts_cfg = dict(train=cfg.train_dataloader.dataset, test=cfg.test_dataloader.dataset)
    if args.min_labels is not None:
        for part in parts_cfg.values():
            part.min_labels = args.min_labels
    folder = Path(args.work_dir) / Path(args.config).stem
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    model.eval()
    sets = {name: DATASETS.build(part) for name, part in parts_cfg.items()}
    classes = sets['test'].metainfo['classes']
    swaps = None
    if isinstance(sets['test'], SplicedDataset):
        swaps = sets['swapped'] = SwappedSplices(sets['test'])
    parts = {
        name: read_part(model, dataset, len(classes), folder / f'{name}.pt')
        for name, dataset in sets.items()
    }
    records: dict[str, list[dict]] = {}
    channels = parts['train'].maps.shape[1]
    for name in args.peers:
        for seed in args.seeds:
            path = folder / f'{name.replace(" ", "_")}-{seed}.json'
            if not path.is_file():
                peer = PEERS[name]
                head = build_head(peer, len(classes), channels, seed)
                train(head, peer, parts['train'], seed)
                record = measure(head, parts['test'], args.size)
                if swaps is not None:
                    record['Swap'] = swap_score(head, parts['test'], parts['swapped'], swaps)
                if args.road_images and seed == args.seeds[0]:
                    model.head = head
                    record['ROAD'] = road(
                        model, sets['test'], num_images=args.road_images, seed=0
                    ).score
                path.write_text(json.dumps(record, indent=1))
                print(name, seed, record, flush=True)
            records.setdefault(name, []).append(json.loads(path.read_text()))
    print_table(table(args, records, costs(args, parts['train'], len(classes))))


def costs(args: argparse.Namespace, part: Part, num_classes: int) -> dict[str, dict[str, float]]:
    """Parameters, FLOPs of one image and seconds of one step, by peer, steps taking turns."""
    x, target = part.maps[:BATCH].float(), part.targets[:BATCH]
    steps: dict[str, Callable[[], None]] = {}
    result = {}
    for name in args.peers:
        head = build_head(PEERS[name], num_classes, x.shape[1], 0).train()

        def step(head=head) -> None:
            head.zero_grad()
            head.loss_module(head((x,)), target).backward()

        steps[name] = step
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head((x[:2],))
        parameters = sum(p.numel() for p in head.parameters() if p.requires_grad)
        result[name] = dict(parameters=parameters, flops=counter.get_total_flops() / 2)
    for name, seconds in medians(steps, 5, 1).items():
        result[name]['seconds'] = seconds
    return result


def table(args: argparse.Namespace, records: dict, costs: dict) -> Table:
    """Means and standard deviations over seeds; the best of every column in bold."""
    title = (
        f'{Path(args.config).stem}, seeds {args.seeds}: mean and standard deviation in percent; '
        f'a step of {BATCH} maps, times that of the first row'
    )
    result = Table('head', title=title)
    for column in (*COLUMNS, 'parameters', 'MFLOPs', 'step'):
        result.add_column(column, justify='right')
    best = {}
    for column in COLUMNS[:-1]:
        means = [_mean(runs, column) for runs in records.values()]
        best[column] = max((m for m in means if m is not None), default=None)
    first = costs[next(iter(records))]['seconds']
    for name, runs in records.items():
        cells = []
        for column in COLUMNS:
            mean = _mean(runs, column)
            values = [run[column] for run in runs if column in run]
            text = '-' if mean is None else f'{mean:.1f}'
            if len(values) > 1 and column != 'completeness':
                text += f' ± {statistics.stdev(values):.1f}'
            cells.append(
                f'[bold]{text}[/]' if mean is not None and mean == best.get(column) else text
            )
        cost = costs[name]
        result.add_row(
            name,
            *cells,
            f'{cost["parameters"]:,}',
            f'{cost["flops"] / 1e6:.2f}',
            f'{cost["seconds"] / first:.1f}',
        )
    return result


def _mean(runs: list[dict], column: str) -> float | None:
    values = [run[column] for run in runs if column in run]
    return statistics.mean(values) if values else None
