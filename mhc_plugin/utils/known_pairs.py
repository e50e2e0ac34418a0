"""Targets of which few are known."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class KnownPairs:
    """Targets ``(N, num_classes)``, of which only the known pairs of an image and a class are kept.

    All other targets are unknown, -1. A pair takes 3 bytes (7 with soft values) and an image 8,
    where the matrix takes a byte (4) for each image and class. Images are chosen, moved and pinned
    as rows of the matrix are.

    Args:
        offsets (Tensor): int64 ``(N + 1,)``; image i has the pairs ``offsets[i]:offsets[i + 1]``.
        classes (Tensor): Integers ``(pairs,)``.
        values (Tensor): 1, 0 or soft values in [0, 1], ``(pairs,)``.
        num_classes (int): Number of classes.
    """

    def __init__(self, offsets: Tensor, classes: Tensor, values: Tensor, num_classes: int) -> None:
        self.offsets = offsets
        self.classes = classes
        self.values = values
        self.num_classes = num_classes

    @classmethod
    def from_dense(cls, targets: Tensor) -> 'KnownPairs':
        """The known pairs of a matrix ``(N, num_classes)``, unknown being -1."""
        known = targets != -1
        num_classes = targets.shape[1]
        return cls(
            F.pad(known.sum(1).cumsum(0), (1, 0)),
            known.nonzero()[:, 1].to(torch.int16 if num_classes <= 1 << 15 else torch.int32),
            targets[known],
            num_classes,
        )

    @classmethod
    def cat(cls, parts: Sequence['KnownPairs']) -> 'KnownPairs':
        """Images of several parts, one part after the other."""
        lengths = torch.cat([part.offsets.diff() for part in parts])
        return cls(
            F.pad(lengths.cumsum(0), (1, 0)),
            torch.cat([part.classes for part in parts]),
            torch.cat([part.values for part in parts]),
            parts[0].num_classes,
        )

    @property
    def shape(self) -> torch.Size:
        """That of the matrix, ``(N, num_classes)``."""
        return torch.Size((len(self), self.num_classes))

    @property
    def images(self) -> Tensor:
        """The image of every pair, int64 ``(pairs,)``, ascending."""
        numbers = torch.arange(len(self), device=self.offsets.device)
        return numbers.repeat_interleave(self.offsets.diff(), output_size=len(self.classes))

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(part.numel() * part.element_size() for part in self._tensors())

    def dense(self) -> Tensor:
        """The matrix ``(N, num_classes)``, in the dtype of the values."""
        matrix = self.values.new_full(self.shape, -1)
        matrix[self.images, self.classes.long()] = self.values
        return matrix

    def to(self, device: torch.device | str, non_blocking: bool = False) -> 'KnownPairs':
        """The same on a device."""
        moved = (part.to(device, non_blocking=non_blocking) for part in self._tensors())
        return KnownPairs(*moved, self.num_classes)

    def pin_memory(self) -> 'KnownPairs':
        """The same in pinned memory."""
        return KnownPairs(*(part.pin_memory() for part in self._tensors()), self.num_classes)

    @property
    def device(self) -> torch.device:
        return self.values.device

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def index_select(self, dim: int, images: Tensor) -> 'KnownPairs':
        """The chosen images, int64 ``(n,)``, in their order; ``dim`` is 0."""
        starts = self.offsets[images]
        lengths = self.offsets[images + 1] - starts
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        pairs = torch.arange(int(offsets[-1]), device=self.device)
        pairs += (starts - offsets[:-1]).repeat_interleave(lengths, output_size=len(pairs))
        return KnownPairs(offsets, self.classes[pairs], self.values[pairs], self.num_classes)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.offsets, self.classes, self.values
