"""Heads of ours beside separate ones and those of others, forward and backward."""

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmpretrain.models import GlobalAveragePooling
from mmpretrain.registry import MODELS
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mhc_plugin  # noqa: F401

from .peers import PEERS
from .timing import medians, print_table

CHANNELS, SIZE = 1280, 7
# Seconds that one step may take; what takes longer is told from the size before.
MOST_SECONDS = 15.0
# Seconds for the rounds of a head, of which there are three at least.
ENOUGH_SECONDS = 30.0
MIB = 2**20


class SeparateHeads(nn.Module):
    """The definition: one small module per class, in a Python loop."""

    def __init__(self, num_classes: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(make() for _ in range(num_classes))

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([head(feats) for head in self.heads], 1)


class LastFeature(nn.Module):
    """The last feature of a tuple."""

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return feats[-1]


def separate_fc() -> nn.Module:
    return nn.Sequential(
        LastFeature(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 1)
    )


def separate_conv() -> nn.Module:
    c = 16
    return nn.Sequential(
        LastFeature(),
        nn.Conv2d(CHANNELS, c, 1, bias=False),
        nn.BatchNorm2d(c),
        nn.ReLU(True),
        nn.Conv2d(c, c, 3, padding=1, bias=False),
        nn.BatchNorm2d(c),
        nn.ReLU(True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(c, 1),
    )


def separate_attention() -> nn.Module:
    head = dict(type='AttentionMultiHeadClsHead', num_classes=1, in_channels=CHANNELS)
    return MODELS.build(head).split_heads()[0]


def build_ours(name: str, num_classes: int, **options) -> nn.Module:
    head = dict(type=name, num_classes=num_classes, in_channels=CHANNELS)
    return MODELS.build(dict(head, **options))


def build_groups(num_classes: int, size: int = 16) -> nn.Module:
    """A head for every 16 classes, whose convolutions they share: for thousands of classes."""
    groups = [list(range(i, min(i + size, num_classes))) for i in range(0, num_classes, size)]
    return build_ours('ConvMultiHeadClsHead', num_classes, head_groups=groups)


def build_linear(num_classes: int) -> nn.Module:
    return nn.Sequential(GlobalAveragePooling(), build_ours('MultiLabelLinearClsHead', num_classes))


def build_peer(name: str, num_classes: int) -> nn.Module:
    head, options = PEERS[name].head, dict(num_classes=num_classes, in_channels=CHANNELS)
    options['loss'] = dict(type='PerHeadBCELoss')
    return MODELS.build(dict(head, **options)) if isinstance(head, dict) else head(**options)


HEADS: dict[str, Callable[[int], nn.Module]] = {
    'MultiFC': lambda n: build_ours('MultiHeadClsHead', n),
    'MultiConv': lambda n: build_ours('ConvMultiHeadClsHead', n),
    'MultiConv, groups of 16': build_groups,
    'attention': lambda n: build_ours('AttentionMultiHeadClsHead', n),
    'attention, one a class': lambda n: build_ours(
        'AttentionMultiHeadClsHead', n, num_attentions=1
    ),
    "MMPretrain's linear": build_linear,
    "MMPretrain's CSRA": lambda n: build_peer('CSRA', n),
    "timm's ML-Decoder": lambda n: build_peer('ML-Decoder', n),
}
# One of it by itself, and the outputs per class of a single convolution to compare.
SEPARATE = {
    'MultiFC': (separate_fc, 1),
    'MultiConv': (separate_conv, 16),
    'attention': (separate_attention, 2),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--classes', type=int, nargs='+', default=[10, 20, 80, 1000, 9605])
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=20, help='timed rounds; medians are shown')
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS), metavar='HEAD')
    parser.add_argument(
        '--most-separate', type=int, default=80, help='more separate heads are not measured'
    )
    parser.add_argument(
        '--most-beside', type=int, default=1000, help='more classes are not, beside one convolution'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')


def main(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    # The frozen backbone's features need no gradient.
    x = torch.randn(args.batch_size, CHANNELS, SIZE, SIZE, device=device).relu()
    where = (
        f'batch {args.batch_size}, {SIZE} x {SIZE} x {CHANNELS}, {device.type}, '
        f'{torch.get_num_threads()} threads, medians of {args.rounds} rounds at most'
    )
    show(
        f'Forward and backward, {where}; (in brackets: from the size before)',
        [
            'head',
            'classes',
            'parameters',
            'build s',
            'GFLOPs forward',
            'ms',
            'MiB at the highest, with parameters',
        ],
        sizes(args, x),
    )
    show(
        f'Fused heads beside separate ones, {where}',
        [
            'head',
            'classes',
            'fused ms',
            'separate ms',
            'times faster',
            '... in channels_last',
            'outputs of one 1 x 1',
            'times its time',
        ],
        [
            beside_separate(name, num_classes, args, x)
            for name in args.heads
            if name in SEPARATE
            for num_classes in args.classes
            if num_classes <= args.most_beside
        ],
    )


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify='left' if column == 'head' else 'right')
    for row in rows:
        table.add_row(*row)
    print_table(table)


def step(module: nn.Module, *inputs) -> None:
    module.zero_grad(set_to_none=True)
    out = module(*inputs)
    (out if out.dim() == 2 else out.mean((2, 3))).square().mean().backward()


def gflops(module: nn.Module, *inputs) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() / 1e9


# ---- at several numbers of classes


def sizes(args: argparse.Namespace, x: Tensor) -> list[list[str]]:
    """Rows of all heads at all sizes; those of a size take turns."""
    rows, before = {}, {}
    for num_classes in args.classes:
        calls = {}
        for name in args.heads:
            last, seconds, mib = before.get(name, (num_classes, 0.0, 0.0))
            seconds, mib = (value * num_classes / last for value in (seconds, mib))
            # Others need not grow with their classes as ours do.
            if name in SEPARATE and name in before and seconds > MOST_SECONDS:
                rows[name, num_classes] = ['', '', '', f'({1e3 * seconds:,.0f})', f'({mib:,.0f})']
                continue
            start = time.perf_counter()
            head = HEADS[name](num_classes).to(x.device)
            built = time.perf_counter() - start
            calls[name] = lambda head=head: step(head, (x,))
            start = time.perf_counter()
            calls[name]()
            before[name] = num_classes, time.perf_counter() - start, peak_mib(head, x)
            head.zero_grad(set_to_none=True)
            rows[name, num_classes] = [
                f'{sum(p.numel() for p in head.parameters()):,}',
                f'{built:.2f}',
                f'{gflops(head, (x,)):.3f}',
            ]
        # Slow ones take no part in all rounds.
        slow = {n for n in calls if before[n][1] * args.rounds > ENOUGH_SECONDS}
        times = medians({n: c for n, c in calls.items() if n not in slow}, args.rounds)
        times |= medians({n: calls[n] for n in slow}, min(3, args.rounds), warmup=0)
        for name, seconds in times.items():
            mib = before[name][2]
            before[name] = num_classes, seconds, mib
            rows[name, num_classes] += [f'{1e3 * seconds:.2f}', f'{mib:,.0f}']
    return [[name, str(n), *rows[name, n]] for name in args.heads for n in args.classes]


def peak_mib(head: nn.Module, x: Tensor) -> float:
    """Parameters and what a step holds at its highest, gradients among it, without features."""
    head.zero_grad(set_to_none=True)
    parameters = sum(p.numel() * p.element_size() for p in head.parameters()) / MIB
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step(head, (x,))
        return parameters + (torch.cuda.max_memory_allocated() - held) / MIB
    gc.collect()
    # Pages that were freed and kept would be used again, and not be seen.
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    held = _resident_mib('VmRSS')
    step(head, (x,))
    return parameters + max(_resident_mib('VmHWM') - held, 0.0)


def _resident_mib(name: str) -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


# ---- beside separate heads


def beside_separate(name: str, num_classes: int, args: argparse.Namespace, x: Tensor) -> list[str]:
    separate_head, outputs = SEPARATE[name]
    fused = HEADS[name](num_classes).to(x.device)
    conv = nn.Conv2d(CHANNELS, outputs * num_classes, 1).to(x.device)
    calls = dict(fused=lambda: step(fused, (x,)), conv=lambda: step(conv, x))
    rounds = args.rounds
    if num_classes <= args.most_separate:
        separate = SeparateHeads(num_classes, separate_head).to(x.device)
        assert sum(p.numel() for p in fused.parameters()) == sum(
            p.numel() for p in separate.parameters()
        )
        last = SeparateHeads(num_classes, separate_head).to(
            x.device, memory_format=torch.channels_last
        )
        x_last = x.contiguous(memory_format=torch.channels_last)
        calls['separate'] = lambda: step(separate, (x,))
        calls['separate_last'] = lambda: step(last, (x_last,))
    else:
        rounds = min(5, rounds)
    t = medians(calls, rounds)
    beside = ['', '', '']
    if 'separate' in t:
        beside = [
            f'{1e3 * t["separate"]:.2f}',
            f'{t["separate"] / t["fused"]:.1f}',
            f'{t["separate_last"] / t["fused"]:.1f}',
        ]
    return [
        name,
        str(num_classes),
        f'{1e3 * t["fused"]:.2f}',
        *beside,
        str(outputs * num_classes),
        f'{t["fused"] / t["conv"]:.2f}',
    ]
