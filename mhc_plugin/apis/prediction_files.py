"""Predictions as lines of text, as JSON and as CSV, written as they come."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

FORMATS = ('.json', '.csv')
# What stands between the labels of an image in a CSV file.
SEPARATOR = '|'


def prediction_line(result: dict) -> str:
    """Write an image and its labels with scores, best first, or why it was not read.

    Args:
        result (dict): What :class:`MultiLabelInferencer` gives for an image.
    """
    name = result['img_path'] or '(array)'
    if 'error' in result:
        return f'{name}: not read: {result["error"]}'
    labels = (
        f'{label} {result["pred_scores"][index]:.2f}'
        for label, index in zip(result['pred_class'], result['pred_label'])
    )
    return f'{name}: {", ".join(labels) or "(none)"}'


def check_format(path: str | os.PathLike, classes: Sequence[str] = ()) -> None:
    """Raise ValueError if predictions of these classes cannot be written to a file of this name."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"Expected argument `out` to end in one of {FORMATS}, but got '{path}'.")
    bad = [name for name in classes if SEPARATOR in name]
    if path.suffix == '.csv' and bad:
        raise ValueError(
            f'Expected names of classes without `{SEPARATOR}`, which stands between the labels '
            f'in a CSV file, but got {bad[0]!r}. Write a .json file instead.'
        )


def write_predictions(
    results: Iterable[dict], path: str | os.PathLike, classes: Sequence[str]
) -> None:
    """Write predictions to a file, one after the other; it is there when all are in it.

    JSON is a list of objects with ``file``, ``labels`` (names, best first) and ``scores`` (by
    name), or ``file`` and ``error``. CSV has the columns ``file`` and ``labels`` (names with ``|``
    between them, as ``CSVMultiLabelDataset`` reads them), ``error``, and for every class
    ``score:<name>``.

    Args:
        results (Iterable[dict]): What :class:`MultiLabelInferencer` gives; an iterator is read
            once, and nothing of it is kept.
        path (str | PathLike): A file that ends in ``.json`` or ``.csv``.
        classes (Sequence[str]): Names of the classes.

    Raises:
        ValueError: If the file has another ending, or a class does not fit into a CSV file.
    """
    check_format(path, classes)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with unfinished.open('w', encoding='utf-8', newline='') as file:
            rows = (_plain(result, classes) for result in results)
            if path.suffix == '.json':
                file.writelines(_json_list(rows))
            else:
                csv.writer(file).writerows(_csv_rows(rows, classes))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _json_list(rows: Iterable[dict]) -> Iterator[str]:
    yield '['
    for index, row in enumerate(rows):
        yield (',\n' if index else '\n') + json.dumps(row, ensure_ascii=False)
    yield '\n]\n'


def _csv_rows(rows: Iterable[dict], classes: Sequence[str]) -> Iterator[list]:
    yield ['file', 'labels', 'error', *(f'score:{name}' for name in classes)]
    for row in rows:
        scores = row.get('scores', {})
        labels = SEPARATOR.join(row.get('labels', []))
        error = row.get('error', '')
        yield [row['file'], labels, error, *(scores.get(name, '') for name in classes)]


def _plain(result: dict, classes: Sequence[str]) -> dict:
    row = dict(file=result['img_path'])
    if 'error' in result:
        return dict(row, error=result['error'])
    scores = {name: round(float(s), 6) for name, s in zip(classes, result['pred_scores'])}
    return dict(row, labels=result['pred_class'], scores=scores)
