"""Predictions as a table, as JSON and as CSV."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

FORMATS = ('.json', '.csv')


def predictions_table(results: Sequence[dict]) -> Table:
    """Make a table of images and their labels with scores, for a console of ``rich``.

    Args:
        results (Sequence[dict]): What :class:`MultiLabelInferencer` returns.
    """
    table = Table('image', 'labels', box=SIMPLE_HEAD)
    for result in results:
        if 'error' in result:
            table.add_row(Text(_name(result)), Text(f'not read: {result["error"]}', style='red'))
            continue
        labels = ', '.join(
            f'{name} {result["pred_scores"][label]:.2f}'
            for name, label in zip(result['pred_class'], result['pred_label'])
        )
        table.add_row(Text(_name(result)), Text(labels or '(none)'))
    return table


def check_format(path: str | os.PathLike) -> None:
    """Raise ValueError if predictions cannot be written to a file of this name."""
    if Path(path).suffix not in FORMATS:
        raise ValueError(
            f'Expected argument `out` to end in one of {FORMATS}, but got {os.fspath(path)!r}.'
        )


def write_predictions(
    results: Sequence[dict], path: str | os.PathLike, classes: Sequence[str]
) -> None:
    """Write predictions to a file.

    JSON is a list of objects with ``file``, ``labels`` (names, best first) and ``scores`` (by
    name), or ``file`` and ``error``. CSV has the columns ``file`` and ``labels`` (names with ``|``
    between them, as ``CSVMultiLabelDataset`` reads them), ``error``, and one of scores per class.

    Args:
        results (Sequence[dict]): What :class:`MultiLabelInferencer` returns.
        path (str | PathLike): A file that ends in ``.json`` or ``.csv``.
        classes (Sequence[str]): Names of the classes.

    Raises:
        ValueError: If the file has another ending.
    """
    check_format(path)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [_plain(result, classes) for result in results]
    with path.open('w', encoding='utf-8', newline='') as file:
        if path.suffix == '.json':
            json.dump(rows, file, indent=1, ensure_ascii=False)
            return
        writer = csv.writer(file)
        writer.writerow(['file', 'labels', 'error', *classes])
        for row in rows:
            scores = row.get('scores', {})
            writer.writerow(
                [
                    row['file'],
                    '|'.join(row.get('labels', [])),
                    row.get('error', ''),
                    *(scores.get(name, '') for name in classes),
                ]
            )


def _name(result: dict) -> str:
    return result['img_path'] or '(array)'


def _plain(result: dict, classes: Sequence[str]) -> dict:
    row = dict(file=result['img_path'])
    if 'error' in result:
        return dict(row, error=result['error'])
    scores = {name: round(float(s), 6) for name, s in zip(classes, result['pred_scores'])}
    return dict(row, labels=result['pred_class'], scores=scores)
