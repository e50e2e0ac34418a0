"""What a batch of stored features holds: features in the place of images, and their labels.

Both are told apart by their types alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .known_pairs import KnownPairs


class Features:
    """Features of a batch of images, which a classifier takes in the place of the images.

    A class of its own and no kind of sequence: torch and MMEngine take sequences apart, pin and
    move what is in them, and put together lists or tuples.

    Args:
        stages (Iterable[Tensor]): Maps ``(N, C, h, w)`` or vectors ``(N, C)``, one per stage;
            ``(N, 0)`` for stages that no head reads.
    """

    def __init__(self, stages: Iterable[Tensor]) -> None:
        self.stages = tuple(stages)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.stages)

    def __len__(self) -> int:
        """The number of stages."""
        return len(self.stages)

    def __getitem__(self, stage: int) -> Tensor:
        return self.stages[stage]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({[tuple(stage.shape) for stage in self.stages]})'

    def to(self, *args, **kwargs) -> 'Features':
        """Move or convert all stages; arguments are those of ``Tensor.to``."""
        return Features(stage.to(*args, **kwargs) for stage in self.stages)

    def pin_memory(self) -> 'Features':
        """Copy all stages to pinned memory; loaders call this."""
        return Features(stage.pin_memory() for stage in self.stages)


class DataSamples(Sequence):
    """The data samples of a batch, each made when it is asked for, and then kept with the batch.

    Args:
        rows (Sequence[int]): What ``make`` makes them of.
        make (Callable): Gives a data sample.
        targets (Tensor | KnownPairs, optional): The labels of the batch, ``(N, num_classes)``, as
            MMPretrain's multi-label heads put them together from ``gt_score`` or ``gt_label``: 1, 0
            and -1 (unknown) in int8, or float32 where there are soft ones. Defaults to None.
    """

    def __init__(
        self,
        rows: Sequence[int],
        make: Callable[[int], Any],
        targets: Tensor | KnownPairs | None = None,
    ) -> None:
        self.targets = targets
        self._rows = rows
        self._make = make
        self._made: dict[int, Any] = {}
        self._device: torch.device | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index not in self._made:
            sample = self._make(int(self._rows[index]))
            self._made[index] = sample if self._device is None else sample.to(self._device)
        return self._made[index]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> 'DataSamples':
        """Move targets and data samples, those that are still to be made too; changed in place."""
        device = torch.device(device)
        if device.type != 'cpu' or self._device is not None:
            self._device = device
            self._made = {i: sample.to(device) for i, sample in self._made.items()}
        if self.targets is not None:
            self.targets = self.targets.to(device, non_blocking=non_blocking)
        return self

    def pin_memory(self) -> 'DataSamples':
        """Copy the targets to pinned memory."""
        if self.targets is not None:
            self.targets = self.targets.pin_memory()
        return self
