"""Rows per second and added memory of reading an OpenImages file of image-level labels.

The file is made for it, as OpenImages' are: sorted by image, 16 hexadecimal digits an image, 601
classes, six rows an image in the mean. It is read once for ten classes and once for all.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.table import Table

from mhc_plugin.datasets.openimages.annotations import OpenImagesFiles, read_annotations

from .timing import print_table

NUM_CLASSES = 601
ROWS_PER_IMAGE = 5.74
_READ = '--read'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--rows', type=int, default=10_000_000, help='rows of the file')
    parser.add_argument('--repeats', type=int, default=3, help='times to read it')
    parser.add_argument('--folder', help='where to make it; it is removed at the end')


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / 'labels.csv'
        write_labels(path, args.rows)
        size = path.stat().st_size / 2**20
        table = Table('classes', title=f'{args.rows:,} rows, {size:,.0f} MiB')
        for column in ('images', 'labels kept', 's (median)', 'rows/s', 'added memory, peak (MiB)'):
            table.add_column(column, justify='right')
        for num_classes in (10, NUM_CLASSES):
            runs = [read_in_new_process(path, num_classes) for _ in range(args.repeats)]
            images, labels = runs[0][:2]
            seconds = statistics.median(run[2] for run in runs)
            table.add_row(
                str(num_classes),
                f'{images:,.0f}',
                f'{labels:,.0f}',
                f'{seconds:.1f}',
                f'{args.rows / seconds:,.0f}',
                f'{max(run[3] for run in runs):.0f}',
            )
        print_table(table)


def write_labels(path: Path, rows: int) -> None:
    """Write the file, a part at a time."""
    rng = np.random.RandomState(0)
    images = np.sort(rng.randint(0, 2**63, max(1, int(rows / ROWS_PER_IMAGE)), np.int64))
    image_of = np.sort(rng.randint(0, len(images), rows))
    with path.open('w', encoding='utf-8') as file:
        file.write('ImageID,Source,LabelName,Confidence\n')
        for start in range(0, rows, 1 << 17):
            part = images[image_of[start : start + (1 << 17)]].tolist()
            classes = rng.randint(0, NUM_CLASSES, len(part)).tolist()
            values = rng.randint(0, 2, len(part)).tolist()
            file.writelines(
                f'{image:016x},verification,/m/{c:06x},{value}\n'
                for image, c, value in zip(part, classes, values)
            )


def read_in_new_process(path: Path, num_classes: int) -> list[float]:
    """Images, labels, seconds and MiB of one reading, which starts from the same memory."""
    output = subprocess.run(
        [sys.executable, '-m', __name__, _READ, str(path.resolve()), str(num_classes)],
        # The folder from which this module's package is imported.
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [float(number) for number in output.split()[-4:]]


def read(path: Path, num_classes: int) -> None:
    """Read the file and print what :func:`read_in_new_process` gives."""
    mids = [f'/m/{c:06x}' for c in range(num_classes)]
    before = memory('VmRSS')
    # Forget the peak of importing.
    Path('/proc/self/clear_refs').write_text('5')
    start = time.perf_counter()
    annotations = read_annotations(OpenImagesFiles(path, path, None), mids)
    seconds = time.perf_counter() - start
    print(len(annotations.ids), len(annotations.labels.values), seconds, memory('VmHWM') - before)


def memory(field: str) -> float:
    """A figure of Linux on this process, in MiB."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f'/proc/self/status has no {field}.')


if __name__ == '__main__' and sys.argv[1:2] == [_READ]:
    read(Path(sys.argv[2]), int(sys.argv[3]))
