"""MultiConv, light convolutions for every class, and ConvFC, the same for all classes at once."""

from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..layers import NORMS, FusedConvStage, FusedLinear, PerHeadGather
from .base import BaseMultiHeadClsHead
from .split import SplitHead


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
        **kwargs: See :class:`BaseMultiHeadClsHead`: ``pool``, ``lse_r``, ``connection``,
            ``head_stages``, ``head_groups``, ``dropout``, ``loss``, ``thr``, ``topk``,
            ``init_cfg``.

    Raises:
        ValueError: If an argument does not fit, or at the first forward if features are pooled.

    Examples:
        >>> head = ConvMultiHeadClsHead(num_classes=10, in_channels=1280)
        >>> head((torch.rand(2, 1280, 7, 7), )).shape
        torch.Size([2, 10])
    """

    needs_maps = True

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        conv_channels: int | None = 16,
        num_convs: int = 1,
        kernel_size: int = 3,
        norm_cfg: dict | None = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        check_conv_arguments(conv_channels, num_convs, kernel_size, norm_cfg)
        self.conv_channels = conv_channels
        readers = {
            stage: [h for h, feeds in enumerate(self.feeds.heads) if stage in dict(feeds)]
            for stage in self.stages
        }
        self.convs = nn.ModuleList(
            FusedConvStage(
                [dict(self.feeds.heads[h])[stage] for h in readers[stage]],
                total,
                conv_channels,
                num_convs,
                kernel_size,
                norm_cfg,
                act_cfg,
            )
            for stage, total in zip(self.stages, self.feeds.channels)
        )
        if any(p for block in self.convs[0].blocks for p in block.act.parameters()):
            raise ValueError(
                'Expected argument `act_cfg` to be an activation without parameters, '
                f'but got {act_cfg}.'
            )

        # Where the channels of every head lie among the outputs of all stages, side by side.
        parts: list[list[int]] = [[] for _ in range(self.num_heads)]
        self.places: list[list[tuple[int, int]]] = [[] for _ in range(self.num_heads)]
        total = 0
        for position, (stage, conv) in enumerate(zip(self.stages, self.convs)):
            width = max(conv.out_channels)
            for place, head in enumerate(readers[stage]):
                self.places[head].append((position, place))
                parts[head] += range(total, total + conv.out_channels[place])
                total += width
        self.gather = PerHeadGather(parts, total)
        self.fc = FusedLinear(
            self.gather.sizes,
            [len(group) for group in self.head_groups],
            shared_input=self.gather.shared,
        )

    def pre_pool(self, feats: tuple[Tensor, ...]) -> list[Tensor]:
        selected = super().pre_pool(feats)
        if any(x.dim() != 4 for x in selected):
            raise ValueError(
                'Expected features as maps (N, C, h, w) for a head with '
                f'convolutions, but got shapes {[tuple(x.shape) for x in feats]}. '
                'Take out the pooling neck.'
            )
        return [conv(x) for conv, x in zip(self.convs, selected)]

    def _split_convs(self, head: int) -> list[nn.Module]:
        return [self.convs[position].split(place) for position, place in self.places[head]]

    def _stack_head(self, index: int, head: SplitHead) -> None:
        super()._stack_head(index, head)
        for (position, place), layers in zip(self.places[index], head.convs):
            self.convs[position].load(place, layers)


@MODELS.register_module()
class ConvClsHead(ConvMultiHeadClsHead):
    """The same light convolutions once, for all classes together ("ConvFC", the control).

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the last feature, or of every feature.
        **kwargs: See :class:`ConvMultiHeadClsHead`, but without ``head_groups``. With
            ``connection='channels'`` its slice is the whole; ``head_stages`` has one entry.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(self, num_classes: int, in_channels: int | Sequence[int], **kwargs) -> None:
        if 'head_groups' in kwargs:
            raise ValueError(
                'ConvClsHead is one head for all classes and takes no '
                '`head_groups`; ConvMultiHeadClsHead does.'
            )
        super().__init__(num_classes, in_channels, head_groups=[list(range(num_classes))], **kwargs)


def check_conv_arguments(
    conv_channels: int | None, num_convs: int, kernel_size: int, norm_cfg: dict | None
) -> None:
    """Raise ValueError for the first argument that does not fit."""
    if conv_channels is not None and conv_channels < 1:
        raise ValueError(
            'Expected argument `conv_channels` to be an int of at least 1 or None, '
            f'but got {conv_channels!r}.'
        )
    if num_convs < 0 or (num_convs == 0 and conv_channels is None):
        raise ValueError(
            'Expected argument `num_convs` to be at least 0, or at least 1 with '
            f'`conv_channels=None`, but got {num_convs!r}.'
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'Expected argument `kernel_size` to be odd, but got {kernel_size!r}.')
    if norm_cfg is None:
        return
    if norm_cfg.get('type') not in NORMS:
        raise ValueError(
            f'Expected argument `norm_cfg` to have a type of {NORMS} or to be None, '
            f'but got {norm_cfg}.'
        )
    if norm_cfg['type'] == 'GN' and (
        conv_channels is None or conv_channels % norm_cfg['num_groups']
    ):
        raise ValueError(
            'Expected `num_groups` of argument `norm_cfg` to divide `conv_channels`, '
            f'but got {norm_cfg} with conv_channels={conv_channels!r}.'
        )
