"""What goes to logs and screens."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TypeVar

from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import track
from rich.table import Table

T = TypeVar('T')


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out how timm's stages and every parameter were built and initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Show a bar of progress on standard error, which goes away at the end."""
    return track(items, description, total, transient=True, console=Console(stderr=True))


def table_text(table: Table) -> str:
    """Text of a table without colours, as wide as it needs to be: nothing is cut off."""
    stream = StringIO()
    Console(file=stream, width=1000, color_system=None).print(table)
    lines = (line.rstrip() for line in stream.getvalue().splitlines())
    return ''.join(f'{line}\n' for line in lines if line)


def log_table(table: Table) -> None:
    """Write a table to MMEngine's log, console and file alike."""
    MMLogger.get_current_instance().info('\n' + table_text(table).rstrip())
