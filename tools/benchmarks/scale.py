"""Growth with images and classes: the start of a cached run, its epochs, memory, checkpoints."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner

import mhc_plugin.features.loader as loader_module
from mhc_plugin.features.store import ChunkBuffer, FeatureStore, write_chunk

from .made_features import link_images, made_config
from .timing import medians, print_rows

SHARED = dict(channels=256, classes=10, known=10)
# Channels for numbers of classes: as many multiplications an image.
EQUAL_WORK = {10: 2560, 100: 256, 1000: 26}
OPEN_IMAGES = dict(channels=256, classes=601, known=8)
TRAINABLE = dict(channels=1280, classes=9605, known=8)
# On a GPU: features of half precision in its memory, 2.4 GiB of a million.
ON_GPU = dict(channels=1280, classes=601, known=601)
BATCH = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--images', type=int, nargs='+', default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        '--most-images',
        type=int,
        default=1_700_000,
        help="for the memory of OpenImages' labels, of 601 classes",
    )
    parser.add_argument(
        '--rounds', type=int, default=5, help='in turns, of which medians are shown'
    )
    parser.add_argument('--folder', help='where to make images; it is removed at the end')
    parser.add_argument('--plot', help='file for curves of growth, .svg')


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    link_images(folder / 'images', max(*args.images, args.most_images))
    rows = {
        length: dict(first=run_apart(folder, 'cache', length=length, **SHARED)['start'])
        for length in args.images
    }
    later = {length: dict(SHARED, length=length, trust_mtime=True) for length in args.images}
    starts = {length: dict(setting, mapped=True) for length, setting in later.items()}
    for length, found in in_turns(args.rounds, folder, 'cache', starts).items():
        rows[length] |= dict(trusted=found['start'], mib=found['peak_mib'])
    epochs = {
        length: dict(setting, epochs=2 + min(8, 200_000 // length))
        for length, setting in later.items()
    }
    for length, found in in_turns(args.rounds, folder, 'cache', epochs).items():
        rows[length]['us'] = found['us']
    print_rows(
        '256 channels, 10 classes, batch 128; us and seconds, in brackets those of the processor; '
        f'of all but the first start medians of {args.rounds} runs in turns',
        [
            'images',
            'us an image in an epoch',
            'first start, all bytes read',
            'start, --trust-mtime',
            'MiB beside features',
        ],
        [
            [
                f'{length:,}',
                *(both(row[name]) for name in ('us', 'first', 'trusted')),
                f'{row["mib"]:.0f}',
            ]
            for length, row in rows.items()
        ],
    )
    print_rows(
        '`tools/feature_cache.py` over the entries of these, with its start',
        ['command', 'seconds'],
        [[name, f'{seconds:.2f}'] for name, seconds in tool_times(folder / 'cache').items()],
    )
    of_classes = {
        classes: dict(length=10_000, channels=channels, classes=classes, known=10, epochs=9)
        for classes, channels in EQUAL_WORK.items()
    }
    print_rows(
        '10,000 images with 10 known labels, as many multiplications, medians of '
        f'{args.rounds} runs in turns',
        ['classes', 'channels', 'us an image in an epoch', 'targets kept as'],
        [
            [str(classes), str(EQUAL_WORK[classes]), both(row['us']), row['targets']]
            for classes, row in in_turns(args.rounds, folder, 'classes', of_classes).items()
        ],
    )
    found = run_apart(
        folder, 'cache', length=args.most_images, trust_mtime=True, mapped=True, **OPEN_IMAGES
    )
    print_rows(
        "As OpenImages: labels of 601 classes, 8 known of an image; features stay in the store's "
        'files',
        ['images', 'targets kept as', 'MiB of targets', 'MiB of all, at the highest'],
        [
            [
                f'{args.most_images:,}',
                found['targets'],
                f'{found["target_mib"]:.0f}',
                f'{found["peak_mib"]:.0f}',
            ]
        ],
    )
    found = run_apart(folder, 'trainable', length=1280, epochs=2, checkpoints=True, **TRAINABLE)
    print_rows(
        f'A checkpoint of {TRAINABLE["classes"]:,} heads on {TRAINABLE["channels"]:,} channels',
        ['parameters', 'build (s)', 'save (s)', 'MiB', 'resume (s)', 'weights after resuming'],
        [[*found['checkpoint']]],
    )
    found = run_apart(folder, 'gpu', function=on_gpu, length=max(args.images), **ON_GPU)
    print_rows(
        'On a GPU, with features and dense targets of 601 classes in its memory',
        ['images', 'channels', 'images/s', 'images/s of the products alone', 'ratio'],
        [found],
    )
    if args.plot:
        plot(rows, Path(args.plot))


def in_turns(rounds: int, folder: Path, cache: str, settings: dict[int, dict]) -> dict[int, dict]:
    """What a first run of every setting gave; its times are medians of runs that take turns."""
    found: dict[int, list[dict]] = {key: [] for key in settings}
    for _ in range(rounds):
        for key, setting in settings.items():
            found[key].append(run_apart(folder, cache, **setting))
    return {key: dict(runs[0], **medians_of_times(runs)) for key, runs in found.items()}


def medians_of_times(runs: Sequence[dict]) -> dict[str, list[float]]:
    return {
        name: [statistics.median(clock) for clock in zip(*(found[name] for found in runs))]
        for name in ('start', 'us')
        if name in runs[0]
    }


def both(seconds: Sequence[float]) -> str:
    return f'{seconds[0]:.1f} ({seconds[1]:.1f})'


def run_apart(folder: Path, cache: str, function: Callable | None = None, **setting) -> Any:
    """:func:`run`, or another function, in a process of its own, for its memory."""
    setting |= dict(images=str(folder / 'images'), cache_dir=str(folder / cache))
    # What was imported is there; nothing has run in threads yet, which a fork would lose, and
    # nobody has asked for a GPU.
    with get_context('fork').Pool(1) as pool:
        return pool.apply(function or run, kwds=setting)


def on_gpu(device: str = 'cuda', **setting) -> list[str]:
    """An epoch through all of MMEngine beside the products with the weights."""
    length, channels, classes = (setting[key] for key in ('length', 'channels', 'classes'))
    if device == 'cuda' and not torch.cuda.is_available():
        return [f'{length:,}', f'{channels:,}', 'no GPU here', '', '']
    epoch = run(epochs=4, **setting)['us'][0] * length / 1e6
    features, gradient, weight = (
        torch.rand(*shape, device=device)
        for shape in ((BATCH, channels), (BATCH, classes), (channels, classes))
    )

    def products() -> None:
        for _ in range(-(-length // BATCH)):
            features @ weight
            features.T @ gradient

    alone = medians(dict(products=products), rounds=3)['products']
    speeds = f'{length / epoch:,.0f}', f'{length / alone:,.0f}'
    return [f'{length:,}', f'{channels:,}', *speeds, f'{alone / epoch:.3f}']


def run(
    images: str,
    cache_dir: str,
    length: int,
    channels: int,
    classes: int,
    known: int,
    epochs: int = 0,
    trust_mtime: bool = False,
    mapped: bool = False,
    checkpoints: bool = False,
) -> dict:
    """Start a run on made features, and train for some epochs."""
    loader_module.fill = fill_with_noise
    if mapped:
        loader_module.CPU_SHARE = 0.0
    with tempfile.TemporaryDirectory() as work_dir, PeakMemory() as memory:
        cfg = made_config(
            'MultiHeadClsHead', channels, 1, length, max(epochs, 1), work_dir, cache_dir, classes
        )
        cfg.train_dataloader.dataset.update(type='LinkedImages', folder=images, num_known=known)
        cfg.train_dataloader.dataset.pop('size')
        cfg.train_cfg.cache.trust_mtime = trust_mtime
        # Runs of one name in one second would share their visualizer, and its folder.
        cfg.experiment_name = Path(work_dir).name
        runner = Runner.from_cfg(cfg)
        loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
        result = dict(length=length)
        clocks = Clocks()
        loop.use_features('train', training=True)
        result['start'] = clocks.seconds()
        targets = loop.dataloader.dataset.targets
        is_matrix = isinstance(targets, torch.Tensor)
        result['targets'] = 'matrix' if is_matrix else 'known pairs'
        result['target_mib'] = (targets.nbytes if is_matrix else targets.num_bytes) / 2**20
        if epochs:
            # Of all epochs but the first.
            result['us'] = [
                1e6 * statistics.median(times) / length for times in zip(*time_epochs(runner)[1:])
            ]
        else:
            next(iter(loop.dataloader))
        result['peak_mib'] = memory.peak()
        if checkpoints:
            result['checkpoint'] = save_and_resume(runner, cfg)
    return result


class Clocks:
    """Seconds of the wall and of the processor since it was made, without those of filling."""

    filling = 0.0, 0.0

    def __init__(self) -> None:
        Clocks.filling = 0.0, 0.0
        self._start = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        now = time.perf_counter(), time.process_time()
        wall, processor = (n - s - f for n, s, f in zip(now, self._start, self.filling))
        return wall, processor


def fill_with_noise(entry, plan, layout, chunks: Sequence[int], *args) -> None:
    """In the place of the backbone: features of noise; the time that it takes is kept."""
    clocks, rng = Clocks(), np.random.RandomState(0)
    sample = dict(
        metainfo={},
        metainfo_of_info=['img_path', 'sample_idx'],
        data={},
        data_of_info=['gt_label', 'gt_score'],
    )
    for number in chunks:
        chunk = ChunkBuffer(layout, number)
        features = rng.rand(len(chunk.rows), *layout.shapes[0]).astype(np.float32)
        chunk.append([torch.from_numpy(features)], [sample] * len(chunk.rows))
        write_chunk(entry, chunk)
    Clocks.filling = clocks.seconds()


class PeakMemory:
    """Memory of this process that is no mapped file, beyond what it had before, at its highest."""

    def __enter__(self) -> 'PeakMemory':
        self._before = self._highest = _anonymous_mib()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *args) -> None:
        self._done.set()
        self._thread.join()

    def peak(self) -> float:
        return max(self._highest, _anonymous_mib()) - self._before

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self._highest = max(self._highest, _anonymous_mib())


def _anonymous_mib() -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(x for x in lines if x.startswith('RssAnon')).split()[1]) / 1024


def time_epochs(runner: Runner) -> list[tuple[float, float]]:
    """Train; seconds of every epoch, through all of MMEngine."""
    loop, times = runner.train_loop, []
    run_epoch = loop.run_epoch

    def timed() -> None:
        clocks = Clocks()
        run_epoch()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clocks.seconds())

    loop.run_epoch = timed
    runner.train()
    return times


def save_and_resume(runner: Runner, cfg) -> list[str]:
    """What a checkpoint of a trained run takes, and whether another goes on from it."""
    start = time.perf_counter()
    runner.save_checkpoint(cfg.work_dir, 'whole.pth')
    saved = time.perf_counter() - start
    path = Path(cfg.work_dir) / 'whole.pth'
    cfg.experiment_name, cfg.load_from, cfg.resume = 'resumed', str(path), True
    start = time.perf_counter()
    other = Runner.from_cfg(cfg)
    built = time.perf_counter() - start
    other._train_loop = other.build_train_loop(other._train_loop)
    other.optim_wrapper = other.build_optim_wrapper(other.optim_wrapper)
    other.param_schedulers = other.build_param_scheduler(other.param_schedulers)
    start = time.perf_counter()
    other.load_or_resume()
    resumed = time.perf_counter() - start
    states = [r.model.head.state_dict() for r in (runner, other)]
    is_equal = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return [
        f'{sum(p.numel() for p in runner.model.head.parameters()):,}',
        f'{built:.1f}',
        f'{saved:.1f}',
        f'{path.stat().st_size / 2**20:.0f}',
        f'{resumed:.1f}',
        'equal' if is_equal else 'differ',
    ]


def tool_times(cache_dir: Path) -> dict[str, float]:
    """Seconds of the tool that looks after stored features, from its start to its end."""
    tool = Path(__file__).parents[1] / 'feature_cache.py'
    largest = max(FeatureStore(cache_dir).entries(), key=lambda entry: entry.layout().num_samples)
    times = {}
    for words in (['list'], ['info', largest.key]):
        start = time.perf_counter()
        command = [sys.executable, str(tool), *words, '--cache-dir', str(cache_dir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times[words[0]] = time.perf_counter() - start
    return times


def plot(rows: dict[int, dict[str, Any]], path: Path) -> None:
    """Curves of growth, of processor time: it depends less on what else runs."""
    import matplotlib

    matplotlib.use('svg')
    from matplotlib import pyplot

    matplotlib.rcParams.update({'svg.hashsalt': 'scale', 'svg.fonttype': 'none', 'font.size': 8})
    figure, axes = pyplot.subplots(1, 3, figsize=(7.2, 2.1), layout='constrained')
    curves = (
        ('processor us an image in an epoch', {'us': ''}),
        ('processor seconds to start', {'first': 'all bytes read', 'trusted': '--trust-mtime'}),
        ('MiB beside features', {'mib': ''}),
    )
    for axis, (title, names) in zip(axes, curves):
        for name, label in names.items():
            values = [row[name] if name == 'mib' else row[name][1] for row in rows.values()]
            axis.plot(list(rows), values, 'o-', ms=3, label=label)
        axis.set(title=title, xlabel='images', xscale='log')
        if 'us' in names:
            axis.set_ylim(0)
        else:
            axis.set_yscale('log')
        if len(names) > 1:
            axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata=dict(Date=None))
    pyplot.close(figure)
