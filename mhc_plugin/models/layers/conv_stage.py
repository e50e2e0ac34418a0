"""The light convolutions of MultiConv and ConvFC over one feature map, for many heads at once."""

import copy
from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from .fused import FusedConv2d, PerHeadGather

# Norms that treat every channel, or every group of channels, by itself: only these give the same
# result for many heads side by side as for one.
NORMS = ('BN', 'BN2d', 'SyncBN', 'IN', 'IN2d', 'GN')


def build_norm(norm_cfg: dict, channels: int, num_heads: int) -> nn.Module:
    """Build the norm of ``num_heads`` heads with ``channels`` channels each."""
    cfg = dict(norm_cfg)
    if cfg['type'] == 'GN':
        cfg['num_groups'] *= num_heads
    return build_norm_layer(cfg, channels * num_heads)[1]


class FusedConvBlock(nn.Module):
    """Convolution, norm, activation of all heads.

    A bias is used where there is no norm. Channels that a narrower head does not have are set to
    zero behind the activation, so that the next convolution finds none there.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        kernel_size: int,
        norm_cfg: dict | None,
        act_cfg: dict | None,
        shared_input: bool,
    ) -> None:
        super().__init__()
        num_heads, width = len(out_channels), max(out_channels)
        self.conv = FusedConv2d(
            in_channels, out_channels, kernel_size, norm_cfg is None, shared_input
        )
        self.norm = nn.Identity() if norm_cfg is None else build_norm(norm_cfg, width, num_heads)
        self.act = nn.Identity() if act_cfg is None else build_activation_layer(act_cfg)
        mask = None
        if min(out_channels) < width:
            mask = torch.zeros(num_heads, width)
            for head, channels in enumerate(out_channels):
                mask[head, :channels] = 1
            mask = mask.flatten()[:, None, None]
        self.register_buffer('mask', mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        return x if self.mask is None else x * self.mask

    def split(self, head: int) -> list[nn.Module]:
        """The ordinary layers of one head, filled with its parameters."""
        plain = self.conv.split(head)
        layers: list[nn.Module] = [plain]
        if not isinstance(self.norm, nn.Identity):
            layers.append(self._split_norm(head))
        if not isinstance(self.act, nn.Identity):
            layers.append(copy.deepcopy(self.act))
        return layers

    def load(self, head: int, layers: Sequence[nn.Module]) -> None:
        """Take over the parameters of one head's ordinary layers."""
        self.conv.load(head, layers[0])
        if isinstance(self.norm, nn.Identity):
            return
        state = layers[1].state_dict()
        for name, stacked in self.norm.state_dict().items():
            self._head_view(stacked, head).copy_(state[name])

    def _head_view(self, stacked: Tensor, head: int) -> Tensor:
        if stacked.dim() == 0:  # num_batches_tracked
            return stacked
        start = head * max(self.conv.out_channels)
        return stacked[start : start + self.conv.out_channels[head]]

    def _split_norm(self, head: int) -> nn.Module:
        channels = self.conv.out_channels[head]
        norm = self.norm
        if isinstance(norm, nn.GroupNorm):
            num_heads = len(self.conv.out_channels)
            plain = nn.GroupNorm(norm.num_groups // num_heads, channels, norm.eps, norm.affine)
        else:
            plain = type(norm)(
                channels, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
            )
        plain.to(self.conv.weight)
        plain.load_state_dict(
            {name: self._head_view(stacked, head) for name, stacked in norm.state_dict().items()}
        )
        for param, source in zip(plain.parameters(), norm.parameters()):
            param.requires_grad = source.requires_grad
        return plain


class FusedConvStage(nn.Module):
    """All convolutions that the heads run over one feature map, before the pool.

    With ``conv_channels`` a 1 x 1 convolution down to that width, then ``num_convs`` convolutions
    of ``kernel_size`` inside it; without, ``num_convs`` convolutions at the width of the input.

    Args:
        channels (Sequence[Sequence[int]]): The input channels of every head.
        total (int): Number of channels of the map.
        conv_channels (int, optional): Width behind the reduction.
        num_convs (int): Number of convolutions of ``kernel_size``.
        kernel_size (int): Odd size of the kernel.
        norm_cfg (dict, optional): Config of the norm.
        act_cfg (dict, optional): Config of the activation.
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
        super().__init__()
        self.gather = PerHeadGather(channels, total)
        widths = [self.gather.sizes]
        kernels = []
        if conv_channels is not None:
            widths.append((conv_channels,) * len(channels))
            kernels.append(1)
        widths += [widths[-1]] * num_convs
        kernels += [kernel_size] * num_convs
        self.blocks = nn.Sequential(
            *(
                FusedConvBlock(
                    widths[i],
                    widths[i + 1],
                    kernel,
                    norm_cfg,
                    act_cfg,
                    shared_input=i == 0 and self.gather.shared,
                )
                for i, kernel in enumerate(kernels)
            )
        )
        self.out_channels = tuple(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, total, h, w)`` to ``(N, num_heads * max(out_channels), h, w)``."""
        return self.blocks(self.gather(x))

    def split(self, head: int) -> nn.Sequential:
        """One head's convolutions as ordinary layers; ``head`` counts those of this stage."""
        return nn.Sequential(*(layer for block in self.blocks for layer in block.split(head)))

    def load(self, head: int, layers: nn.Sequential) -> None:
        """Take over the parameters of one head's ordinary layers."""
        per_block = len(layers) // len(self.blocks)
        for i, block in enumerate(self.blocks):
            block.load(head, layers[i * per_block : (i + 1) * per_block])
