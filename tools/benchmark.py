"""Benchmarks: every figure is a median or a ratio of medians, measured in one run.

python tools/benchmark.py annotations
python tools/benchmark.py cache --profile
python tools/benchmark.py heads
python tools/benchmark.py maps
python tools/benchmark.py metrics
python tools/benchmark.py optimum --made 10000 2048 20
python tools/benchmark.py peers efficientnet-lite0_multifc_combined0
python tools/benchmark.py scores CONFIG [CONFIG ...] --epochs 30 --seeds 0 1 2
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks import annotations, cache, heads, maps, metrics, optimum, peers, scores


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    for module in (annotations, cache, heads, maps, metrics, optimum, peers, scores):
        name = module.__name__.rsplit('.', 1)[-1]
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return parser.parse_args()


if __name__ == '__main__':
    args = parse_args()
    args.main(args)
