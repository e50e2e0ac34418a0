"""How much of a class map lies where the class is.

Maps are raw and non-negative. An empty map (no mass at all) scores 0 everywhere; a uniform map
scores the area's share, which is the level of chance.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_argument, check_class_maps


class GridPointing(NamedTuple):
    """Where the mass of the maps of one spliced image lies; k is the number of its classes.

    Attributes:
        classes (Tensor): The classes of the image in rising order, int64 ``(k,)``.
        shares (Tensor): Share of the mass of class i's map in the cells of class j, float64
            ``(k, k)``; the diagonal is the grid pointing game. A row is 0 for an empty map.
        chance (Tensor): Share of the image area of every class's cells, float64 ``(k,)``.
        empty (Tensor): Whether a class's map is empty, bool ``(k,)``.
    """

    classes: Tensor
    shares: Tensor
    chance: Tensor
    empty: Tensor


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps ``(n, h, w)`` bilinearly to ``size`` (height, width), in float64."""
    return F.interpolate(maps.double().unsqueeze(1), size, mode='bilinear').squeeze(1)


def box_coverage(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of every pixel that lies in a box.

    A pixel that the borders of several boxes cut counts with the largest of its shares.

    Args:
        boxes (Tensor): x1, y1, x2, y2 in 0..1 of the image, ``(n, 4)``.
        size (tuple[int, int]): Height and width in pixels.

    Returns:
        Tensor: float64 ``(height, width)`` in 0..1.

    Raises:
        ValueError: If ``boxes`` is not ``(n, 4)``, or a box leaves the image or ends before it
            begins.
    """
    is_list = boxes.ndim == 2 and boxes.shape[1] == 4
    check_argument(is_list, 'boxes', 'to have shape (n, 4)', tuple(boxes.shape))
    inside = (boxes >= 0) & (boxes <= 1)
    if not (inside.all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
        raise ValueError(
            'Expected argument `boxes` to hold x1 <= x2 and y1 <= y2 in 0..1 of the '
            f'image, but got {boxes.tolist()}.'
        )
    x1, y1, x2, y2 = boxes.double().unbind(1)
    height, width = size
    rows, columns = _overlap(y1, y2, height), _overlap(x1, x2, width)
    coverage = rows.unsqueeze(2) * columns.unsqueeze(1)
    return coverage.amax(0) if len(boxes) > 0 else coverage.new_zeros(size)


def _overlap(start: Tensor, end: Tensor, length: int) -> Tensor:
    """Length of every pixel's overlap with the intervals ``(n,)`` in 0..1: ``(n, length)``."""
    pixel = torch.arange(length, dtype=start.dtype, device=start.device)
    first = torch.maximum(pixel, length * start.unsqueeze(1))
    last = torch.minimum(pixel + 1, length * end.unsqueeze(1))
    return (last - first).clamp(min=0)


def _normalise(maps: Tensor) -> Tensor:
    """Flatten maps to float64 ``(n, h * w)`` with a sum of 1, or of 0 for empty ones."""
    values = maps.double().flatten(1)
    mass = values.sum(1, keepdim=True)
    return values / torch.where(mass > 0, mass, 1.0)


def is_empty(maps: Tensor) -> Tensor:
    """Whether maps ``(n, h, w)`` have no mass at all, bool ``(n,)``."""
    return maps.flatten(1).amax(1) == 0


def grid_pointing_game(
    maps: Tensor, cells: Tensor, size: tuple[int, int] | None = None
) -> GridPointing:
    """Grid pointing game: where the mass of the maps of a spliced image lies.

    After Böhle, Fritz and Schiele, *Convolutional Dynamic Alignment Networks for Interpretable
    Classifications*, CVPR 2021. With R x C cells, chance is 1 / (R C).

    Args:
        maps (Tensor): Maps of all classes, ``(num_classes, h, w)``.
        cells (Tensor): The class in every cell, int64 ``(rows, columns)``, -1 where it is none of
            these; cells are of one size.
        size (tuple[int, int], optional): Height and width of the input, to which the maps of the
            classes in ``cells`` are resized bilinearly. Defaults to None: as they are.

    Returns:
        GridPointing: Classes, shares, chance and which maps are empty.

    Raises:
        ValueError: If the maps are not finite and non-negative, or ``cells`` holds no classes.
    """
    check_class_maps(maps)
    if cells.ndim != 2 or cells.numel() == 0 or cells.min() < -1 or cells.max() >= len(maps):
        raise ValueError(
            'Expected argument `cells` to have shape (rows, columns) with classes in '
            f'0..{len(maps) - 1}, or -1, but got {cells.tolist()}.'
        )
    classes = cells[cells >= 0].unique()
    own_maps = maps[classes]
    if size is not None and len(classes) > 0:
        own_maps = resize_maps(own_maps, size)
    size = own_maps.shape[1:]
    cell_masks = torch.stack([box_coverage(box.unsqueeze(0), size) for box in _cell_boxes(cells)])
    belongs = (cells.flatten() == classes.unsqueeze(1)).double()
    class_masks = belongs @ cell_masks.flatten(1)
    shares = _normalise(own_maps) @ class_masks.T
    return GridPointing(classes, shares, belongs.mean(1), is_empty(own_maps))


def _cell_boxes(cells: Tensor) -> Tensor:
    """Boxes of the cells, row by row, as x1, y1, x2, y2 in 0..1: float64 ``(num_cells, 4)``."""
    rows, columns = cells.shape
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64, device=cells.device),
        torch.arange(columns, dtype=torch.float64, device=cells.device),
        indexing='ij',
    )
    return torch.stack(
        [column / columns, row / rows, (column + 1) / columns, (row + 1) / rows], dim=2
    ).flatten(0, 1)


