"""The paper's tables, and what they say about themselves by computation alone.

Tong, Lu, Dong and Lu, "Class-Level Feature Disentanglement for Multi-Label Image Classification",
Future Internet 2025, 17(11), 486, doi:10.3390/fi17110486. All figures of its Tables 1 to 7 are in
``paper.json``, in percent.
"""

import csv
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUM_CLASSES = 10
# Of an image that the paper's subsets of VOC and OpenImages may hold.
MIN_LABELS, MAX_LABELS = 2, 7


def paper_tables() -> dict[str, list[dict]]:
    """Tables 1 to 7 as ``'table1'`` to ``'table7'``: a dict of settings and figures per row."""
    path = Path(__file__).with_name('paper.json')
    return json.loads(path.read_text(encoding='utf-8'))['tables']


def constant_rows(rows: Sequence[dict]) -> list[dict]:
    """Rows whose macro recall is k / 10 to the last digit, with k the number of predicted classes.

    A prediction that is the same k classes for every image has a recall of 100 for these and of 0
    for the others; a prediction that depends on the image meets the figure by chance alone.

    Args:
        rows (Sequence[dict]): Rows of Table 3 or 4.
    """
    return [row for row in rows if row['recall'] == 100 * row['topk'] / NUM_CLASSES]


def repeated_rows(rows: Sequence[dict], keys: Sequence[str]) -> list[dict]:
    """Rows that agree with another row in all of these figures, to the last digit."""
    figures = [tuple(row[key] for key in keys) for row in rows]
    return [row for row, own in zip(rows, figures) if figures.count(own) > 1]


def rows_off_100(rows: Sequence[dict], tolerance: float = 0.1) -> list[dict]:
    """Rows whose label-wise accuracy and Hamming distance, which add to 100, miss it by more.

    Args:
        rows (Sequence[dict]): Rows of any table.
        tolerance (float): In points. Defaults to 0.1.
    """
    # Figures have two digits, sums of them no more.
    return [
        row
        for row in rows
        if round(abs(row['accuracy'] + row['hamming_loss'] - 100), 2) > tolerance
    ]


def labels_of_a_constant_row(row: dict) -> tuple[float, float]:
    """Labels per image, and the share of images of the predicted classes, summed over these.

    With the same k of N classes predicted for all images, macro precision is the sum of the
    predicted classes' shares p over N, and label-wise accuracy is ``(N - k - L + 2 sum p) / N``,
    where L is the number of labels per image.

    Args:
        row (dict): One of :func:`constant_rows`.
    """
    share = row['precision'] / 100 * NUM_CLASSES
    labels = NUM_CLASSES - row['topk'] + 2 * share - row['accuracy'] / 100 * NUM_CLASSES
    return labels, share


@dataclass(frozen=True)
class Choices:
    """Every choice of ten of the classes, and the images that it leaves with 2 to 7 labels.

    Attributes:
        classes (tuple[str, ...]): All classes, K of them.
        chosen (np.ndarray): Which classes each choice holds, bool ``(choices, K)``.
        num_images (np.ndarray): Images with 2 to 7 of the chosen classes, ``(choices,)``.
        labels (np.ndarray): Chosen labels per such image, ``(choices,)``.
        shares (np.ndarray): Share of such images that have a class; 0 where it was not chosen,
            ``(choices, K)``.
    """

    classes: tuple[str, ...]
    chosen: np.ndarray
    num_images: np.ndarray
    labels: np.ndarray
    shares: np.ndarray

    def fitting(self, labels: float, share: float, tolerance: float = 0.003) -> np.ndarray:
        """Indices of the choices with so many labels an image and a class of such a share."""
        near = np.abs(self.labels - labels) <= tolerance
        return np.flatnonzero(near & (np.abs(self.shares - share) <= tolerance).any(1))


