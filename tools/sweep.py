"""Train a head under many settings at once, and compare what they score.

python tools/sweep.py efficientnet-lite0_multifc_combined0 --seeds 0 1 2 \\
    --vary optim_wrapper.optimizer.lr=0.1,0.01 model.head.loss.loss_weight=0.5,1.0

Every combination is trained with every seed, on stored features, and ends where a run of
tools/train.py with these settings ends. Those that differ in optimizer, schedule and loss alone
share one pass over the features.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from mmengine.config import DictAction
from rich.table import Table

from mhc_plugin.apis import SweepRun, load_config, sweep, train
from mhc_plugin.apis.caching import add_cache_arguments, cache_options
from mhc_plugin.cli.arguments import add_common_arguments, one_sentence_errors, parse_args
from mhc_plugin.cli.records import data_hash, summarise, write_record
from mhc_plugin.datasets.images import dataset_with_test_pipeline
from mhc_plugin.utils.logs import table_text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('config', help='a config, as of tools/train.py')
    add(
        '--vary',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=V,V,...',
        help='options of the config, each with the values to try',
    )
    add('--seeds', type=int, nargs='+', default=[0])
    add('--optimum', action='store_true', help='beside them, the optimum of a linear head')
    add('--work-dir', help='folder of logs and checkpoints, work_dirs/sweep/<config> by default')
    add('--backbone-weights', metavar='PATH|none', help='as of tools/train.py')
    add('--small-checkpoints', action='store_true', help='save only what is trained')
    add('--record', help='file for all scores and how they were made, .json')
    add_cache_arguments(parser)
    add_common_arguments(parser)
    return parser


def main() -> None:
    args = parse_args(build_parser())
    args.cache_features = True  # There is no sweep without.
    with one_sentence_errors(args.traceback):
        run(args)


def run(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    cfg = load_config(args.config, args.cfg_options)
    vary = {key: value if isinstance(value, list) else [value] for key, value in args.vary.items()}
    work_dir = Path(args.work_dir or Path('work_dirs', 'sweep', Path(args.config).stem))
    common: dict[str, Any] = dict(
        backbone_weights=args.backbone_weights,
        feature_cache=cache_options(args),
        small_checkpoints=args.small_checkpoints,
        verbose=args.verbose,
    )
    runs = sweep(cfg, vary, args.seeds, work_dir=work_dir, **common)
    if args.optimum:
        for seed in args.seeds:
            found = train(
                cfg,
                work_dir=work_dir / f'seed{seed}' / 'optimum',
                seed=seed,
                optimum='cv',
                **common,
            )
            runs.append(
                SweepRun(dict(optimum='cv'), seed, found.metrics, [], found.checkpoint, None)
            )
    settings = [run.options for run in runs if run.seed == args.seeds[0]]
    rows = [
        dict(
            options=options,
            metrics=summarise([r.metrics for r in runs if r.options == options and not r.error]),
            losses={str(r.seed): r.losses for r in runs if r.options == options},
            errors={str(r.seed): r.error for r in runs if r.options == options and r.error},
        )
        for options in settings
    ]
    print(table_text(table_of(rows)), end='')
    print(f'Checkpoint and config of every setting: {work_dir}/<pass>/<setting>/')
    if args.record:
        dataset = (
            None if cfg.get('val_dataloader') is None else dataset_with_test_pipeline(cfg, 'val')
        )
        write_record(
            args.record,
            dict(config=Path(args.config).stem, settings=rows),
            seconds=time.perf_counter() - start,
            seeds=args.seeds,
            data=dataset and data_hash(dataset),
        )


def table_of(rows: list[dict]) -> Table:
    """A setting a row: its values, and every score as mean and standard deviation over seeds."""
    keys = list({key: None for row in rows for key in row['options']})
    scores = list({name: None for row in rows for name in row['metrics']})
    table = Table(title='Scores of validation', title_justify='left')
    for name in [*keys, *scores]:
        table.add_column(name.rpartition('.')[2].rpartition('/')[2], justify='right')
    if any(row['errors'] for row in rows):
        table.add_column('error')
    for row in rows:
        cells = [str(row['options'].get(key, '')) for key in keys]
        for name in scores:
            own = row['metrics'].get(name)
            spread = '' if own is None or own['std'] is None else f' ± {own["std"]:.2f}'
            cells.append('' if own is None else f'{own["mean"]:.2f}{spread}')
        cells += [f'seed {seed}: {error}' for seed, error in row['errors'].items()][:1]
        table.add_row(*cells)
    return table


if __name__ == '__main__':
    main()
