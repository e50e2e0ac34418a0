"""Training through the feature cache: is it the same, and what does it cost?"""

import argparse
import copy
import cProfile
import gc
import logging
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from mhc_plugin.apis import TrainResult, load_config, test, train
from mhc_plugin.features.extractor import FeatureExtractor
from mhc_plugin.features.views import ViewDataset, stack_views
from mhc_plugin.utils.precision import full_float32

from .made_features import made_config
from .timing import print_rows

PARTS = ('equal', 'epoch', 'build', 'precision', 'schedule', 'views')
METRICS = dict(precision='multi-label/precision_top4_micro', mAP='multi-label/mAP')
COMBINED, VOC = 'efficientnet-lite0_multifc_combined0', 'efficientnet-lite0_multifc_voc'
FIXED = [dict(type='ComposeTiles'), dict(type='Resize', scale=224), dict(type='PackInputs')]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument(
        '--images',
        type=int,
        default=256,
        help='images where the backbone has to run in every epoch',
    )
    parser.add_argument('--epochs', type=int, default=20)
    parser.add_argument('--views', type=int, nargs='+', default=[1, 4, 8])
    parser.add_argument('--profile', action='store_true', help='show where an epoch spends time')


def load(name: str, length: int | None = None, **options) -> Config:
    """A config that validates at the end only and logs little."""
    cfg = load_config(name, options)
    cfg.default_hooks.logger.interval = 1000
    cfg.default_hooks.checkpoint.interval = 10_000
    cfg.log_level = 'WARNING'
    if length is not None:
        cfg.train_dataloader.dataset.length = cfg.val_dataloader.dataset.length = length
    cfg.test_dataloader = cfg.val_dataloader
    return cfg


def fit(cfg: Config, epochs: int, cache: dict | None, work_dir: Path) -> tuple[TrainResult, float]:
    """Train; the result and the seconds it took."""
    cfg = copy.deepcopy(cfg)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler.T_max = epochs
    start = time.perf_counter()
    result = train(cfg, work_dir=work_dir, feature_cache=cache)
    return result, time.perf_counter() - start


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    logging.getLogger(MMLogger.get_current_instance().name).setLevel(logging.WARNING)
    print_rows(title, columns, rows)


def scores_of(metrics: dict[str, float]) -> str:
    return ' / '.join(f'{metrics[name]:.2f}' for name in METRICS.values())


# ---- the same as without


def equal(args: argparse.Namespace, folder: Path) -> None:
    """Weights and scores after training with and without the cache, transforms being fixed."""
    cfg = load(COMBINED, args.images)
    cfg.train_dataloader.dataset.pipeline = FIXED
    runs = dict(images=None)
    for storage in ('fp32', 'fp16'):
        runs[storage] = dict(cache_dir=str(folder / 'cache'), storage=storage)
    results = {name: fit(cfg, args.epochs, cache, folder / name) for name, cache in runs.items()}
    reference, whole = (results['images'][0].runner.model.head.fc.weight, results['images'][1])
    rows = []
    for name, (result, seconds) in results.items():
        weight = result.runner.model.head.fc.weight
        difference = (weight - reference).norm() / reference.norm()
        on_images = test(cfg, result.checkpoint, work_dir=folder / 'test')
        rows.append(
            [
                name,
                f'{difference:.1e}',
                scores_of(result.metrics),
                scores_of(on_images),
                f'{whole / seconds:.1f} x',
            ]
        )
    show(
        f'{args.epochs} epochs, {args.images} images, fixed transforms; top-4 precision / mAP',
        ['features', 'weights differ', 'scores', 'tested on images', 'speed'],
        rows,
    )


# ---- an epoch of the head


