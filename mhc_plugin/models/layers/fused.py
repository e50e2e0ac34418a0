"""Layers of many heads run as one: parameters stacked along a first axis of length ``num_heads``.

Heads may differ in width (slices of 1,280 channels over 9 heads, groups of 2 and 3 classes). The
stack is then as wide as the widest head. What a narrower head does not have is zero, is fed zeros
or is never read, so its gradient is zero and it stays zero.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FusedLayer(nn.Module):
    """What the layers below share: which channels of the input feed which head.

    Nothing is copied, or listed, where all heads read everything; nothing is copied where the
    heads' channels follow one another in equal parts.

    Args:
        channels (Sequence[Sequence[int]]): The input channels of every head, in memory of one
            ``range`` each where they follow one another.
        total (int): Number of channels of the input.
        out_sizes (Sequence[int]): Number of outputs of every head.
    """

    def __init__(
        self, channels: Sequence[Sequence[int]], total: int, out_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        everything = range(total)
        self.in_sizes = tuple(len(c) for c in channels)
        self.out_sizes = tuple(out_sizes)
        #: Outputs of the widest head, the place that each has in what comes out.
        self.out_width = width = max(self.out_sizes)
        #: Where every head's outputs lie among the ``num_heads * out_width``: input of the next.
        self.out_channels = [range(h * width, h * width + n) for h, n in enumerate(self.out_sizes)]
        self.shared = all(
            c == everything if isinstance(c, range) else list(c) == list(everything)
            for c in channels
        )
        index = torch.empty(0, dtype=torch.long)
        if not self.shared:
            # Position `total` is a column of zeros.
            width = max(self.in_sizes)
            index = torch.tensor([[*c, *[total] * (width - len(c))] for c in channels]).flatten()
        self.in_place = self.shared or index.tolist() == list(everything)
        self.register_buffer('index', index, persistent=False)

    def gather(self, x: Tensor) -> Tensor:
        """``(N, total, ...)`` to ``(N, num_heads * max(in_sizes), ...)``; unchanged if shared."""
        if self.in_place:
            return x
        if min(self.in_sizes) < max(self.in_sizes):
            x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        return x.index_select(1, self.index)

    def extra_repr(self) -> str:
        return (
            f'num_heads={len(self.in_sizes)}, in={max(self.in_sizes)}, out={self.out_width}, '
            f'shared={self.shared}'
        )


class FusedLinear(FusedLayer):
    """``num_heads`` linear layers in one matrix product.

    Args:
        channels (Sequence[Sequence[int]]): The input channels of every head.
        total (int): Number of channels of the input.
        out_sizes (Sequence[int]): Number of outputs of every head.
        bias (bool): Whether to add a bias. Defaults to True.
        std (float, optional): Standard deviation of the weights to start with. Defaults to None:
            what ``nn.Linear`` starts with, which grows as the input gets narrower.

    Shapes:
        - weight: ``(num_heads, out_width, max(in_sizes))``
        - bias: ``(num_heads, out_width)``
    """

    def __init__(
        self,
        channels: Sequence[Sequence[int]],
        total: int,
        out_sizes: Sequence[int],
        bias: bool = True,
        std: float | None = None,
    ) -> None:
        super().__init__(channels, total, out_sizes)
        self.std = std
        num_heads = len(self.in_sizes)
        self.weight = nn.Parameter(torch.zeros(num_heads, self.out_width, max(self.in_sizes)))
        self.bias = nn.Parameter(torch.zeros(num_heads, self.out_width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every head: normal with ``std``, or uniform as ``nn.Linear``; bias 0."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        for head, width in enumerate(self.in_sizes):
            weight = self.weight.detach()[head, : self.out_sizes[head], :width]
            if self.std is None:
                nn.init.uniform_(weight, -(width**-0.5), width**-0.5)
            else:
                nn.init.normal_(weight, std=self.std)

    def head_view(self, head: int) -> nn.Linear:
        """One head's layer as an ordinary one, whose parameters are views of the stacked ones."""
        rows, columns = self.out_sizes[head], self.in_sizes[head]
        layer = nn.Linear(columns, rows, self.bias is not None, device='meta')
        layer.weight = view_of(self.weight, (head, slice(rows), slice(columns)))
        if self.bias is not None:
            layer.bias = view_of(self.bias, (head, slice(rows)))
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Run all heads: ``(N, total)`` to ``(N, num_heads * out_width)``."""
        if self.shared:
            bias = None if self.bias is None else self.bias.flatten()
            return F.linear(x, self.weight.flatten(0, 1), bias)
        x = self.gather(x).unflatten(1, (len(self.in_sizes), -1)).transpose(0, 1)
        out = torch.bmm(x, self.weight.transpose(1, 2)).transpose(0, 1)
        return (out if self.bias is None else out + self.bias).flatten(1)

    def pointwise(self, maps: Tensor) -> Tensor:
        """Apply the layers at every position, without bias.

        Args:
            maps (Tensor): ``(N, total, h, w)``.

        Returns:
            Tensor: ``(N, num_heads * out_width, h, w)``.
        """
        weight = self.weight.flatten(0, 1).to(maps.dtype)
        if self.shared and not maps.is_contiguous() and not maps.is_cuda:
            # Channels last. A convolution would bring it into a format of its own.
            return F.linear(maps.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
        if self.shared:
            return F.conv2d(maps, weight[..., None, None])
        maps = to_channels_last(self.gather(maps))
        return F.conv2d(maps, weight[..., None, None], groups=len(self.in_sizes))


class FusedConv2d(FusedLayer):
    """``num_heads`` convolutions with stride 1 and "same" padding, as one (grouped) convolution.

    Args:
        channels (Sequence[Sequence[int]]): The input channels of every head.
        total (int): Number of channels of the input.
        out_sizes (Sequence[int]): Number of output channels of every head.
        kernel_size (int): Odd size of the kernel.
        bias (bool): Whether to add a bias.

    Shapes:
        - weight: ``(num_heads * out_width, max(in_sizes), kernel_size, kernel_size)``, head after
          head; four axes, since ``module.to(memory_format=torch.channels_last)`` refuses five
        - bias: ``(num_heads * out_width,)``
    """

    def __init__(
        self,
        channels: Sequence[Sequence[int]],
        total: int,
        out_sizes: Sequence[int],
        kernel_size: int,
        bias: bool,
    ) -> None:
        super().__init__(channels, total, out_sizes)
        self.kernel_size = kernel_size
        rows = len(self.in_sizes) * self.out_width
        self.weight = nn.Parameter(torch.zeros(rows, max(self.in_sizes), kernel_size, kernel_size))
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
        for rows, width in zip(self.out_channels, self.in_sizes):
            weight = self.weight.detach()[rows.start : rows.stop, :width]
            nn.init.kaiming_normal_(weight, mode='fan_in', nonlinearity='relu')

    def head_view(self, head: int) -> nn.Conv2d:
        """One head's layer as an ordinary one, whose parameters are views of the stacked ones."""
        rows, width = self.out_channels[head], self.in_sizes[head]
        layer = nn.Conv2d(
            width,
            len(rows),
            self.kernel_size,
            padding=self.kernel_size // 2,
            bias=self.bias is not None,
            device='meta',
        )
        layer.weight = view_of(self.weight, (slice(rows.start, rows.stop), slice(width)))
        if self.bias is not None:
            layer.bias = view_of(self.bias, slice(rows.start, rows.stop))
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Run all heads: ``(N, total, h, w)`` to ``(N, num_heads * out_width, h, w)``."""
        return F.conv2d(
            to_channels_last(self.gather(x)),
            self.weight,
            self.bias,
            padding=self.kernel_size // 2,
            groups=1 if self.shared else len(self.in_sizes),
        )


def view_of(parameter: nn.Parameter, index) -> nn.Parameter:
    """A part of a parameter as a parameter of its own, in the same memory."""
    return nn.Parameter(parameter.detach()[index], requires_grad=parameter.requires_grad)


def to_channels_last(x: Tensor) -> Tensor:
    """Maps in the format in which grouped convolutions are several times faster on CPU.

    On GPU the format of the input is kept.
    """
    return x if x.is_cuda else x.contiguous(memory_format=torch.channels_last)
