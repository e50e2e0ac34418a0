"""Fused heads against a ModuleList of separate ones, forward and backward."""

import argparse

import torch
from mmpretrain.registry import MODELS
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mhc_plugin  # noqa: F401

from .timing import medians

CHANNELS, SIZE = 1280, 7


class SeparateHeads(nn.Module):
    """The definition: one small module per class, in a Python loop."""

    def __init__(self, num_classes: int, conv_channels: int | None) -> None:
        super().__init__()
        self.heads = nn.ModuleList(self.one(conv_channels) for _ in range(num_classes))

    @staticmethod
    def one(conv_channels: int | None) -> nn.Sequential:
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if conv_channels is None:
            return nn.Sequential(*pool, nn.Linear(CHANNELS, 1))
        c = conv_channels
        return nn.Sequential(
            nn.Conv2d(CHANNELS, c, 1, bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(True),
            nn.Conv2d(c, c, 3, padding=1, bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(True),
            *pool,
            nn.Linear(c, 1),
        )

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([head(feats[-1]) for head in self.heads], 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--classes', type=int, nargs='+', default=[10, 20, 80])
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=20, help='timed rounds; medians are shown')
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
        'of its first 1 x 1',
    ):
        table.add_column(column, justify='left' if column == 'head' else 'right')
    for conv_channels, name in ((None, 'MultiHeadClsHead'), (16, 'ConvMultiHeadClsHead')):
        for num_classes in args.classes:
            table.add_row(*row(name, num_classes, conv_channels, args, device))
    Console(width=140).print(table)


def row(
    name: str,
    num_classes: int,
    conv_channels: int | None,
    args: argparse.Namespace,
    device: torch.device,
) -> list[str]:
    # The frozen backbone's features need no gradient.
    x = torch.randn(args.batch_size, CHANNELS, SIZE, SIZE, device=device)
    x_last = x.contiguous(memory_format=torch.channels_last)
    fused = MODELS.build(dict(type=name, num_classes=num_classes, in_channels=CHANNELS)).to(device)
    separate = SeparateHeads(num_classes, conv_channels).to(device)
    separate_last = SeparateHeads(num_classes, conv_channels).to(
        device, memory_format=torch.channels_last
    )
    calls = dict(
        fused=lambda: step(fused, (x,)),
        separate=lambda: step(separate, (x,)),
        separate_last=lambda: step(separate_last, (x_last,)),
    )
    if conv_channels is not None:
        first = fused.convs[0].blocks[0].conv
        calls['first'] = lambda: step(first, x)
    t = medians(calls, args.rounds)
    parameters = sum(p.numel() for p in fused.parameters())
    assert parameters == sum(p.numel() for p in separate.parameters())
    return [
        name,
        str(num_classes),
        f'{parameters:,}',
        f'{gflops(fused, (x,)):.3f}',
        f'{1e3 * t["fused"]:.2f}',
        f'{1e3 * t["separate"]:.2f}',
        f'{t["separate"] / t["fused"]:.1f}',
        f'{t["separate_last"] / t["fused"]:.1f}',
        f'{t["fused"] / t["first"]:.2f}' if 'first' in t else '',
    ]