def bare_epoch(
    step: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    batch_size: int = 128,
) -> None:
    """The loop that everybody writes."""
    for index in torch.randperm(len(inputs)).split(batch_size):
        loss = step(inputs[index], targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def timed(call: Callable[[], None]) -> float:
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def epoch_times(
    head: str, channels: int, size: int, length: int, epochs: int, folder: Path, profile: bool
) -> dict[str, float]:
    """Median seconds of an epoch through MMEngine and of bare loops, taking turns."""
    cfg = made_config(
        head, channels, size, length, epochs + 2, str(folder / head), str(folder / 'cache')
    )
    runner = Runner.from_cfg(cfg)
    loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
    run_epoch, times = loop.run_epoch, {}
    loops: dict[str, Callable[[], None]] = {}

    def prepare() -> None:
        dataset = loop.dataloader.dataset
        rows = np.arange(length)
        inputs = torch.cat([dataset.reader.gather(part)[0] for part in np.array_split(rows, 20)])
        targets = dataset.targets.float()
        own = copy.deepcopy(runner.model.head).train()
        optimizer = torch.optim.SGD(own.parameters(), lr=0.01, momentum=0.9)
        loops['the same head and loss, bare'] = lambda: bare_epoch(
            lambda x, y: own.loss_module(own((x,)), y), optimizer, inputs, targets
        )
        if size == 1:
            linear = nn.Linear(channels, 10)
            plain = torch.optim.SGD(linear.parameters(), lr=0.01, momentum=0.9)
            loops['nn.Linear and BCE, bare'] = lambda: bare_epoch(
                lambda x, y: 10 * F.binary_cross_entropy_with_logits(linear(x.flatten(1)), y),
                plain,
                inputs,
                targets,
            )

    def take_turns() -> None:
        if not loops:
            prepare()
        if profile and loop.epoch == epochs + 1:
            with cProfile.Profile() as profiler:
                run_epoch()
            print_profile(profiler)
        else:
            times.setdefault('MMEngine, from the cache', []).append(timed(run_epoch))
        for name, call in loops.items():
            times.setdefault(name, []).append(timed(call))

    loop.run_epoch = take_turns
    runner.train()
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def print_profile(profiler: cProfile.Profile) -> None:
    """Share of an epoch that each part takes."""
    parts = {
        'features from the store': ('chunks.py', 'gather'),
        'the rest of the batch': ('dataset.py', '__getitems__'),
        'head and loss, forward': ('frozen_backbone.py', 'loss'),
        'backward': ('optimizer_wrapper.py', 'backward'),
        'optimizer': ('optimizer_wrapper.py', 'step'),
        "MMEngine's hooks": ('runner.py', 'call_hook'),
        'all': ('loops.py', 'run_epoch'),
    }
    seconds = {}
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profiler).stats.items():
        for part, (wanted_file, wanted_name) in parts.items():
            if file.endswith(wanted_file) and name == wanted_name:
                seconds[part] = max(cumulative, seconds.get(part, 0.0))
    whole = seconds.pop('all')
    seconds['the rest of the batch'] -= seconds['features from the store']
    seconds['rest of MMEngine and of the loader'] = whole - sum(seconds.values())
    show(
        'Where an epoch goes (under the profiler)',
        ['part', 'share'],
        [[part, f'{100 * value / whole:.0f} %'] for part, value in seconds.items()],
    )


def epoch(args: argparse.Namespace, folder: Path) -> None:
    """Time of an epoch of vectors and of maps."""
    rows = []
    for head, channels, size, length, epochs in (
        ('MultiHeadClsHead', 2048, 1, 10_000, 49),
        ('ConvMultiHeadClsHead', 1280, 7, 1280, 9),
    ):
        times = epoch_times(head, channels, size, length, epochs, folder, args.profile)
        cached = times['MMEngine, from the cache']
        for name, seconds in times.items():
            rows.append(
                [
                    f'{head}, {length} x {channels} x {size} x {size}: {name}',
                    f'{1000 * seconds:.0f} ms',
                    f'{cached / seconds:.2f} x',
                ]
            )
    show('An epoch, 10 classes, batch 128', ['loop', 'median', 'cache / this'], rows)


# ---- storing features


def build(args: argparse.Namespace, folder: Path) -> None:
    """Images per second while features are stored, against the bare forward pass."""
    length, rows = 4 * args.images, []
    for precision in ('fp32', 'bf16'):
        rates = [build_rates(precision, length, folder / f'{precision}{i}') for i in range(3)]
        bare, stored = (statistics.median(values) for values in zip(*rates))
        ratios = sorted(stored / bare for bare, stored in rates)
        rows.append(
            [
                precision,
                f'{bare:.1f}',
                f'{stored:.1f}',
                f'{ratios[1]:.2f}',
                f'{ratios[0]:.2f} to {ratios[-1]:.2f}',
            ]
        )
    show(
        f'EfficientNet-Lite0, {length} composites of 224 px, {torch.get_num_threads()} threads',
        ['precision', 'bare images/s', 'stored images/s', 'ratio', '3 rounds'],
        rows,
    )


