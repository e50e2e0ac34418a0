"""Train and test what the paper's tables hold, and write every figure beside the paper's.

python tools/reproduce.py --dry-run                 # the plan, with an estimate of time and disk
python tools/reproduce.py --tables 1 --smoke        # a few images and epochs, minutes
python tools/reproduce.py --tables 1 2 --seeds 0 1 2
"""

import argparse
import os
import signal
import time
from pathlib import Path

from mmengine.config import DictAction

import mhc_plugin
from mhc_plugin.apis import MultiLabelInferencer, reproduce
from mhc_plugin.apis.class_maps import draw_class_maps
from mhc_plugin.apis.reproduce import Cell
from mhc_plugin.apis.reproduce_cost import estimate
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.cli.errors import in_one_sentence
from mhc_plugin.cli.paper_page import results_html
from mhc_plugin.cli.paper_report import read_cells, results_markdown, rows_of, sections_of
from mhc_plugin.cli.records import data_hash, merged, read_record, write_record
from mhc_plugin.datasets.images import dataset_with_test_pipeline


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add('--tables', type=int, nargs='+', choices=range(1, 8), default=[1, 2, 3, 4], metavar='N')
    add('--backbones', nargs='+', choices=reproduce.BACKBONES, default=['efficientnet-lite0'])
    add('--datasets', nargs='+', choices=list(reproduce.DATASETS.values()))
    add('--heads', nargs='+', choices=reproduce.HEADS, default=list(reproduce.HEADS))
    add('--schedules', nargs='+', choices=list(reproduce.SCHEDULES), default=['short'])
    add('--reductions', nargs='+', choices=('sum', 'mean'), default=['sum'])
    add('--seeds', type=int, nargs='+', default=[0])
    add('--backbone-weights', metavar='PATH|none', help='in the place of the published ones')
    add('--images', type=int, help='training images of a set at most, half as many of its test')
    add('--cfg-options', nargs='+', action=DictAction, default={}, help='of all configs')
    add('--smoke', action='store_true', help='a few images and epochs, to see that all runs')
    add('--dry-run', action='store_true', help='print the plan, and run nothing')
    add('--work-dir', default='work_dirs/reproduce', help='records, logs, checkpoints and report')
    add('--record', help='file for all scores of the plan, from which pages are written, .json')
    add('--no-panels', action='store_true', help='no class maps of test images in the report')
    add('--cache-dir', help='folder of features; <work-dir>/features by default')
    add('--traceback', action='store_true', help='show where an error was raised')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_sentence_errors(args.traceback):
        cells = [
            cell
            for schedule in args.schedules
            for cell in reproduce.plan(
                args.tables,
                args.backbones,
                args.heads,
                args.seeds,
                datasets=args.datasets,
                schedule=schedule,
                reductions=args.reductions,
                backbone_weights=args.backbone_weights,
                smoke=args.smoke,
                images=args.images,
                common=args.cfg_options,
            )
        ]
        work_dir = Path(args.work_dir)
        records, cache_dir = work_dir / 'records', args.cache_dir or work_dir / 'features'
        missing = [cell for cell in cells if not cell.is_finished(records)]
        print(f'{len(cells)} trainings, {len(cells) - len(missing)} of them there.')
        if args.dry_run:
            print_plan(missing, cache_dir)
            return
        # Who ends it gets a report of what is there.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            run_all(missing, work_dir, cache_dir)
        finally:
            write_report(cells, args, work_dir)


def print_plan(cells: list[Cell], cache_dir: str | Path) -> None:
    """What every cell takes; features count once for all that share them."""
    seconds, images, stores = 0.0, {}, {}
    for cell in cells:
        cost = estimate(cell)
        new = {key: value for key, value in cost.images.items() if key not in images}
        images |= new
        size = sum(value for key, value in cost.stores.items() if key not in stores)
        stores |= cost.stores
        seconds += cost.train_seconds
        stored = f'features {sum(new.values()):.0f} s, {size / 1e6:.0f} MB; '
        print(f'{cell.name}: {stored if size else ""}training {cost.train_seconds:.0f} s')
    seconds += sum(images.values())
    size = sum(stores.values())
    print(f'About {seconds / 60:.1f} minutes, and {size / 1e9:.2f} GB in {cache_dir}.')


