"""One head as ordinary layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import normalize_maps


class SplitHead(nn.Module):
    """One head that pools, as ordinary layers: the definition that the fused heads are held to.

    Args:
        inputs (Sequence[tuple[int, range]]): The (stage, channels) pairs it reads.
        normalize (str, optional): How their maps are normalised.
        convs (Sequence[nn.Module]): Its convolutions for each of them, before the pool.
        pool (nn.Module): From ``(N, C, h, w)`` to ``(N, C)``.
        fc (nn.Sequential): From the pooled, concatenated features to its logits.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, range]],
        normalize: str | None,
        convs: Sequence[nn.Module],
        pool: nn.Module,
        fc: nn.Sequential,
    ) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.normalize = normalize
        self.convs = nn.ModuleList(convs)
        self.pool = pool
        self.fc = fc

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Give the logits ``(N, len(group))`` for a tuple of features."""
        pooled = []
        for (stage, channels), conv in zip(self.inputs, self.convs):
            x = feats[stage]
            x = x if x.dim() == 2 else normalize_maps(x, self.normalize)
            pooled.append(self.pool(conv(x[:, channels.start : channels.stop])))
        return self.fc(torch.cat(pooled, 1))
