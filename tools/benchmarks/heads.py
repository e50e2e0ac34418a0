"""Fused heads against a ModuleList of separate ones, forward and backward."""

import argparse
from collections.abc import Callable

import torch
from mmpretrain.registry import MODELS
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mhc_plugin  # noqa: F401

from .timing import medians, print_table

CHANNELS, SIZE = 1280, 7
# Of the convolution that a head is compared with; what is larger is left out.
MOST_OUTPUTS = 4000


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


# Of every head: one of it by itself, and the outputs per class of a single convolution to compare.
HEADS = {
    'MultiHeadClsHead': (separate_fc, 1),
    'ConvMultiHeadClsHead': (separate_conv, 16),
    'AttentionMultiHeadClsHead': (separate_attention, 2),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--classes', type=int, nargs='+', default=[10, 20, 80, 1000])
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=20, help='timed rounds; medians are shown')
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS))
    parser.add_argument(
        '--most-separate', type=int, default=80, help='more separate heads are not measured'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')


def step(module: nn.Module, *inputs) -> None:
    module.zero_grad(set_to_none=True)
    out = module(*inputs)
    (out if out.dim() == 2 else out.mean((2, 3))).square().mean().backward()


def gflops(module: nn.Module, *inputs) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() / 1e9


def main(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    table = Table(
        title=f'Forward and backward, batch {args.batch_size}, {SIZE} x {SIZE} x '
        f'{CHANNELS}, {device.type}, {torch.get_num_threads()} threads, medians of '
        f'{args.rounds} rounds'
    )
    for column in (
        'head',
        'classes',
        'parameters',
        'GFLOPs forward',
        'fused ms',
        'separate ms',
        'times faster',
        '... in channels_last',
        'outputs of one 1 x 1',
        'times its time',
    ):
        table.add_column(column, justify='left' if column == 'head' else 'right')
    for name in args.heads:
        for num_classes in args.classes:
            if HEADS[name][1] * num_classes > MOST_OUTPUTS:
                continue
            table.add_row(*row(name, num_classes, args, device))
    print_table(table)


def row(name: str, num_classes: int, args: argparse.Namespace, device: torch.device) -> list[str]:
    # The frozen backbone's features need no gradient.
    x = torch.randn(args.batch_size, CHANNELS, SIZE, SIZE, device=device).relu()
    x_last = x.contiguous(memory_format=torch.channels_last)
    separate_head, outputs = HEADS[name]
    fused = MODELS.build(dict(type=name, num_classes=num_classes, in_channels=CHANNELS)).to(device)
    conv = nn.Conv2d(CHANNELS, outputs * num_classes, 1).to(device)
    calls = dict(fused=lambda: step(fused, (x,)), conv=lambda: step(conv, x))
    parameters = sum(p.numel() for p in fused.parameters())
    if num_classes <= args.most_separate:
        separate = SeparateHeads(num_classes, separate_head).to(device)
        assert parameters == sum(p.numel() for p in separate.parameters())
        separate_last = SeparateHeads(num_classes, separate_head).to(
            device, memory_format=torch.channels_last
        )
        calls['separate'] = lambda: step(separate, (x,))
        calls['separate_last'] = lambda: step(separate_last, (x_last,))
    t = medians(calls, args.rounds)
    return [
        name,
        str(num_classes),
        f'{parameters:,}',
        f'{gflops(fused, (x,)):.3f}',
        f'{1e3 * t["fused"]:.2f}',
        f'{1e3 * t["separate"]:.2f}' if 'separate' in t else '-',
        f'{t["separate"] / t["fused"]:.1f}' if 'separate' in t else '-',
        f'{t["separate_last"] / t["fused"]:.1f}' if 'separate' in t else '-',
        str(outputs * num_classes),
        f'{t["fused"] / t["conv"]:.2f}',
    ]
