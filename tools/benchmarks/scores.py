"""Train configs on stored features over several seeds, and put their scores into one table."""

import argparse
import copy
import logging
import statistics
import tempfile
import time

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from rich.table import Table

from mhc_plugin.apis import load_config, train

from .timing import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('configs', nargs='+', help='paths or names of configs')
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--views', type=int, default=1, help='draws of the training augmentation')
    parser.add_argument('--cache-dir', default='work_dirs/feature_cache')
    parser.add_argument('--backbone-weights', metavar='PATH|none')
    parser.add_argument('--metrics', nargs='+', help='shown, without `multi-label/`; default: all')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)


def prepare(config: str, args: argparse.Namespace) -> Config:
    """Load a config and set it to so many epochs on stored features, validated at the end."""
    cfg = load_config(config, args.cfg_options)
    cfg.train_cfg = dict(
        type='FeatureCacheTrainLoop',
        max_epochs=args.epochs,
        val_interval=args.epochs,
        cache=dict(views=args.views, cache_dir=args.cache_dir),
    )
    cfg.val_cfg = dict(type='FeatureCacheValLoop', cache=dict(cache_dir=args.cache_dir))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=args.epochs)
    cfg.default_hooks.logger.interval = 1000
    return cfg


def score(cfg: Config, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train with one seed; its metrics, and the seconds it took."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work_dir:
        result = train(
            copy.deepcopy(cfg), work_dir=work_dir, seed=seed, backbone_weights=args.backbone_weights
        )
    metrics = {name.removeprefix('multi-label/'): v for name, v in result.metrics.items()}
    return dict(metrics, seconds=time.perf_counter() - start)


def cell(values: list[float]) -> str:
    mean = f'{statistics.mean(values):.2f}'
    return mean if len(values) < 2 else f'{mean} ± {statistics.stdev(values):.2f}'


def main(args: argparse.Namespace) -> None:
    rows, names = {}, args.metrics
    for config in args.configs:
        cfg = prepare(config, args)
        runs = [score(cfg, seed, args) for seed in args.seeds]
        names = names or [name for name in runs[0] if name != 'seconds']
        rows[config] = [cell([run[name] for run in runs]) for name in (*names, 'seconds')]
    # The runs' loggers have printed their own lines.
    logging.getLogger(MMLogger.get_current_instance().name).setLevel(logging.WARNING)
    table = Table(
        title=f'{args.epochs} epochs, {args.views} view(s), seeds {args.seeds}; mean '
        'and standard deviation, percent'
    )
    for column in ('config', *names, 'seconds'):
        table.add_column(column, justify='left' if column == 'config' else 'right')
    for config, cells in rows.items():
        table.add_row(config, *cells)
    print_table(table)
