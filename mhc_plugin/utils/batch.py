"""What a batch holds in the place of images: features, told apart by their type alone."""

from collections.abc import Iterable, Iterator

from torch import Tensor


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
