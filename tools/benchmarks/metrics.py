"""Time and memory of the metrics of scores, from batches of data samples to results."""

import argparse
import resource
import subprocess
import sys
import time

import torch
from mmengine.evaluator import Evaluator
from rich.table import Table

from mhc_plugin.evaluation import MultiLabelMeanAP, TopKMultiLabelMetric

from .timing import print_table

# Classes, and how many of them are known of an image.
CASES = {'601 dense': (601, 601), '9605 with 10 known': (9605, 10)}
METRICS = dict(
    top4=lambda: TopKMultiLabelMetric(topk=4, average='micro'), mAP=lambda: MultiLabelMeanAP()
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--images', type=int, default=125_000)
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--one', nargs=2, metavar=('CASE', 'METRIC'), help=argparse.SUPPRESS)


def batch(num_classes: int, num_known: int, size: int, rng: torch.Generator) -> list[dict]:
    """Data samples of one batch, as a loop hands them to metrics."""
    scores = torch.rand(size, num_classes, generator=rng)
    if num_known == num_classes:
        target = (torch.rand(size, num_classes, generator=rng) < 0.02).float()
    else:
        target = torch.full((size, num_classes), -1.0)
        known = torch.randint(num_classes, (size, num_known), generator=rng)
        target.scatter_(1, known, torch.randint(2, known.shape, generator=rng).float())
    return [dict(pred_score=s, gt_score=t) for s, t in zip(scores, target)]


def peak() -> float:
    """Highest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(case: str, metric: str, images: int, batch_size: int) -> str:
    """Evaluate made samples; seconds of the metric alone, of its processor time, and GiB."""
    num_classes, num_known = CASES[case]
    rng = torch.Generator().manual_seed(0)
    # A few batches in turn, so that making them is no part of it.
    made = [batch(num_classes, num_known, batch_size, rng) for _ in range(4)]
    evaluator = Evaluator(METRICS[metric]())
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    for number, first in enumerate(range(0, images, batch_size)):
        evaluator.process(made[number % 4][: images - first])
    processed = time.perf_counter() - start
    evaluator.evaluate(images)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return f'{processed:.1f} {seconds:.1f} {cpu:.1f} {before:.2f} {peak():.2f}'


def main(args: argparse.Namespace) -> None:
    if args.one:
        print('RESULT', measure(*args.one, args.images, args.batch_size))
        return
    table = Table(
        title=f'{args.images} images, batches of {args.batch_size}, {torch.get_num_threads()} '
        'thread(s); seconds, and resident memory at its highest in GiB'
    )
    for column in ('case', 'metric', 'samples in', 'whole', 'cpu time', 'at the start', 'peak'):
        table.add_column(column, justify='left' if column in ('case', 'metric') else 'right')
    for case in CASES:
        for metric in METRICS:
            # In a process of its own: memory at its highest is that of the process.
            command = [sys.executable, sys.argv[0], 'metrics', '--images', str(args.images)]
            command += ['--batch-size', str(args.batch_size), '--one', case, metric]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result = next(line for line in done.stdout.splitlines() if line.startswith('RESULT'))
            table.add_row(case, metric, *result.split()[1:])
    print_table(table)
