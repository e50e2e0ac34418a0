"""Log lines on how far a long computation is."""

import time
from datetime import timedelta
from logging import Logger

INTERVAL = 10.0  # seconds


class Progress:
    """Counts images, and logs the count, the rate and the remaining time now and then.

    Args:
        logger (Logger): The logger.
        name (str): What is computed.
        total (int): Number of images, views counted each.
    """

    def __init__(self, logger: Logger, name: str, total: int) -> None:
        self.logger = logger
        self.name = name
        self.total = total
        self.done = 0
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        """Count images that are done."""
        self.done += count
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._last = now
            left = timedelta(seconds=round((self.total - self.done) / self.rate))
            self.logger.info(
                f'{self.name}: {self.done}/{self.total} images, '
                f'{self.rate:.1f} images/s, {left} left'
            )

    def finish(self) -> None:
        """Log the time it took."""
        took = timedelta(seconds=round(time.monotonic() - self._start))
        self.logger.info(f'{self.name}: {self.done} images in {took}, {self.rate:.1f} images/s')

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return self.done / max(time.monotonic() - self._start, 1e-9)
