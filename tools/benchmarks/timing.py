"""Medians of calls that take turns, so that a busy moment of the machine meets all of them."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table

# The tables of this run.
SHOWN: list[Table] = []


def medians(calls: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict:
    """Time every call once per round.

    Args:
        calls (dict[str, Callable]): What to time.
        rounds (int): Number of timed rounds.
        warmup (int): Number of rounds before that. Defaults to 2.

    Returns:
        dict[str, float]: Median seconds of each call.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(warmup + rounds):
        for name, call in calls.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def print_table(table: Table) -> None:
    """Print a table as wide as it is, and keep it for the record of the run."""
    SHOWN.append(table)
    Console(width=200).print(table)


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text and the others figures."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify='right' if i else 'left')
    for row in rows:
        table.add_row(*row)
    print_table(table)
