"""The light convolutions of MultiConv and ConvFC over one feature map, for many heads at once."""

import copy
from collections.abc import Sequence

from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import nn

from .fused import FusedConv2d, view_of

# Norms that treat every channel, or every group of channels, by itself: only these give the same
# result for many heads side by side as for one.
NORMS = ('BN', 'BN2d', 'SyncBN', 'IN', 'IN2d', 'GN')


class FusedConvStage(nn.Sequential):
    """All convolutions that the heads run over one feature map, before the pool.

    With ``conv_channels`` a 1 x 1 convolution down to that width, then ``num_convs`` convolutions
    of ``kernel_size`` inside it; without, ``num_convs`` convolutions at the width of the input.
    Each is followed by norm and activation, and has a bias where there is no norm.

    Args:
        channels (Sequence[Sequence[int]]): The input channels of every head.
        total (int): Number of channels of the map.
        conv_channels (int, optional): Width behind the reduction.
        num_convs (int): Number of convolutions of ``kernel_size``.
        kernel_size (int): Odd size of the kernel.
        norm_cfg (dict, optional): Config of the norm.
        act_cfg (dict, optional): Config of the activation.

    Shapes:
        - input: ``(N, total, h, w)``
        - output: ``(N, num_heads * out_width, h, w)``
    """

    def __init__(
        self,
        channels: Sequence[Sequence[int]],
        total: int,
        conv_channels: int | None,
        num_convs: int,
        kernel_size: int,
        norm_cfg: dict | None,
        act_cfg: dict | None,
    ) -> None:
        num_heads = len(channels)
        reduction = [] if conv_channels is None else [1]
        sizes = [len(c) if conv_channels is None else conv_channels for c in channels]
        layers: list[nn.Module] = []
        for kernel in [*reduction, *[kernel_size] * num_convs]:
            conv = FusedConv2d(channels, total, sizes, kernel, bias=norm_cfg is None)
            channels, total = conv.out_channels, num_heads * conv.out_width
            layers.append(conv)
            if norm_cfg is not None:
                layers.append(_build_norm(norm_cfg, total, num_heads))
            if act_cfg is not None:
                layers.append(build_activation_layer(act_cfg))
        super().__init__(*layers)
        self.out_channels, self.num_channels = channels, total

    def head_view(self, head: int) -> nn.Sequential:
        """One head's convolutions as ordinary layers, whose tensors are views of the stacked ones.

        ``head`` counts the heads that read this map.
        """
        layers = []
        for layer in self:
            if isinstance(layer, FusedConv2d):
                layers.append(layer.head_view(head))
                rows = slice(layer.out_channels[head].start, layer.out_channels[head].stop)
            elif isinstance(layer, nn.modules.batchnorm._NormBase | nn.GroupNorm):
                layers.append(_norm_view(layer, rows, len(self.out_channels)))
            else:
                layers.append(copy.deepcopy(layer))
        return nn.Sequential(*layers)


def _build_norm(norm_cfg: dict, channels: int, num_heads: int) -> nn.Module:
    if norm_cfg['type'] == 'GN':
        norm_cfg = dict(norm_cfg, num_groups=num_heads * norm_cfg['num_groups'])
    return build_norm_layer(norm_cfg, channels)[1]


def _norm_view(norm: nn.Module, rows: slice, num_heads: int) -> nn.Module:
    channels = rows.stop - rows.start
    if isinstance(norm, nn.GroupNorm):
        plain = nn.GroupNorm(norm.num_groups // num_heads, channels, norm.eps, norm.affine)
    else:
        plain = type(norm)(channels, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, parameter in norm.named_parameters():
        setattr(plain, name, view_of(parameter, rows))
    for name, buffer in norm.named_buffers():
        # `num_batches_tracked` is one number for all.
        setattr(plain, name, buffer.detach()[rows] if buffer.dim() else buffer.detach())
    return plain