def energy_pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Energy-based pointing game: the share of every map's mass in its own mask.

    After Wang et al., *Score-CAM*, CVPR Workshops 2020. Chance is the mask's share of the area.

    Args:
        maps (Tensor): Non-negative maps at input resolution, ``(n, height, width)``.
        masks (Tensor): Where the object is, see :func:`box_coverage`, same shape.

    Returns:
        Tensor: float64 ``(n,)`` in 0..1; 0 for an empty map.

    Raises:
        ValueError: If the maps are not finite and non-negative, or the shapes differ.
    """
    _check_masks(maps, masks)
    return (_normalise(maps) * masks.double().flatten(1)).sum(1)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Pointing game: whether the highest pixel of every map lies in its own mask.

    After Zhang et al., *Top-down Neural Attention by Excitation Backprop*, IJCV 2018, without
    their margin of 15 pixels. Where several pixels are highest (to a relative 1e-9, which
    interpolation does not exceed), the result is the share of them in the mask, as for a draw
    among them; so a uniform map gets the mask's share of the area, which is chance.

    Args:
        maps (Tensor): Non-negative maps at input resolution, ``(n, height, width)``.
        masks (Tensor): Where the object is, see :func:`box_coverage`, same shape.

    Returns:
        Tensor: float64 ``(n,)`` in 0..1; 0 for an empty map.

    Raises:
        ValueError: If the maps are not finite and non-negative, or the shapes differ.
    """
    _check_masks(maps, masks)
    values = maps.double().flatten(1)
    highest = (values >= values.amax(1, keepdim=True) * (1 - 1e-9)).double()
    hits = (highest * masks.double().flatten(1)).sum(1) / highest.sum(1)
    return torch.where(is_empty(maps), 0.0, hits)


def _check_masks(maps: Tensor, masks: Tensor) -> None:
    check_class_maps(maps)
    expected = f'to have the shape of `maps`, {tuple(maps.shape)}'
    check_argument(masks.shape == maps.shape, 'masks', expected, tuple(masks.shape))


def completeness(logits: Tensor, means: Tensor, bias: Tensor) -> float:
    """Share of the logits that maps account for: 1 where map and bias make the logit, always.

    ``1 - sum(abs(logit - bias - mean)) / sum(abs(logit - bias))``, over images and classes.

    Args:
        logits (Tensor): ``(N, num_classes)``.
        means (Tensor): Mean over positions of every map before it is clamped, same shape.
        bias (Tensor): What the logit is without features, ``(num_classes,)``.

    Returns:
        float: 1 at best, below 0 where the maps are further from the logits than empty maps.
    """
    rest = logits.double() - bias.double()
    missing = (rest - means.double()).abs().sum()
    return 1 - (missing / rest.abs().sum().clamp(min=1e-300)).item()


def map_correlation(maps: Tensor) -> Tensor:
    """Pearson correlation over pixels between all pairs of maps of one image.

    Args:
        maps (Tensor): Non-negative maps, ``(n, h, w)``.

    Returns:
        Tensor: float64 ``(n, n)`` in -1..1; 0 in the row and column of a map without variation
        (uniform or empty). Unrelated maps have 0 on average.

    Raises:
        ValueError: If the maps are not finite and non-negative.
    """
    check_class_maps(maps)
    values = maps.double().flatten(1)
    # Asked before centring: the mean of equal numbers may differ from them by rounding.
    varies = values.amax(1) > values.amin(1)
    directions = F.normalize(values - values.mean(1, keepdim=True), dim=1, eps=1e-300)
    directions = torch.where(varies.unsqueeze(1), directions, 0.0)
    return (directions @ directions.T).clamp(-1, 1)
