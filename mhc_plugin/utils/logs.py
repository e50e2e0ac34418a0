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


class Screen:
    """What of a run's log reaches the screen; its log file gets all of it.

    Args:
        verbose (bool): Let all through, as MMEngine does. Otherwise nothing but warnings, until
            ``quiet`` is set to False.
    """

    # Of MMEngine about itself, once or every epoch; nobody who runs a tool can do anything about
    # them.
    LOG_FILE_ONLY = (
        '"FileClient" will be deprecated',
        '"HardDiskBackend" is the alias',
        'Exp name: ',
    )

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self.quiet = not verbose

    def shows(self, record: logging.LogRecord) -> bool:
        """Whether a record is for the screen."""
        if self.verbose:
            return True
        if record.getMessage().startswith(self.LOG_FILE_ONLY):
            return False
        return record.levelno >= logging.WARNING or not self.quiet

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Send MMEngine's loggers through this.

        Reason: ``Runner`` logs 350 lines of environment, config and hooks while it is built, before
        anything could set its logger otherwise. Can go when MMEngine logs them to the file only.
        """
        original = MMLogger.callHandlers

        def call_handlers(logger: MMLogger, record: logging.LogRecord) -> None:
            for handler in logger.handlers:
                to_file = isinstance(handler, logging.FileHandler)
                if record.levelno >= handler.level and (to_file or self.shows(record)):
                    handler.handle(record)

        MMLogger.callHandlers = call_handlers
        try:
            yield
        finally:
            MMLogger.callHandlers = original


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
