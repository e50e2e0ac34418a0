"""What the processes of a run do one for all, or each its share."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size

T = TypeVar('T')
# Reading all images, or another run's work on the same features, can take hours; the processes that
# wait meanwhile are given up by NCCL after ten minutes, and by gloo after thirty.
PATIENCE = timedelta(days=1)


class Processes:
    """The processes of a run, one or many; made in all of them at once."""

    def __init__(self) -> None:
        self.rank, self.number = get_rank(), get_world_size()
        self._group = None if self.number == 1 else dist.new_group(backend='gloo', timeout=PATIENCE)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def from_main(self, compute: Callable[[], T]) -> T:
        """Let the main process compute something, and all have it, or its error."""
        outcome = [None, None]
        if self.is_main:
            outcome = _outcome(compute)
        broadcast_object_list(outcome, group=self._group)
        return _result(outcome)

    def all(self, is_so: bool) -> bool:
        """Whether something is so in all processes."""
        return all(all_gather_object(is_so, self._group))

    def each(self, work: Callable[[], T]) -> T:
        """Let every process do its work, and wait for all; an error of one is raised in all."""
        result, error = _outcome(work)
        for outcome in [[None, error], *all_gather_object([None, error], self._group)]:
            _result(outcome)
        return result


def _outcome(compute: Callable[[], T]) -> list:
    try:
        return [compute(), None]
    except Exception as error:
        return [None, error]


def _result(outcome: list) -> object:
    result, error = outcome
    if error is not None:
        raise error
    return result
