from io import StringIO

import numpy as np
from rich.console import Console

from mhc_plugin.datasets.label_table import LabelTable
from mhc_plugin.datasets.subset import count_images, print_counts

LABELS = np.array([[1, 0, -1], [1, 1, 1], [0, -1, 0], [1, 0, 0]], np.int8)


def test_counts_are_those_of_the_matrix():
    counts = count_images(LabelTable.from_dense(LABELS, 0))
    assert counts.images == 4
    assert counts.present.tolist() == [3, 1, 1]
    assert counts.absent.tolist() == [1, 2, 2]
    assert counts.unknown.tolist() == [0, 1, 1]
    assert counts.images_by_labels.tolist() == [1, 2, 0, 1]
    assert counts.to_dict('abc') == dict(
        images=4,
        images_by_labels=[1, 2, 0, 1],
        classes=dict(
            a=dict(present=3, absent=1, unknown=0),
            b=dict(present=1, absent=2, unknown=1),
            c=dict(present=1, absent=2, unknown=1),
        ),
    )


def test_tables_show_before_and_after():
    table = LabelTable.from_dense(LABELS, 0)
    stream = StringIO()
    print_counts(
        count_images(table),
        count_images(table.take(np.array([0, 3]))),
        'abc',
        'test',
        Console(file=stream, width=120),
    )
    rows = [
        [cell.strip() for cell in line.strip('│').split('│')]
        for line in stream.getvalue().splitlines()
        if line.startswith('│')
    ]
    assert rows == [
        ['a', '3', '1', '0', '2', '0', '0'],
        ['b', '1', '2', '1', '0', '2', '0'],
        ['c', '1', '2', '1', '0', '1', '1'],
        ['0', '1', '0'],
        ['1', '2', '2'],
        ['2', '0', '0'],
        ['3', '1', '0'],
        ['all', '4', '2'],
    ]
    assert 'test images per class' in stream.getvalue()
