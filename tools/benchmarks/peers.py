"""Heads of ours and of others on the same stored features: scores, sight and costs.

What is trained are the heads alone, with one draw of the training augmentation. Every run leaves
what it measured in the work directory and is not repeated: a command that was stopped goes on.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mhc_plugin.apis  # noqa: F401 (before `analysis`)
from mhc_plugin.analysis.road import road
from mhc_plugin.analysis.swap_test import SwappedSplices
from mhc_plugin.cli.records import data_hash
from mhc_plugin.functional.average_precision import average_precision, resampled_mean_ap
from mhc_plugin.functional.linear_optimum import fit_linear
from mhc_plugin.functional.localisation import completeness
from mhc_plugin.functional.swap import logit_std, swap_effects
from mhc_plugin.functional.topk import label_scores, topk_counts
from mhc_plugin.models.layers import normalize_maps, signed_root
from mhc_plugin.utils.seeding import seeded

from .peer_data import Data, Part
from .peer_heads import PEERS, Peer
from .timing import medians, print_table

BATCH = 128
RESAMPLES = 1000
# The head that the others are compared with.
OURS = 'attention'


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


@torch.no_grad()
def start_from_optimum(head: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """Begin with the best linear term, and with attentions that look for the same."""
    found = fit_linear(signed_root(inputs.mean((2, 3))), targets.to(torch.int8), 0.003)
    weight = found.weight.float()[:, None]
    head.linears[0].weight.copy_(weight)
    head.attentions[0].weight.add_(0.3 * weight)
    head.bias.copy_(found.bias[:, None])


def train(head: nn.Module, peer: Peer, part: Part, seed: int) -> None:
    options = dict(type='SGD', lr=0.01, momentum=0.9)
    if 'type' in peer.optimizer:
        options = {}
    options |= peer.optimizer
    kind, lr = getattr(torch.optim, options.pop('type')), options['lr']
    optimizer = kind(parameters_of(head, peer.weight_decay), **options)
    # What a head makes of an image before its weights does not change while they are trained.
    normalize = getattr(head, 'normalize', None)
    if getattr(head, 'reduction', None) is not None:
        inputs = torch.cat([head.reduction(x.float()) for x in part.maps.split(256)])
    else:
        maps = [normalize_maps(x.float(), normalize) for x in part.maps.split(256)]
        inputs = torch.cat(maps).contiguous(memory_format=torch.channels_last)
    if peer.from_optimum:
        start_from_optimum(head, inputs, part.targets)
    head.normalize = None
    head.train()
    with seeded(seed, 1):
        for epoch in range(peer.epochs):
            for group in optimizer.param_groups:
                group['lr'] = lr * (1 + math.cos(math.pi * epoch / peer.epochs)) / 2
            for batch in torch.randperm(len(inputs)).split(BATCH):
                # Within the loop: autocast keeps what it has cast, and so the weights of one step.
                with torch.autocast('cpu', torch.bfloat16, enabled=peer.bfloat16):
                    logits = head((inputs[batch],))
                loss = head.loss_module(logits.float(), part.targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
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


def measure(
    head: nn.Module, part: Part, size: int, sight: bool = True
) -> tuple[dict[str, float], Tensor]:
    """Scores and sight of a trained head, in percent, and its logits."""
    if not sight:
        logits = logits_of(head, part)
        return scores_of(logits, part), logits
    games = {}
    if 'gt_cells' in part.samples[0]:
        games = {'GridPG': 'GridPointingGame'}
    elif 'gt_bboxes' in part.samples[0]:
        games = {'EnergyPG': 'EnergyPointingGame', 'Pointing': 'PointingGame'}
    metrics = {
        name: METRICS.build(dict(type=kind, size=(size,) * 2)) for name, kind in games.items()
    }
    logits, means = [], []
    for start in range(0, len(part.maps), 64):
        own, maps = logits_and_maps(head, part.maps[start : start + 64].float())
        logits.append(own)
        means.append(maps.mean((2, 3)))
        samples = [
            DataSample(pred_score=score.sigmoid(), pred_cam=cam, **sample).to_dict()
            for score, cam, sample in zip(own, maps.clamp(min=0), part.samples[start:])
        ]
        for metric in metrics.values():
            metric.process(None, samples)
    logits, means = torch.cat(logits), torch.cat(means)
    if hasattr(head, 'class_bias'):
        bias = head.class_bias.detach()
    else:
        with torch.no_grad():
            bias = head((torch.zeros_like(part.maps[:1]).float(),))[0]
    scores = scores_of(logits, part)
    scores['completeness'] = 100 * completeness(logits, means, bias)
    keys = dict(GridPG='grid_pg', EnergyPG='energy_pg', Pointing='pointing_game')
    for name, metric in metrics.items():
        scores[name] = metric.compute_metrics(metric.results)[keys[name]]
    return scores, logits


def scores_of(logits: Tensor, part: Part) -> dict[str, float]:
    scores = dict(mAP=100 * average_precision(logits, part.targets).nanmean().item())
    if 'gt_cells' in part.samples[0]:
        counts = topk_counts(logits, part.targets, 4)[4]
        scores['top-4'] = 100 * label_scores(counts, 'micro')['precision'].item()
    return scores


def swap_score(before: Tensor, after: Tensor, swaps: SwappedSplices) -> float:
    removed, added = torch.tensor(swaps.removed), torch.tensor(swaps.added)
    return 100 * swap_effects(before, after, removed, added, logit_std(before)).scores.mean().item()


# ---- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='whose data and backbone are used; its head is not')
    parser.add_argument('--peers', nargs='+', choices=PEERS, default=list(PEERS), metavar='PEER')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--stored', action='store_true', help='the table of what is stored; nothing is trained'
    )
    parser.add_argument('--work-dir', default='work_dirs/peers', help='of features and results')
    parser.add_argument('--size', type=int, default=112, help='to which maps are resized')
    parser.add_argument('--road-images', type=int, default=0, help='for ROAD, of the first seed')
    parser.add_argument(
        '--road-peers',
        nargs='+',
        choices=PEERS,
        default=list(PEERS),
        metavar='PEER',
        help='measure it of these alone: it takes longer than all else together',
    )
    parser.add_argument('--min-labels', type=int, help="change the data set's `min_labels`")
    parser.add_argument('--train-split', help="change the data set's `split`")
    parser.add_argument('--test-splits', nargs='+', help='test on these; ROAD is of the first')


def main(args: argparse.Namespace) -> dict:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return run(args)


def run(args: argparse.Namespace) -> dict:
    data = Data(args)
    runs: dict[str, list[dict]] = {}
    for name in args.peers:
        for seed in args.seeds:
            result = run_of(data, name, seed, args)
            if result is not None:
                runs.setdefault(name, []).append(result)
        if name in runs and args.road_images and name in args.road_peers:
            add_road(data, name, args.seeds[0], runs[name][0], args.road_images)
    cost = costs(list(runs), data.parts['train'], data.num_classes)
    for test in data.tests:
        print_table(table(args, data, test, runs, cost))
    return dict(seeds=args.seeds, data=data_hash(data.sets['train']))


def path_of(data: Data, name: str, seed: int) -> Path:
    return data.folder / f'{name.replace(", ", "-").replace(" ", "_")}-{seed}.pt'


def head_of(data: Data, name: str, seed: int) -> nn.Module:
    return PEERS[name].build(data.num_classes, data.parts['train'].maps.shape[1], seed)


def run_of(data: Data, name: str, seed: int, args: argparse.Namespace) -> dict | None:
    """Scores and logits on every test set, and weights: stored, or measured and stored."""
    path, key = path_of(data, name, seed), (PEERS[name].key, args.size)
    if path.is_file():
        result = torch.load(path, weights_only=False)
        if result['key'] == key:
            return result
    if args.stored:
        return None
    head = head_of(data, name, seed)
    train(head, PEERS[name], data.parts['train'], seed)
    result = dict(key=key, weights=head.state_dict(), scores={}, logits={})
    for test in data.tests:
        scores, logits = measure(head, data.parts[test], args.size, PEERS[name].sight)
        if data.swaps is not None:
            scores['Swap'] = swap_score(logits, logits_of(head, data.parts['swapped']), data.swaps)
        result['scores'][test], result['logits'][test] = scores, logits
    torch.save(result, path)
    print(name, seed, result['scores'], flush=True)
    return result


def add_road(data: Data, name: str, seed: int, result: dict, num_images: int) -> None:
    """Add ROAD on the first test set, where it is not stored yet."""
    test = data.tests[0]
    if result.get('road_images') != num_images:
        data.model.neck, data.model.head = None, head_of(data, name, seed).eval()
        data.model.head.load_state_dict(result['weights'])
        score = road(data.model, data.sets[test], num_images=num_images, seed=0).score
        result['scores'][test]['ROAD'], result['road_images'] = score, num_images
        torch.save(result, path_of(data, name, seed))
        print(name, seed, 'ROAD', score, flush=True)


def costs(peers: list[str], part: Part, num_classes: int) -> dict[str, dict[str, float]]:
    """Parameters, FLOPs of one image and seconds of one step, by peer, steps taking turns.

    All read maps; an epoch has as many steps for one as for the other.
    """
    x, target = part.maps[:BATCH].float(), part.targets[:BATCH]
    x = x.contiguous(memory_format=torch.channels_last)
    steps: dict[str, Callable[[], None]] = {}
    result = {}
    for name in peers:
        head = PEERS[name].build(num_classes, x.shape[1], 0).train()
        bfloat16 = PEERS[name].bfloat16

        def step(head=head, bfloat16=bfloat16) -> None:
            head.zero_grad()
            with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                logits = head((x,))
            head.loss_module(logits.float(), target).backward()

        steps[name] = step
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head((x[:2],))
        parameters = sum(p.numel() for p in head.parameters() if p.requires_grad)
        result[name] = dict(parameters=parameters, flops=counter.get_total_flops() / 2)
    for name, seconds in medians(steps, 15).items():
        result[name]['seconds'] = seconds
    return result


COLUMNS = ('mAP', 'top-4', 'GridPG', 'EnergyPG', 'Pointing', 'Swap', 'ROAD', 'completeness')


def table(args: argparse.Namespace, data: Data, test: str, runs: dict, costs: dict) -> Table:
    """Means and standard deviations over seeds; the best of every column in bold."""
    first = next(iter(runs))
    scores = {name: [run['scores'][test] for run in own] for name, own in runs.items()}
    columns = [c for c in COLUMNS if any(c in run for own in scores.values() for run in own)]
    title = (
        f'{Path(args.config).stem.rsplit("_", 1)[-1]}, {len(data.sets["train"]):,} of train, '
        f'{len(data.sets[test]):,} of {test}'
    )
    if 'ROAD' in columns:
        title += f'; ROAD on {args.road_images} images, of some heads, since it takes longest'
    result = Table('head', title=title)
    for column in ('seeds', *columns, f'mAP below {OURS}', 'parameters', 'MFLOPs', 'epoch'):
        result.add_column(column, justify='right')
    cells = {name: [] for name in runs}
    for column in columns:
        values = {
            name: [run[column] for run in own if column in run] for name, own in scores.items()
        }
        means = {name: round(statistics.mean(v), 1) for name, v in values.items() if v}
        for name, own in values.items():
            text = f'{means[name]:.1f}' if own else '-'
            if len(own) > 1 and column != 'completeness':
                text += f' ± {statistics.stdev(own):.1f}'
            best = own and column != 'completeness' and means[name] == max(means.values())
            cells[name].append(f'[bold]{text}[/]' if best else text)
    logits = {name: [run['logits'][test] for run in own] for name, own in runs.items()}
    behind = lags(logits, data.parts[test])
    for name in runs:
        cost = costs[name]
        result.add_row(
            name,
            str(len(runs[name])),
            *cells[name],
            behind.get(name, ''),
            f'{cost["parameters"]:,}',
            f'{cost["flops"] / 1e6:.2f}',
            f'{cost["seconds"] / costs[first]["seconds"]:.1f}',
        )
    return result


def lags(logits: dict[str, list[Tensor]], part: Part) -> dict[str, str]:
    """By how much the mAP of every head is below ours: a paired bootstrap over images.

    Mean over seeds, and its interval of 95 % over images drawn with replacement, the same for all.
    """
    if OURS not in logits:
        return {}
    n = len(part.targets)
    drawn = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(RESAMPLES, n).scatter_add_(1, drawn, torch.ones(RESAMPLES, n))
    # The images as they are come first.
    counts = torch.cat([torch.ones(1, n), counts])
    means = {
        name: 100 * torch.stack([resampled_mean_ap(x, part.targets, counts) for x in own]).mean(0)
        for name, own in logits.items()
    }
    result = {}
    for name, mean in means.items():
        if name != OURS:
            lag = means[OURS] - mean
            low, high = lag[1:].quantile(torch.tensor([0.025, 0.975], dtype=lag.dtype)).tolist()
            result[name] = f'{lag[0]:.1f} ({low:.1f} to {high:.1f})'
    return result
