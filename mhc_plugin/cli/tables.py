"""Metrics as tables of text."""

from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_CLASSWISE = '_classwise'


def metrics_table(metrics: dict[str, Any], classes: Sequence[str] | None = None) -> str:
    """Write metrics as a table of scores and, where lists are among them, one of classes.

    Args:
        metrics (dict[str, Any]): What an evaluator gave. A list whose name ends in ``_classwise``
            is a column of the second table.
        classes (Sequence[str], optional): Names of the classes. Defaults to None, which means
            their indices.

    Returns:
        str: The tables, without colours.
    """
    scores = Table('metric', box=SIMPLE_HEAD)
    scores.add_column('value', justify='right')
    columns = {}
    for name, value in metrics.items():
        if name.endswith(_CLASSWISE):
            columns[name.removesuffix(_CLASSWISE)] = value
        elif isinstance(value, int | float):
            scores.add_row(name, _number(value))
    return _text(scores) + (_text(_class_table(columns, classes)) if columns else '')


def _class_table(columns: dict[str, Sequence], classes: Sequence[str] | None) -> Table:
    length = max(map(len, columns.values()))
    names = classes if classes is not None and len(classes) == length else range(length)
    # The prefix is the same everywhere, and there is little room.
    table = Table('class', box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.rpartition('/')[2], justify='right')
    for index, name in enumerate(names):
        cells = [values[index] if index < len(values) else '' for values in columns.values()]
        table.add_row(str(name), *map(_number, cells))
    return table


def _number(value: Any) -> str:
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def _text(table: Table) -> str:
    stream = StringIO()
    # A table takes the room that it needs, and nothing may be cut off.
    Console(file=stream, width=1000).print(table)
    lines = (line.rstrip() for line in stream.getvalue().splitlines())
    return ''.join(f'{line}\n' for line in lines if line)
