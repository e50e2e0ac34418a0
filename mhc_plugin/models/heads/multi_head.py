"""MultiFC: for every class a pool and a fully connected layer."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..layers import FusedLinear, PerHeadGather
from .base import BaseMultiHeadClsHead, concatenate
from .split import SplitHead


@MODELS.register_module()
class MultiHeadClsHead(BaseMultiHeadClsHead):
    """One pool and one fully connected layer, or a small MLP, for every class ("MultiFC").

    The multi-head classifier without convolutions of Tong et al., "Class-Level Feature
    Disentanglement for Multi-Label Image Classification", Future Internet 2025, 17, 486. With
    ``connection='all'``, average pooling and no hidden layers it is, as a function, one linear
    layer with ``num_classes`` outputs.

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the last feature, or of every feature.
        hidden_channels (Sequence[int]): Widths of hidden layers, each followed by ReLU. Defaults
            to none.
        **kwargs: See :class:`BaseMultiHeadClsHead`: ``pool``, ``lse_r``, ``connection``,
            ``head_stages``, ``head_groups``, ``dropout``, ``loss``, ``thr``, ``topk``,
            ``init_cfg``.

    Raises:
        ValueError: If an argument does not fit.

    Examples:
        >>> head = MultiHeadClsHead(num_classes=10, in_channels=1280)
        >>> head((torch.rand(2, 1280, 7, 7), )).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        hidden_channels: Sequence[int] = (),
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        hidden_channels = tuple(hidden_channels)
        if any(not isinstance(c, int) or c < 1 for c in hidden_channels):
            raise ValueError(
                'Expected argument `hidden_channels` to be ints of at least 1, but '
                f'got {hidden_channels}.'
            )
        channels = self.feeds.channels
        offsets = dict(zip(self.feeds.stages, accumulate(channels, initial=0)))
        self.gather = PerHeadGather(
            [
                [offsets[stage] + c for stage, part in feeds for c in part]
                for feeds in self.feeds.heads
            ],
            sum(channels),
        )
        widths = [self.gather.sizes, *((c,) * self.num_heads for c in hidden_channels)]
        self.hidden = nn.ModuleList(
            FusedLinear(a, b, shared_input=i == 0 and self.gather.shared)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.fc = FusedLinear(
            widths[-1],
            [len(group) for group in self.head_groups],
            shared_input=self.gather.shared and not hidden_channels,
            # On features of a backbone as MMPretrain's linear heads.
            std=None if hidden_channels else 0.01,
        )

    def classify(self, inputs: Tensor) -> Tensor:
        for layer in self.hidden:
            inputs = layer(inputs).relu()
        return super().classify(inputs)

    def spread_logits(self, maps: list[Tensor], contributions: Tensor) -> Tensor:
        if not self.hidden:
            return super().spread_logits(maps, contributions)
        gradient = self._gradient(concatenate([self.global_pool(x) for x in maps]))
        gathered = self.gather(contributions).flatten(2)
        if self.gather.shared:
            spread = gradient.flatten(1, 2) @ gathered
        else:
            spread = gradient @ gathered.unflatten(1, (self.num_heads, -1))
        # `len()` of a tensor would close the batch of an export.
        return spread.reshape(gathered.shape[0], -1, *contributions.shape[2:])

    def _gradient(self, pooled: Tensor) -> Tensor:
        """Derivative of every logit by its head's input, ``(N, num_heads, widest group, K)``."""
        inputs, active = self.gather_pooled(pooled), []
        for layer in self.hidden:
            inputs = layer(inputs).relu()
            active.append((inputs > 0).unsqueeze(2))
        gradient = self.fc.weight
        for layer, is_active in zip(reversed(self.hidden), reversed(active)):
            gradient = (gradient * is_active) @ layer.weight
        return gradient

    def _split_fc(self, head: int) -> nn.Sequential:
        hidden = [m for layer in self.hidden for m in (layer.split(head), nn.ReLU())]
        return nn.Sequential(*hidden, *super()._split_fc(head))

    def _stack_head(self, index: int, head: SplitHead) -> None:
        super()._stack_head(index, head)
        for i, layer in enumerate(self.hidden):
            layer.load(index, head.fc[2 * i])
