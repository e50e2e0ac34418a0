"""Benchmarks: every figure is a median or a ratio of medians, measured in one run.

python tools/benchmark.py annotations
python tools/benchmark.py cache --profile
python tools/benchmark.py heads
python tools/benchmark.py maps
python tools/benchmark.py metrics
python tools/benchmark.py optimum efficientnet-lite0_multifc_combined0
python tools/benchmark.py optimum --made 10000 2048 20
python tools/benchmark.py peers efficientnet-lite0_multifc_combined0
python tools/benchmark.py scale
python tools/benchmark.py separate --draws 50
python tools/benchmark.py scores CONFIG [CONFIG ...] --epochs 30 --seeds 0 1 2
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks import (
    annotations,
    cache,
    heads,
    maps,
    metrics,
    optimum,
    peers,
    scale,
    scores,
    separate,
    timing,
)

from mhc_plugin.cli.records import write_record


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    modules = (annotations, cache, heads, maps, metrics, optimum, peers, scale, scores, separate)
    for module in modules:
        name = module.__name__.rsplit('.', 1)[-1]
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0], allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
        command.add_argument('--record', help='file for the tables and how they were made, .json')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    # Seeds and data, where a benchmark has any.
    told = args.main(args) or {}
    if args.record:
        tables = [
            dict(
                title=str(table.title or ''),
                columns=[str(column.header) for column in table.columns],
                rows=[list(row) for row in zip(*(column.cells for column in table.columns))],
            )
            for table in timing.SHOWN
        ]
        seconds, module = time.perf_counter() - start, args.main.__module__
        write_record(args.record, tables, seconds=seconds, module=module, **told)


if __name__ == '__main__':
    main()
