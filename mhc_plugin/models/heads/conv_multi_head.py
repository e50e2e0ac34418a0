"""MultiConv, light convolutions for every class, and ConvFC, the same for all classes at once."""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mhc_plugin.functional.checks import check_argument, check_int

from ..layers import NORMS, FusedConvStage, FusedLinear, GlobalPool, resize_to_largest, side_by_side
from .base import BaseMultiHeadClsHead
from .split_head import SplitHead


@MODELS.register_module()
class ConvMultiHeadClsHead(BaseMultiHeadClsHead):
    """Light convolutions, a pool and a fully connected layer for every class ("MultiConv").

    The multi-head classifier with convolutions of Tong et al., "Class-Level Feature
    Disentanglement for Multi-Label Image Classification", Future Internet 2025, 17, 486. Light
    means: a 1 x 1 convolution down to ``conv_channels``, norm, activation, then ``num_convs``
    convolutions of ``kernel_size`` inside those channels, each with norm and activation.

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the last feature, or of every feature.
        conv_channels (int, optional): Width of the convolutions. None drops the 1 x 1 reduction
            for convolutions at the width of the input. Defaults to 16.
        num_convs (int): Number of convolutions behind the reduction. Defaults to 1.
        kernel_size (int): Their size, odd. Defaults to 3.
        norm_cfg (dict, optional): Batch, instance or group norm (``num_groups`` of one head).
            Defaults to ``dict(type='BN')``.
        act_cfg (dict, optional): Activation without parameters. Defaults to
            ``dict(type='ReLU')``.
        pool, lse_r, normalize, connection, head_stages, head_groups, dropout, separate, loss, thr,
            topk, init_cfg: See :class:`BaseMultiHeadClsHead`.

    Raises:
        ValueError: If an argument does not fit, or at the first forward if features are pooled.

    Examples:
        >>> head = ConvMultiHeadClsHead(num_classes=10, in_channels=1280)
        >>> head((torch.rand(2, 1280, 7, 7), )).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        conv_channels: int | None = 16,
        num_convs: int = 1,
        kernel_size: int = 3,
        norm_cfg: dict | None = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
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
        check_conv_arguments(conv_channels, num_convs, kernel_size, norm_cfg, act_cfg)
        self.conv_channels = conv_channels
        self.num_convs = num_convs
        self.kernel_size = kernel_size
        self.norm_cfg = norm_cfg
        self.act_cfg = act_cfg
        self.convs = nn.ModuleList()
        # Where the outputs of every head lie where those of all stages lie side by side, and for
        # every head which stage's convolutions are its own, and the how manieth of that stage.
        channels: list[list[int]] = [[] for _ in range(self.num_heads)]
        self.places: list[list[tuple[int, int]]] = [[] for _ in range(self.num_heads)]
        total = 0
        for position, (stage, width) in enumerate(zip(self.stages, self.feeds.channels)):
            readers = self.feeds.readers(stage)
            convs = FusedConvStage(
                list(readers.values()),
                width,
                conv_channels,
                num_convs,
                kernel_size,
                norm_cfg,
                act_cfg,
            )
            for place, (head, own) in enumerate(zip(readers, convs.out_channels)):
                self.places[head].append((position, place))
                channels[head] += range(total + own.start, total + own.stop)
            total += convs.num_channels
            self.convs.append(convs)
        self.fc = FusedLinear(channels, total, self.group_sizes)

    per_stage = ('convs',)

    @property
    def block_size(self) -> int:
        """Two share a read of the maps, where what is computed does not depend on the place."""
        whole_vectors = self.conv_channels is not None and self.conv_channels % 16 == 0
        exact = (self.act_cfg or {}).get('type') in (None, 'ReLU', 'LeakyReLU')
        head_by_head = self.dropout == 0 or self.connection != 'stages'
        return 2 if whole_vectors and exact and self.pool != 'lse' and head_by_head else 1

    def shared_inputs(self, feats: list[Tensor]) -> list[Tensor]:
        # Here, and not in every block; by a transposed copy, which is faster.
        return [
            x
            if x.is_cuda
            else x.flatten(2).mT.contiguous().unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
            for x in feats
        ]

    def score(self, feats: list[Tensor], with_maps: bool = False) -> tuple[Tensor, Tensor | None]:
        maps = [convs(x) for convs, x in zip(self.convs, feats)]
        x = torch.cat([self.global_pool(x) for x in maps], 1)
        logits = self.fc(self.drop(x) if self.training else x)
        if not with_maps:
            return logits, None
        contributions = resize_to_largest([self.global_pool.contributions(x) for x in maps])
        return logits, self.fc.pointwise(side_by_side(contributions))

    def head_view(self, head: int) -> SplitHead:
        return SplitHead(
            self.feeds.heads[head],
            self.normalize,
            [self.convs[position].head_view(place) for position, place in self.places[head]],
            GlobalPool(self.pool, self.lse_r),
            nn.Sequential(nn.Dropout(self.dropout), self.fc.head_view(head)),
        )


@MODELS.register_module()
class ConvClsHead(ConvMultiHeadClsHead):
    """The same light convolutions once, for all classes together ("ConvFC", the control).

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the last feature, or of every feature.
        conv_channels, num_convs, kernel_size, norm_cfg, act_cfg: See
            :class:`ConvMultiHeadClsHead`.
        pool, lse_r, normalize, connection, head_stages, dropout, loss, thr, topk, init_cfg: See
            :class:`BaseMultiHeadClsHead`. With ``connection='channels'`` the slice is the whole;
            ``head_stages`` has one entry. There are no ``head_groups``.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        conv_channels: int | None = 16,
        num_convs: int = 1,
        kernel_size: int = 3,
        norm_cfg: dict | None = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        pool: str = 'avg',
        lse_r: float = 10.0,
        normalize: str | None = None,
        connection: str = 'all',
        head_stages: Sequence | None = None,
        dropout: float = 0.0,
        loss: dict = dict(type='PerHeadBCELoss'),
        thr: float | None = None,
        topk: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            in_channels,
            conv_channels,
            num_convs,
            kernel_size,
            norm_cfg,
            act_cfg,
            pool,
            lse_r,
            normalize,
            connection,
            head_stages,
            [list(range(num_classes))],
            dropout,
            False,
            loss,
            thr,
            topk,
            init_cfg,
        )


def check_conv_arguments(
    conv_channels: int | None,
    num_convs: int,
    kernel_size: int,
    norm_cfg: dict | None,
    act_cfg: dict | None,
) -> None:
    """Raise ValueError for the first argument that does not fit."""
    if conv_channels is not None:
        check_int('conv_channels', conv_channels)
    check_int('num_convs', num_convs, 1 if conv_channels is None else 0)
    check_int('kernel_size', kernel_size)
    check_argument(kernel_size % 2 == 1, 'kernel_size', 'to be odd', kernel_size)
    check_argument(
        act_cfg is None or next(build_activation_layer(act_cfg).parameters(), None) is None,
        'act_cfg',
        'to be an activation without parameters, which heads would share',
        act_cfg,
    )
    if norm_cfg is None:
        return
    check_argument(
        norm_cfg.get('type') in NORMS,
        'norm_cfg',
        f'to have a type of {NORMS} or to be None',
        norm_cfg,
    )
    check_argument(
        norm_cfg['type'] != 'GN'
        or (conv_channels is not None and conv_channels % norm_cfg['num_groups'] == 0),
        'norm_cfg',
        'to have `num_groups` that divide `conv_channels`',
        f'{norm_cfg} with conv_channels={conv_channels!r}',
    )
