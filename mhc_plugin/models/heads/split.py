"""One head by itself: the definition that the fused heads are held to."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SplitHead(nn.Module):
    """One head as ordinary layers.

    Args:
        inputs (Sequence[tuple[int, range]]): The (stage, channels) pairs it reads.
        convs (Sequence[nn.Module]): Its convolutions for each of them, before the pool.
        pool (nn.Module): From ``(N, C, h, w)`` to ``(N, C)``.
        fc (nn.Sequential): From the pooled, concatenated features to its logits.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, range]],
        convs: Sequence[nn.Module],
        pool: nn.Module,
        fc: nn.Sequential,
    ) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.convs = nn.ModuleList(convs)
        self.pool = pool
        self.fc = fc

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Give the logits ``(N, len(group))`` for a tuple of features."""
        pooled = [
            self.pool(conv(feats[stage][:, channels.start : channels.stop]))
            for (stage, channels), conv in zip(self.inputs, self.convs)
        ]
        return self.fc(torch.cat(pooled, 1))