def run_all(missing: list[Cell], work_dir: Path, cache_dir: str | Path) -> None:
    start, done, hashes = time.monotonic(), 0, {}

    def run(cells: list[Cell]) -> dict[Cell, str | None]:
        begun, first = time.perf_counter(), cells[0]
        found = reproduce.run_pass(cells, work_dir / 'runs', dict(cache_dir=str(cache_dir)))
        key = (first.dataset, first.smoke, first.images, first.common)
        if key not in hashes:
            hashes[key] = data_hash(dataset_with_test_pipeline(first.config(), 'val'))
        for cell, own in found.items():
            if own['error'] is None:
                checkpoint = os.path.relpath(own['checkpoint'], work_dir)
                write_record(
                    work_dir / 'records' / f'{cell.name}.json',
                    dict(own['scores'], checkpoint=checkpoint),
                    seconds=(time.perf_counter() - begun) / len(cells),
                    seeds=[cell.seed],
                    data=hashes[key],
                )
        return {cell: own['error'] for cell, own in found.items()}

    def progress(cell: Cell, what: str) -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - start) / done * (len(missing) - done)
        print(
            f'[{done}/{len(missing)}, {left / 60:.1f} minutes left] {cell.name}: {what}', flush=True
        )

    reproduce.run_passes(missing, work_dir / 'records', run, in_one_sentence, progress)


def draw_panels(cells: list[Cell], work_dir: Path) -> dict[str, Path]:
    """Two test images of every data set, untrained and trained, drawn once."""
    drawn, datasets = {}, set()
    for cell in sorted(cells, key=lambda cell: ('multiatt', 'multifc').index(cell.head)):
        if cell.dataset in datasets:
            continue
        datasets.add(cell.dataset)
        folder, cfg = work_dir / 'panels' / f'{cell.name}_{cell.settings}', cell.config()
        record = read_record(work_dir / 'records' / f'{cell.name}.json')
        if not list(folder.glob('*.png')):
            models = dict(
                untrained=MultiLabelInferencer(cfg),
                trained=MultiLabelInferencer(cfg, str(work_dir / record['scores']['checkpoint'])),
            )
            dataset = dataset_with_test_pipeline(cfg, 'test')
            list(draw_class_maps(models, (dataset[i] for i in range(2)), folder))
        for i, path in enumerate(sorted(folder.glob('*.png'))):
            drawn[f'{cell.name}, test image {i}'] = path
    return drawn


def write_report(cells: list[Cell], args: argparse.Namespace, work_dir: Path) -> None:
    records = work_dir / 'records'
    finished = [cell for cell in cells if cell.is_finished(records)]
    runs = [read_record(records / f'{cell.name}.json') for cell in finished]
    found = read_cells(records, cells)
    if args.record and runs:
        scores = dict(tables=args.tables, trainings=len(runs), planned=len(cells), rows=found)
        write_record(
            args.record,
            scores,
            seconds=sum(run['seconds'] for run in runs),
            seeds=args.seeds,
            data=', '.join(sorted({run['data'] for run in runs})),
            begun_with=merged(runs),
        )
    stale = sum(run['stale'] for run in runs)
    about = [
        f'mhc_plugin {mhc_plugin.__version__}, commit {merged(runs)["commit"] or "none"}; '
        f'{len(runs)} of {len(cells)} trainings'
        + (f', {stale} of them with other code than that of today.' if stale else '.')
    ]
    about += sorted({f'Run by `{run["command"]}` on {run["machine"]}.' for run in runs})
    tables = {number: rows_of(number, found) for number in args.tables}
    sections = sections_of(tables, found)
    text = '\n\n'.join(['# Results', *about, results_markdown(sections)])
    (work_dir / 'RESULTS.md').write_text(text, encoding='utf-8')
    mapped = [c for c in finished if c.head in ('multiatt', 'multifc') and not c.backbone_weights]
    panels = {} if args.no_panels else draw_panels(mapped, work_dir)
    page = results_html(sections, about, found, panels)
    (work_dir / 'report.html').write_text(page, encoding='utf-8')
    print(f'Report: {work_dir / "RESULTS.md"}, {work_dir / "report.html"}')


if __name__ == '__main__':
    main()
