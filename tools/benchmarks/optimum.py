"""The optimum of linear heads: beside schedules of SGD, and on many rows and classes."""

import argparse
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from mmengine.config import DictAction
from rich.table import Table

from mhc_plugin.apis.caching import set_optimum
from mhc_plugin.functional.linear_optimum import fit_linear
from mhc_plugin.functional.solver import ROWS_AT_ONCE, LinearProblem

from . import scores
from .timing import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('configs', nargs='*', help='paths or names of configs')
    parser.add_argument('--learning-rates', type=float, nargs='+', default=[0.1, 0.01, 0.001])
    parser.add_argument('--epochs', type=int, nargs='+', default=[30, 300])
    parser.add_argument('--cache-dir', default='work_dirs/feature_cache')
    parser.add_argument('--backbone-weights', metavar='PATH|none')
    parser.add_argument('--metrics', nargs='+', default=['mAP', 'precision_top4_micro'])
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument(
        '--made',
        type=int,
        nargs=3,
        metavar=('ROWS', 'CHANNELS', 'CLASSES'),
        help='fit made features, read from a file, in the place of configs',
    )
    parser.add_argument('--made-dir', help='folder of made data; a temporary one by default')
    parser.add_argument('--weight-decay', type=float, default=0.01, help='of made data')
    parser.add_argument('--tolerance', type=float, default=1e-6, help='of made data')


class StoredRows:
    """Rows of a ``.npy`` file."""

    def __init__(self, path: Path) -> None:
        self.array = np.load(path, mmap_mode='r')

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return torch.from_numpy(np.array(self.array[rows]))


def make_data(folder: Path, rows: int, channels: int, classes: int) -> tuple[Path, Path]:
    """Features as a backbone's, correlated and not negative, and labels that follow them.

    Class c is there in 20 % / (1 + c / 10) of the rows, but in 0.1 % at least, and unknown in a
    tenth of them.
    """
    features, labels = folder / 'features.npy', folder / 'labels.npy'
    if labels.exists():
        return features, labels
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.logspace(0, -1.5, channels)[:, None]
    mixing = torch.randn(channels, channels, generator=generator) * spectrum / channels**0.5
    weight = 4 * torch.randn(channels, classes, generator=generator) / channels**0.5
    share = (0.2 / (1 + torch.arange(classes) / 10)).clamp(min=0.001)
    offset = torch.special.ndtri(1 - share)
    x = np.lib.format.open_memmap(features, 'w+', np.float32, (rows, channels))
    y = np.lib.format.open_memmap(folder / 'labels.part.npy', 'w+', np.int8, (rows, classes))
    mean = scale = None
    for start in range(0, rows, ROWS_AT_ONCE):
        size = min(ROWS_AT_ONCE, rows - start)
        part = (torch.randn(size, channels, generator=generator) @ mixing + 0.3).relu()
        logits = part @ weight
        if mean is None:
            mean, scale = logits.mean(0), logits.std(0)
        noise = 0.5 * torch.randn(logits.shape, generator=generator)
        target = (((logits - mean) / scale + noise) / 1.25**0.5 > offset).to(torch.int8)
        target[torch.rand(logits.shape, generator=generator) < 0.1] = -1
        x[start : start + size], y[start : start + size] = part.numpy(), target.numpy()
    (folder / 'labels.part.npy').rename(labels)
    return features, labels


def fit_made(
    rows: int, channels: int, classes: int, decay: float, tolerance: float, folder: Path
) -> None:
    # In a process of its own, for the memory of this one.
    with get_context('fork').Pool(1) as pool:
        features, labels = pool.apply(make_data, (folder, rows, channels, classes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()

    def progress(done: int) -> None:
        print(
            f'{done} of {classes} classes, {time.perf_counter() - wall:.0f} s, '
            f'{time.process_time() - cpu:.0f} s of CPU',
            flush=True,
        )

    found = fit_linear(
        LinearProblem(StoredRows(features)),
        torch.from_numpy(np.load(labels, mmap_mode='c')),
        decay,
        tolerance=tolerance,
        progress=progress,
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = Table(
        title=f'The optimum of {classes} classes on {rows} x {channels} made features, weight '
        f'decay {decay:g}, {torch.get_num_threads()} thread(s)'
    )
    table.add_column('')
    table.add_column('value', justify='right')
    for name, value in {
        'seconds': f'{wall:.1f}',
        'seconds of CPU': f'{cpu:.1f}',
        'peak memory, GiB': f'{peak / 2**20:.2f}',
        'of that before the fit, GiB': f'{before / 2**20:.2f}',
        'most Newton steps': str(found.newton_steps),
        'passes over the features per class': f'{found.products / classes:.1f}',
        'largest relative gradient': f'{found.relative_gradient.max():.1e}',
    }.items():
        table.add_row(name, value)
    print_table(table)


def compare(config: str, args: argparse.Namespace) -> None:
    """A table of schedules of SGD beside the optimum, on the same stored features."""
    table = Table(title=f'{config}: SGD with momentum 0.9, and the optimum; percent')
    for column in ('trained', *args.metrics, 'seconds'):
        table.add_column(column, justify='left' if column == 'trained' else 'right')

    def add(name: str, epochs: int, optimizer: dict, weight_decay: str | None) -> None:
        options = argparse.Namespace(**vars(args), views=1)
        options.epochs = epochs
        cfg = scores.prepare(config, options)
        cfg.optim_wrapper.optimizer.update(optimizer)
        if weight_decay is not None:
            set_optimum(cfg, weight_decay)
        found = scores.score(cfg, 0, options)
        cells = [f'{found[m]:.2f}' if m in found else '-' for m in args.metrics]
        table.add_row(name, *cells, f'{found["seconds"]:.1f}')

    for epochs in args.epochs:
        for rate in args.learning_rates:
            add(f'SGD {rate:g}, {epochs} epochs', epochs, dict(lr=rate), None)
    for choice in ('cv', 'cv-per-class'):
        add(f'optimum, {choice}', 1, {}, choice)
    print_table(table)


def main(args: argparse.Namespace) -> None:
    if args.made:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(args.made_dir or temporary)
            folder.mkdir(parents=True, exist_ok=True)
            fit_made(*args.made, args.weight_decay, args.tolerance, folder)
    for config in args.configs:
        compare(config, args)
