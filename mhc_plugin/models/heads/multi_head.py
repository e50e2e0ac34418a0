"""MultiFC: for every class a pool and a fully connected layer."""

from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mhc_plugin.functional.checks import check_ints

from ..layers import FusedLinear, GlobalPool, resize_to_largest, side_by_side
from .base import BaseMultiHeadClsHead
from .split_head import SplitHead


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
        pool, lse_r, normalize, connection, head_stages, head_groups, dropout, separate, loss, thr,
            topk, init_cfg: See :class:`BaseMultiHeadClsHead`.

    Raises:
        ValueError: If an argument does not fit.

    Examples:
        >>> head = MultiHeadClsHead(num_classes=10, in_channels=1280)
        >>> head((torch.rand(2, 1280, 7, 7), )).shape
        torch.Size([2, 10])
    """

    spatial = False

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        hidden_channels: Sequence[int] = (),
        pool: str = 'avg',
        lse_r: float = 10.0,
        normalize: str | None = None,
        connection: str = 'all',
        head_stages: Sequence | None = None,
        head_groups: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.0,
        separate: bool = False,
        loss: dict = dict(type='PerHeadBCELoss'),
        thr: float | None = None,
        topk: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            in_channels,
            pool,
            lse_r,
            normalize,
            connection,
            head_stages,
            head_groups,
            dropout,
            separate,
            loss,
            thr,
            topk,
            init_cfg,
        )
        check_ints('hidden_channels', hidden_channels)
        self.hidden_channels = tuple(hidden_channels)
        channels, total = self.feeds.concatenated(), sum(self.feeds.channels)
        self.hidden = nn.ModuleList()
        for width in hidden_channels:
            layer = FusedLinear(channels, total, [width] * self.num_heads)
            channels, total = layer.out_channels, self.num_heads * width
            self.hidden.append(layer)
        # On features of a backbone as MMPretrain's linear heads.
        std = None if hidden_channels else 0.01
        self.fc = FusedLinear(channels, total, self.group_sizes, std=std)

    @property
    def complete(self) -> bool:
        """Hidden layers have biases of their own, which no position accounts for."""
        return super().complete and not self.hidden

    @property
    def block_size(self) -> int:
        """A product with fewer columns than this is slower."""
        return 1 if self.hidden else 16

    def shared_inputs(self, feats: list[Tensor]) -> list[Tensor]:
        feats = [self.global_pool(x) for x in feats]
        if self.hidden or not self.dropout:
            return feats
        return [self.drop_shared(x, [i]) for i, x in enumerate(feats)]

    def score(self, feats: list[Tensor], with_maps: bool = False) -> tuple[Tensor, Tensor | None]:
        x = side_by_side([self.global_pool(x) for x in feats])
        active = []
        for layer in self.hidden:
            x = layer(x).relu()
            active.append(x > 0)
        if self.training and self.hidden:
            x = self.drop(x)
        logits = self.fc(x)
        if not with_maps:
            return logits, None
        contributions = side_by_side(
            resize_to_largest([self.global_pool.contributions(x) for x in feats])
        )
        if not self.hidden:
            return logits, self.fc.pointwise(contributions)
        # The derivative of every logit by its head's input, (N, num_heads, widest group, K).
        gradient = self.fc.weight
        for layer, is_active in zip(reversed(self.hidden), reversed(active)):
            is_active = is_active.unflatten(1, (self.num_heads, 1, -1))
            gradient = (gradient * is_active) @ layer.weight
        first = self.hidden[0]
        inputs = first.gather(contributions).flatten(2)
        if first.shared:
            maps = gradient.flatten(1, 2) @ inputs
        else:
            maps = gradient @ inputs.unflatten(1, (self.num_heads, -1))
        # `len()` of a tensor would close the batch of an export.
        return logits, maps.reshape(inputs.shape[0], -1, *contributions.shape[2:])

    def head_view(self, head: int) -> SplitHead:
        feeds = self.feeds.heads[head]
        hidden = [m for layer in self.hidden for m in (layer.head_view(head), nn.ReLU())]
        return SplitHead(
            feeds,
            self.normalize,
            [nn.Identity() for _ in feeds],
            GlobalPool(self.pool, self.lse_r),
            nn.Sequential(*hidden, nn.Dropout(self.dropout), self.fc.head_view(head)),
        )
