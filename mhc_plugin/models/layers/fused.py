"""Layers of many heads run as one: parameters stacked along a first axis of length ``num_heads``.

Heads may differ in width (slices of 1,280 channels over 9 heads, groups of 2 and 3 classes). The
stack is then as wide as the widest head. What a narrower head does not have is zero, is fed zeros
or is never read, so its gradient is zero and it stays zero.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _to_channels_last(x: Tensor) -> Tensor:
    # On CPU grouped convolutions are several times faster in this format. On GPU the format of the
    # input is kept.
    return x if x.is_cuda else x.contiguous(memory_format=torch.channels_last)


def _fill(layer: nn.Module, fused: nn.Module, head: int) -> nn.Module:
    # A clone keeps the memory format, which copying into the new layer would not.
    layer.weight.data = fused.head_weight(head).clone()
    layer.weight.requires_grad_(fused.weight.requires_grad)
    if layer.bias is not None:
        layer.bias.data = fused.head_bias(head).clone()
        layer.bias.requires_grad_(fused.bias.requires_grad)
    return layer


def _take(layer: nn.Module, fused: nn.Module, head: int) -> None:
    fused.head_weight(head).copy_(layer.weight.detach())
    if fused.bias is not None:
        fused.head_bias(head).copy_(layer.bias.detach())


class FusedLinear(nn.Module):
    """``num_heads`` linear layers in one matrix product.

    Args:
        in_features (Sequence[int]): Input width of every head.
        out_features (Sequence[int]): Output width of every head.
        shared_input (bool): Whether all heads read the same vector.
        std (float, optional): Standard deviation of the weights to start with. Defaults to None:
            what ``nn.Linear`` starts with, which grows as the input gets narrower.

    Shapes:
        - weight: ``(num_heads, max(out_features), max(in_features))``
        - bias: ``(num_heads, max(out_features))``
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: Sequence[int],
        shared_input: bool,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.out_features = tuple(out_features)
        self.shared_input = shared_input
        self.std = std
        num_heads = len(self.in_features)
        self.weight = nn.Parameter(
            torch.zeros(num_heads, max(self.out_features), max(self.in_features))
        )
        self.bias = nn.Parameter(torch.zeros(num_heads, max(self.out_features)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every head: normal with ``std``, or uniform as ``nn.Linear``; bias 0."""
        nn.init.zeros_(self.bias)
        for head, width in enumerate(self.in_features):
            if self.std is None:
                nn.init.uniform_(self.head_weight(head), -(width**-0.5), width**-0.5)
            else:
                nn.init.normal_(self.head_weight(head), std=self.std)

    def head_weight(self, head: int) -> Tensor:
        """View of one head's weight, ``(out_features[head], in_features[head])``."""
        return self.weight.detach()[head, : self.out_features[head], : self.in_features[head]]

    def head_bias(self, head: int) -> Tensor:
        """View of one head's bias, ``(out_features[head],)``."""
        return self.bias.detach()[head, : self.out_features[head]]

    def split(self, head: int) -> nn.Linear:
        """One head's layer as an ordinary one."""
        layer = nn.Linear(self.in_features[head], self.out_features[head]).to(self.weight)
        return _fill(layer, self, head)

    def load(self, head: int, layer: nn.Linear) -> None:
        """Take over the parameters of one head's ordinary layer."""
        _take(layer, self, head)

    def forward(self, x: Tensor) -> Tensor:
        """Run all heads.

        Args:
            x (Tensor): ``(N, in)`` if the input is shared, else ``(N, num_heads, in)``.

        Returns:
            Tensor: ``(N, num_heads, max(out_features))``.
        """
        if self.shared_input:
            out = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
            return out.unflatten(1, self.bias.shape)
        out = torch.baddbmm(self.bias.unsqueeze(1), x.transpose(0, 1), self.weight.transpose(1, 2))
        return out.transpose(0, 1)

    def pointwise(self, maps: Tensor) -> Tensor:
        """Apply the layers at every position, without bias.

        Args:
            maps (Tensor): ``(N, in, h, w)`` if the input is shared, else
                ``(N, num_heads * in, h, w)``.

        Returns:
            Tensor: ``(N, num_heads * max(out_features), h, w)``.
        """
        weight = self.weight.flatten(0, 1)[..., None, None].to(maps.dtype)
        groups = 1 if self.shared_input else self.weight.shape[0]
        return F.conv2d(_to_channels_last(maps), weight, groups=groups)

    def extra_repr(self) -> str:
        return (
            f'num_heads={len(self.in_features)}, in_features={max(self.in_features)}, '
            f'out_features={max(self.out_features)}, shared_input={self.shared_input}'
        )


class FusedConv2d(nn.Module):
    """``num_heads`` convolutions with stride 1 and "same" padding, as one (grouped) convolution.

    Args:
        in_channels (Sequence[int]): Input width of every head.
        out_channels (Sequence[int]): Output width of every head.
        kernel_size (int): Odd size of the kernel.
        bias (bool): Whether to add a bias.
        shared_input (bool): Whether all heads read the same map.

    Shapes:
        - weight: ``(num_heads * max(out_channels), max(in_channels), kernel_size, kernel_size)``,
          head after head; four axes, since ``module.to(memory_format=torch.channels_last)``
          refuses five
        - bias: ``(num_heads * max(out_channels),)``
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        kernel_size: int,
        bias: bool,
        shared_input: bool,
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.out_channels = tuple(out_channels)
        self.kernel_size = kernel_size
        self.shared_input = shared_input
        rows = len(self.in_channels) * max(self.out_channels)
        self.weight = nn.Parameter(
            torch.zeros(rows, max(self.in_channels), kernel_size, kernel_size)
        )
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming's normal initialisation, with the fan-in of one head.

        With the fan-out a reduction from 1,280 to 16 channels would start nine times as large.
        Behind a norm that changes nothing but how slowly it trains (van Laarhoven, "L2
        Regularization versus Batch and Weight Normalization", 2017).
        """
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        for head in range(len(self.in_channels)):
            nn.init.kaiming_normal_(self.head_weight(head), mode='fan_in', nonlinearity='relu')

    def head_weight(self, head: int) -> Tensor:
        """View of one head's weight, ``(out, in, kernel_size, kernel_size)``."""
        return self.weight.detach()[self._rows(head), : self.in_channels[head]]

    def head_bias(self, head: int) -> Tensor | None:
        """View of one head's bias, ``(out_channels[head],)``, or None without bias."""
        return None if self.bias is None else self.bias.detach()[self._rows(head)]

    def _rows(self, head: int) -> slice:
        start = head * max(self.out_channels)
        return slice(start, start + self.out_channels[head])

    def split(self, head: int) -> nn.Conv2d:
        """One head's layer as an ordinary one."""
        layer = nn.Conv2d(
            self.in_channels[head],
            self.out_channels[head],
            self.kernel_size,
            padding=self.kernel_size // 2,
            bias=self.bias is not None,
        ).to(self.weight)
        return _fill(layer, self, head)

    def load(self, head: int, layer: nn.Conv2d) -> None:
        """Take over the parameters of one head's ordinary layer."""
        _take(layer, self, head)

    def forward(self, x: Tensor) -> Tensor:
        """Run all heads.

        Args:
            x (Tensor): ``(N, in, h, w)`` if the input is shared, else
                ``(N, num_heads * in, h, w)``.

        Returns:
            Tensor: ``(N, num_heads * max(out_channels), h, w)``.
        """
        return F.conv2d(
            _to_channels_last(x),
            self.weight,
            self.bias,
            padding=self.kernel_size // 2,
            groups=1 if self.shared_input else len(self.in_channels),
        )

    def extra_repr(self) -> str:
        return (
            f'num_heads={len(self.in_channels)}, in_channels={max(self.in_channels)}, '
            f'out_channels={max(self.out_channels)}, kernel_size={self.kernel_size}, '
            f'shared_input={self.shared_input}'
        )


class PerHeadGather(nn.Module):
    """Bring to every head its own channels, filled up with zeros to the widest head.

    Nothing is copied where all heads read everything, or where the heads' channels follow one
    another in equal parts.

    Args:
        channels (Sequence[Sequence[int]]): The channels of every head.
        total (int): Number of channels of the input.
    """

    def __init__(self, channels: Sequence[Sequence[int]], total: int) -> None:
        super().__init__()
        sizes = [len(c) for c in channels]
        flat = [i for c in channels for i in c]
        self.sizes = tuple(sizes)
        self.shared = all(list(c) == list(range(total)) for c in channels)
        self.in_place = flat == list(range(total)) and len(set(sizes)) == 1
        # Position `total` is a column of zeros.
        padded = [list(c) + [total] * (max(sizes) - len(c)) for c in channels]
        index = torch.tensor([] if self.shared else padded, dtype=torch.long).flatten()
        self.register_buffer('index', index, persistent=False)
        self.has_padding = min(sizes) < max(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, total, ...)`` to ``(N, num_heads * max(sizes), ...)``; unchanged if shared."""
        if self.shared or self.in_place:
            return x
        if self.has_padding:
            x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        return x.index_select(1, self.index)