def build_rates(precision: str, length: int, folder: Path) -> tuple[float, float]:
    """Images per second: the bare forward pass, before and after, and while they are stored."""
    cfg = load(COMBINED, length)
    cfg.work_dir = str(folder)
    cfg.train_cfg = dict(
        type='FeatureCacheTrainLoop',
        max_epochs=1,
        cache=dict(precision=precision, cache_dir=str(folder / 'cache')),
    )
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    loop = runner.build_train_loop(runner._train_loop)
    dataset = ViewDataset(loop.dataloader.dataset, 0)
    images, _ = stack_views([dataset[i] for i in range(64)])
    extractor = FeatureExtractor.of(runner.model)

    def forward() -> None:
        with full_float32(), torch.autocast('cpu', torch.bfloat16, precision == 'bf16'):
            extractor(images)

    before = [timed(forward) for _ in range(6)][1:]
    seconds = timed(lambda: loop.use_features('train'))
    after = [timed(forward) for _ in range(5)]
    return len(images) / statistics.median(before + after), length / seconds


def precision(args: argparse.Namespace, folder: Path) -> None:
    """What computing the features in bfloat16 does to them and to scores."""
    cfg, features, rows = load(COMBINED), {}, []
    for name in ('fp32', 'bf16'):
        cache = dict(cache_dir=str(folder / 'precision'), precision=name)
        result, _ = fit(cfg, args.epochs, cache, folder / f'precision {name}')
        dataset = result.runner.val_dataloader.dataset
        features[name] = dataset.reader.gather(np.arange(len(dataset)))[0]
        moved = (features[name] - features['fp32']).norm() / features['fp32'].norm()
        on_images = test(cfg, result.checkpoint, work_dir=folder / 'test')
        rows.append([name, f'{100 * moved:.2f} %', scores_of(result.metrics), scores_of(on_images)])
    show(
        f'combined0, {args.epochs} epochs; top-4 precision / mAP',
        ['precision', 'features move', 'scores', 'tested on images in float32'],
        rows,
    )


# ---- the paper's schedule


def schedule(args: argparse.Namespace, folder: Path) -> None:
    """1,000 epochs through the cache against 1,000 on images, from measured epochs."""
    cfg = load(COMBINED)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    length = cfg.train_dataloader.dataset.length
    few = copy.deepcopy(cfg)
    few.train_dataloader.dataset.length = args.images
    per_image = statistics.median(epochs_of(few, 4, None, folder / 'few')[1:]) / args.images
    cache = dict(cache_dir=str(folder / 'schedule'), storage='fp32')
    start = time.perf_counter()
    epochs = epochs_of(cfg, 30, cache, folder / 'cached')
    store = time.perf_counter() - start - sum(epochs)
    cached, whole = store + 1000 * statistics.median(epochs[1:]), 1000 * per_image * length
    show(
        f'1,000 epochs on {length} composites, MultiFC on EfficientNet-Lite0, one view, float32',
        ['', 'to store', 'an epoch', '1,000 epochs'],
        [
            ['images', '', f'{per_image * length:.1f} s', f'{whole / 3600:.1f} h'],
            [
                'cache',
                f'{store:.0f} s',
                f'{statistics.median(epochs[1:]):.3f} s',
                f'{cached:.0f} s',
            ],
            ['ratio', '', '', f'{whole / cached:.0f} x'],
        ],
    )


def epochs_of(cfg: Config, epochs: int, cache: dict | None, work_dir: Path) -> list[float]:
    """Seconds of every epoch, hooks included."""
    times, original = [], EpochBasedTrainLoop.run_epoch

    def run_epoch(self) -> None:
        times.append(timed(lambda: original(self)))

    EpochBasedTrainLoop.run_epoch = run_epoch
    try:
        fit(cfg, epochs, cache, work_dir)
    finally:
        EpochBasedTrainLoop.run_epoch = original
    return times


# ---- views


def views(args: argparse.Namespace, folder: Path) -> None:
    """Scores and time with so many views, and without a cache."""
    cfg, rows = load(VOC), []
    for number in (*args.views, None):
        cache = None if number is None else dict(cache_dir=str(folder / 'views'), views=number)
        result, seconds = fit(cfg, args.epochs, cache, folder / f'views{number}')
        rows.append(
            [
                f'{number} views' if number else 'no cache',
                f'{result.metrics["multi-label/mAP"]:.2f}',
                f'{seconds:.0f} s',
            ]
        )
    show(
        f'VOC, the augmentation of the paper, {args.epochs} epochs',
        ['features', 'mAP', 'time'],
        rows,
    )


def main(args: argparse.Namespace) -> None:
    parts = dict(
        equal=equal, epoch=epoch, build=build, precision=precision, schedule=schedule, views=views
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in args.parts:
            parts[name](args, Path(folder))