def read_voc_labels(
    paths: Sequence[str | os.PathLike], difficult: bool
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read label files with VOC's codes: 1 present, 0 only as a difficult object, -1 absent.

    Args:
        paths (Sequence[str | PathLike]): CSV files: a column of images, then one per class.
        difficult (bool): Whether an object that is only there as a difficult one is present.

    Returns:
        tuple: The classes, and which are present, bool ``(images, classes)``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files do not name the same classes.
    """
    classes, rows = None, []
    for path in paths:
        with open(path, newline='', encoding='utf-8') as file:
            reader = csv.reader(file)
            header = tuple(next(reader)[1:])
            if classes not in (None, header):
                raise ValueError(
                    f'Expected {path} to have the classes {classes}, but got {header}.'
                )
            classes = header
            rows += [[int(code) for code in row[1:]] for row in reader]
    return classes, np.array(rows) >= (0 if difficult else 1)


def count_choices(classes: Sequence[str], present: np.ndarray) -> Choices:
    """Count what every choice of ten classes leaves; seconds and 100 MB for twenty classes.

    Args:
        classes (Sequence[str]): The classes, K of them, at most 24.
        present (np.ndarray): Which of them an image has, bool ``(images, K)``.

    Raises:
        ValueError: If there are fewer than ten classes, or more than 24.
    """
    k = len(classes)
    if not NUM_CLASSES <= k <= 24:
        raise ValueError(f'Expected 10 to 24 classes to choose from, but got {k}.')
    bits = 1 << np.arange(k, dtype=np.int32)
    choices = np.array(
        [sum(c) for c in itertools.combinations(bits.tolist(), NUM_CLASSES)], dtype=np.int32
    )
    size = np.zeros(1 << k, dtype=np.uint8)  # how many classes a set holds
    for bit in bits.tolist():
        size[bit : 2 * bit] = size[:bit] + 1
    # Most images share their labels with many others.
    patterns, counts = np.unique(present @ bits, return_counts=True)
    num_images, labels = np.zeros(len(choices), np.int32), np.zeros(len(choices), np.int32)
    per_class = np.zeros((k, len(choices)), np.int32)
    for pattern, count in zip(patterns.astype(np.int32), counts):
        found = size[choices & pattern]
        kept = np.where((found >= MIN_LABELS) & (found <= MAX_LABELS), count, 0).astype(np.int32)
        num_images += kept
        labels += kept * found
        for c in np.flatnonzero(pattern & bits):
            per_class[c] += kept
    chosen = choices[:, None] & bits > 0
    images = np.maximum(num_images, 1)
    shares = np.where(chosen, per_class.T / images[:, None], 0)
    return Choices(tuple(classes), chosen, num_images, labels / images, shares)


def ablation_topk(dataset: str, model: str) -> int:
    """Which k the rows of a data set and model have in Tables 5 to 7, which do not say it.

    At the setting that the other tables use, each is a row of Tables 1 to 4 on SE-ResNet50 to the
    last digit, whose k is printed.

    Args:
        dataset (str): ``'combined0'``, ``'combined1'``, ``'voc'`` or ``'openimages'``.
        model (str): ``'Baseline'`` or ``'MultiFC'``.
    """
    tables, keys = paper_tables(), ('accuracy', 'precision', 'hamming_loss')
    number = ('combined0', 'combined1', 'voc', 'openimages').index(dataset) + 1
    (own,) = (
        row
        for row in tables['table5']
        if (row['dataset'], row['model'], row['learning_rate']) == (dataset, model, 0.01)
    )
    (k,) = (
        row['topk']
        for row in tables[f'table{number}']
        if (row['backbone'], row['model']) == ('seresnet50', model)
        and all(row[key] == own[key] for key in keys)
    )
    return k


def findings() -> list[tuple[str, list[dict], int]]:
    """What the tables say about themselves: a title, the rows that it holds for, of how many."""
    tables = paper_tables()
    spliced = [dict(table=number, **row) for number in (1, 2) for row in tables[f'table{number}']]
    real = [dict(table=number, **row) for number in (3, 4) for row in tables[f'table{number}']]
    every = [
        dict(table=number, accuracy=row['accuracy'], hamming_loss=row['hamming_loss'])
        for number in range(1, 8)
        for row in tables[f'table{number}']
    ]
    return [
        (
            'The same classes predicted for every image (Tables 3 and 4)',
            constant_rows(real),
            len(real),
        ),
        (
            'Accuracy and precision of another row (Tables 1 and 2)',
            repeated_rows(spliced, ('table', 'accuracy', 'precision')),
            len(spliced),
        ),
        (
            'Another k than that of the baseline beside it (Tables 5 to 7)',
            [
                dict(table=number, **row)
                for number in (5, 6, 7)
                for row in tables[f'table{number}']
                if ablation_topk(row['dataset'], row['model'])
                != ablation_topk(row['dataset'], 'Baseline')
            ],
            72,
        ),
        (
            'Accuracy and Hamming loss miss 100 by more than 0.1 (all tables)',
            rows_off_100(every),
            len(every),
        ),
    ]
