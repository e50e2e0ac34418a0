"""Measure class maps: where they lie, what a swapped tile does, whether they are faithful."""

import argparse
import time
from pathlib import Path

from mmengine.config import DictAction
from rich.console import Console

from mhc_plugin.analysis.report import results_table
from mhc_plugin.analysis.road import road_of_grad_cam
from mhc_plugin.apis import load_config
from mhc_plugin.apis.caching import add_cache_arguments, cache_options
from mhc_plugin.apis.model_runs import ModelRuns, evaluate_runs, train_runs
from mhc_plugin.class_maps import find_method
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.cli.records import data_hash, summarise, write_record
from mhc_plugin.datasets.images import dataset_with_test_pipeline


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description='Measure accuracy and class maps of models in one table, with the level of '
        'chance. Several checkpoints of a config (seeds) give mean and standard deviation; models '
        'with the same backbone share its features.',
    )
    parser.add_argument(
        '--model',
        nargs='+',
        action='append',
        required=True,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a config and its checkpoints; may be repeated. Without checkpoints it is trained '
        'first, once for each of --seeds; a finished run is not repeated',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='for training; 0')
    parser.add_argument('--work-dir', default='work_dirs/maps', help='folder of the trained runs')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override every config, such as train_cfg.max_epochs=30',
    )
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='test')
    parser.add_argument(
        '--method',
        default='inherent',
        help="'inherent' or a method of pytorch_grad_cam, such as GradCAM",
    )
    parser.add_argument(
        '--road',
        type=int,
        default=0,
        metavar='N',
        help='measure ROAD on so many images, seconds for each; left out by default',
    )
    parser.add_argument('--no-swap', action='store_true', help='leave out the swap test')
    parser.add_argument(
        '--no-random-head', action='store_true', help='leave out the maps of a random head'
    )
    parser.add_argument('--seed', type=int, default=0, help='of swaps, ROAD and random heads')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--num-workers', type=int, default=0)
    parser.add_argument('--device', help='CUDA where there is any, else CPU')
    parser.add_argument(
        '--out', help='record of the run: all figures and how they were made, .json'
    )
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')
    add_cache_arguments(parser)
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Raise before models are trained what would otherwise be raised after that."""
    if args.out and Path(args.out).suffix != '.json':
        raise ValueError(f'Expected --out to name a file that ends in .json, but got {args.out}.')
    if args.method != 'inherent':
        find_method(args.method)
    if args.road:
        road_of_grad_cam()


def main() -> None:
    args = parse_args()
    with one_sentence_errors(args.traceback):
        check(args)
        start = time.perf_counter()
        cache = cache_options(args)
        runs = []
        for config, *checkpoints in args.model:
            cfg, name = load_config(config, args.cfg_options), Path(config).stem
            runs.append(
                ModelRuns(name, cfg, checkpoints)
                if checkpoints
                else train_runs(name, cfg, args.seeds, args.work_dir, cache)
            )
        results = evaluate_runs(
            runs,
            split=args.split,
            method=args.method,
            with_swap=not args.no_swap,
            road_images=args.road,
            random_head=not args.no_random_head,
            seed=args.seed,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            device=args.device,
        )
        Console(width=1000).print(results_table(results))
        if args.out:
            write_record(
                args.out,
                {name: summarise(own) for name, own in results.items()},
                seconds=time.perf_counter() - start,
                seeds=args.seeds,
                data=data_hash(dataset_with_test_pipeline(runs[0].cfg, args.split)),
            )


if __name__ == '__main__':
    main()
