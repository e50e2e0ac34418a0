"""Feature maps without parameters: normalised, and pooled."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = ('avg', 'max', 'lse')
NORMALIZATIONS = ('image', 'position', 'root')

# Below this, what a map is divided by stays as it is.
EPS = 1e-5


def signed_root(x: Tensor) -> Tensor:
    """The square root of the absolute value, with the sign kept; at 0 its gradient is 0."""
    if x.requires_grad:
        return x.sign() * x.abs().clamp_(min=torch.finfo(x.dtype).tiny).sqrt_()
    return _root_of(x.abs(), x)


def _root_of(size: Tensor, x: Tensor) -> Tensor:
    """The same in the memory of ``size``, the absolute values."""
    # Not the root of 0, which is slow on CPU, and whose gradient is infinite.
    return size.clamp_(min=torch.finfo(x.dtype).tiny).rsqrt_().mul_(x)


def normalize_maps(x: Tensor, mode: str | None) -> Tensor:
    """Bring maps of all images, or all positions, to one scale.

    With x at position p of C channels:

    - ``'image'``: ``x / sqrt(var(x) + eps)``, the variance over channels and positions of one image
    - ``'position'``: ``x_p / sqrt(mean_c x_pc^2 + eps)``
    - ``'root'``: of ``r = sign(x) sqrt(abs(x))``, which lets no few channels outweigh the others,
      with ``m_p = mean_c r_pc^2``: ``r_p / sqrt(max(m_p, mean_p m_p / 2) + eps)``. Positions below
      half of the image's mean stay faint
    - None: x itself

    Args:
        x (Tensor): Maps ``(N, C, h, w)``.
        mode (str, optional): One of these.

    Returns:
        Tensor: ``(N, C, h, w)``.
    """
    if mode is None:
        return x
    if x.dtype in (torch.float16, torch.bfloat16):
        # Whose squares would be infinite from 256 on.
        return normalize_maps(x.float(), mode).to(x.dtype)
    if mode == 'image':
        return x * (x.var((1, 2, 3), keepdim=True) + EPS).rsqrt()
    if mode == 'position':
        return x * (_mean_over_channels(x.square()) + EPS).rsqrt()
    size = x.abs()
    mean = _mean_over_channels(size)
    scale = (torch.maximum(mean, mean.mean((2, 3), keepdim=True) / 2) + EPS).rsqrt()
    return signed_root(x) * scale if x.requires_grad else _root_of(size, x).mul_(scale)


# Means of maps (N, C, h, w) whose positions are neighbours are slow on CPU: as products instead.


def _mean_over_channels(x: Tensor) -> Tensor:
    """``x.mean(1, keepdim=True)``."""
    if x.is_cuda or not x.is_contiguous():
        return x.mean(1, keepdim=True)
    weights = x.new_full((1, x.shape[1]), 1 / x.shape[1])
    return torch.matmul(weights, x.flatten(2)).unflatten(2, x.shape[2:])


def mean_over_positions(x: Tensor) -> Tensor:
    """``x.mean((2, 3))``."""
    if x.is_cuda or not x.is_contiguous():
        return x.mean((2, 3))
    x = x.flatten(2)
    return torch.matmul(x, x.new_full((x.shape[2],), 1 / x.shape[2]))


class NormalizeMaps(nn.Module):
    """:func:`normalize_maps` as a module.

    Args:
        mode (str): One of its modes.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return normalize_maps(x, self.mode)


class GlobalPool(nn.Module):
    """Pool a map ``(N, C, h, w)`` to ``(N, C)``; a vector ``(N, C)`` passes unchanged.

    Args:
        mode (str): ``'avg'``, ``'max'`` or ``'lse'``, the log-sum-exp pooling
            ``log(mean(exp(r * x))) / r`` of Pinheiro and Collobert, "From image-level to
            pixel-level labeling with convolutional networks", CVPR 2015.
        r (float): Sharpness of ``'lse'``: near 0 it is the mean, towards infinity the maximum.
    """

    def __init__(self, mode: str = 'avg', r: float = 10.0) -> None:
        super().__init__()
        self.mode = mode
        # Where it has no effect it makes no difference to what a feature store calls the same.
        self.r = r if mode == 'lse' else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x
        if self.mode == 'avg':
            return x.mean((2, 3))
        if self.mode == 'max':
            return x.flatten(2).max(2).values
        positions = x.shape[2] * x.shape[3]
        return (torch.logsumexp(self.r * x.flatten(2), 2) - math.log(positions)) / self.r

    def contributions(self, x: Tensor) -> Tensor:
        """Spread the pooled value over the positions it came from.

        This is ``h * w * x * d pool(x) / d x``: with average pooling x itself, with maximum
        pooling ``h * w * x`` at the maximum and 0 elsewhere, with log-sum-exp pooling
        ``h * w * x * softmax(r * x)`` over positions.

        Args:
            x (Tensor): Map ``(N, C, h, w)``.

        Returns:
            Tensor: ``(N, C, h, w)``.
        """
        if self.mode == 'avg':
            return x
        flat = x.flatten(2)
        if self.mode == 'max':
            share = torch.zeros_like(flat).scatter_(2, flat.argmax(2, keepdim=True), 1.0)
        else:
            share = torch.softmax(self.r * flat, 2)
        return (flat.shape[2] * flat * share).view_as(x)

    def extra_repr(self) -> str:
        return f'mode={self.mode!r}' + (f', r={self.r}' if self.mode == 'lse' else '')


def resize_to_largest(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps ``(N, C, h, w)`` of several stages, resized bilinearly to the size of the largest.

    Where that is a whole number of times as high and wide, the mean of a map stays what it was.
    """
    size = max((x.shape[2:] for x in maps), key=lambda s: s[0] * s[1])
    return [
        x if x.shape[2:] == size else F.interpolate(x, size, mode='bilinear', align_corners=False)
        for x in maps
    ]


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate along channels, without a copy of a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
