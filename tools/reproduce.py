"""Train and test what the paper's tables hold, and write every figure beside the paper's.

python tools/reproduce.py --dry-run                 # the plan, with an estimate of time and disk
python tools/reproduce.py --tables 1 --smoke        # a few images and epochs, minutes
python tools/reproduce.py --tables 1 2 --seeds 0 1 2
"""

import argparse
import time
from pathlib import Path

import mhc_plugin
from mhc_plugin.apis import MultiLabelInferencer, reproduce
from mhc_plugin.apis.checkpoints import newest_readable
from mhc_plugin.apis.class_maps import draw_class_maps
from mhc_plugin.apis.reproduce import Cell
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.cli.errors import in_one_sentence
from mhc_plugin.cli.paper_report import read_cells, results_html, results_markdown, rows_of
from mhc_plugin.cli.records import data_hash, read_record, write_record
from mhc_plugin.datasets.images import dataset_with_test_pipeline


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add('--tables', type=int, nargs='+', choices=range(1, 8), default=[1, 2, 3, 4], metavar='N')
    add('--backbones', nargs='+', choices=reproduce.BACKBONES, default=['efficientnet-lite0'])
    add('--datasets', nargs='+', choices=list(reproduce.DATASETS.values()))
    add('--heads', nargs='+', choices=reproduce.HEADS, default=list(reproduce.HEADS))
    add('--schedules', nargs='+', choices=list(reproduce.SCHEDULES), default=['short'])
    add('--seeds', type=int, nargs='+', default=[0])
    add('--backbone-weights', metavar='PATH|none', help='in the place of the published ones')
    add('--smoke', action='store_true', help='a few images and epochs, to see that all runs')
    add('--dry-run', action='store_true', help='print the plan, and run nothing')
    add('--work-dir', default='work_dirs/reproduce', help='records, logs, checkpoints and report')
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
                backbone_weights=args.backbone_weights,
                smoke=args.smoke,
            )
        ]
        work_dir = Path(args.work_dir)
        records = work_dir / 'records'
        missing = [cell for cell in cells if not cell.is_finished(records)]
        print(f'{len(cells)} trainings, {len(cells) - len(missing)} of them there.')
        if args.dry_run:
            print_plan(missing, args.cache_dir or work_dir / 'features')
            return
        run_all(cells, len(missing), work_dir, args.cache_dir or work_dir / 'features')
        write_report(cells, args.tables, work_dir)


def print_plan(cells: list[Cell], cache_dir: str | Path) -> None:
    """What every cell takes; features count once for all that share them."""
    seconds, stores = 0.0, {}
    for cell in cells:
        cost = reproduce.estimate(cell)
        new = cost.features not in stores
        stores.setdefault(cost.features, cost)
        seconds += cost.train_seconds
        stored = f'features {cost.store_seconds:.0f} s, {cost.store_bytes / 1e6:.0f} MB; '
        print(f'{cell.name}: {stored if new else ""}training {cost.train_seconds:.0f} s')
    seconds += sum(cost.store_seconds for cost in stores.values())
    size = sum(cost.store_bytes for cost in stores.values())
    print(f'About {seconds / 60:.1f} minutes, and {size / 1e9:.2f} GB in {cache_dir}.')


def run_all(cells: list[Cell], missing: int, work_dir: Path, cache_dir: str | Path) -> None:
    start, done, hashes = time.monotonic(), 0, {}

    def run(cell: Cell) -> None:
        begun = time.perf_counter()
        found = reproduce.run_cell(cell, work_dir / 'runs', dict(cache_dir=str(cache_dir)))
        dataset = found.pop('dataset')
        key = (cell.dataset, cell.smoke)
        if key not in hashes:
            hashes[key] = data_hash(dataset)
        write_record(
            work_dir / 'records' / f'{cell.name}.json',
            found,
            seconds=time.perf_counter() - begun,
            seeds=[cell.seed],
            data=hashes[key],
        )

    def progress(cell: Cell, what: str) -> None:
        nonlocal done
        if what == 'there':
            return
        done += 1
        left = (time.monotonic() - start) / done * (missing - done)
        print(f'[{done}/{missing}, {left / 60:.1f} minutes left] {cell.name}: {what}', flush=True)

    reproduce.run_cells(cells, work_dir / 'records', run, in_one_sentence, progress)


def draw_panels(cells: list[Cell], work_dir: Path) -> dict[str, Path]:
    """Two test images of every data set, untrained and trained, drawn once."""
    drawn = {}
    for head in ('multiatt', 'multifc', 'baseline'):
        for cell in cells:
            done = cell.is_finished(work_dir / 'records')
            if cell.head != head or cell.dataset in drawn or cell.backbone_weights or not done:
                continue
            folder, cfg = work_dir / 'panels' / f'{cell.name}_{cell.settings}', cell.config()
            checkpoint = newest_readable(work_dir / 'runs' / cell.name)[0]
            if not list(folder.glob('*.png')):
                models = dict(
                    untrained=MultiLabelInferencer(cfg),
                    trained=MultiLabelInferencer(cfg, str(checkpoint)),
                )
                dataset = dataset_with_test_pipeline(cfg, 'test')
                list(draw_class_maps(models, (dataset[i] for i in range(2)), folder))
            for i, path in enumerate(sorted(folder.glob('*.png'))):
                drawn[f'{cell.name}, test image {i}'] = path
            drawn[cell.dataset] = None
    return {title: path for title, path in drawn.items() if path is not None}


def write_report(cells: list[Cell], numbers: list[int], work_dir: Path) -> None:
    found = read_cells(work_dir / 'records', cells)
    tables = {number: rows_of(number, found) for number in numbers}
    names = [cell.name for cell in cells if cell.is_finished(work_dir / 'records')]
    runs = {name: read_record(work_dir / 'records' / f'{name}.json') for name in names}
    commits = sorted({str(run['commit']) for run in runs.values()})
    stale = sum(run['stale'] for run in runs.values())
    about = [
        f'mhc_plugin {mhc_plugin.__version__}, commit {", ".join(commits) or "none"}; '
        f'{len(runs)} of {len(cells)} trainings'
        + (f', {stale} of them with other code than that of today.' if stale else '.')
    ]
    about += sorted({f'Run by `{run["command"]}` on {run["machine"]}.' for run in runs.values()})
    data = {
        name.split('_')[2]: dict(
            images=run['scores']['images'],
            labels=sum(run['scores']['prevalence']),
            hash=run['data'],
        )
        for name, run in runs.items()
    }
    curves = {name: run['scores']['loss'] for name, run in runs.items() if run['seeds'] == [0]}
    (work_dir / 'RESULTS.md').write_text(results_markdown(tables, about), encoding='utf-8')
    page = results_html(tables, about, curves, data, draw_panels(cells, work_dir))
    (work_dir / 'report.html').write_text(page, encoding='utf-8')
    print(f'Report: {work_dir / "RESULTS.md"}, {work_dir / "report.html"}')


if __name__ == '__main__':
    main()
