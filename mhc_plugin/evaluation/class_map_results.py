"""What the metrics of class maps read from data samples, and how they sum up."""

import math
from collections.abc import Sequence

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from mhc_plugin.functional.checks import check_class_maps
from mhc_plugin.utils.logs import log_table

from .samples import class_names


def check_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """Check the size that maps are resized to, (height, width) or None."""
    if size is None:
        return None
    fits = isinstance(size, Sequence) and len(size) == 2
    if not fits or not all(isinstance(side, int) and side >= 1 for side in size):
        raise ValueError(
            f'Expected argument `size` to be (height, width) in pixels or None, but got {size!r}.'
        )
    return tuple(size)


def read_maps(data_sample: dict) -> Tensor:
    """Read the maps of all classes of one sample.

    Args:
        data_sample (dict | DataSample): With ``pred_cam``, raw non-negative maps
            ``(num_classes, h, w)``; if there is a ``pred_score``, it tells ``num_classes``.

    Returns:
        Tensor: The maps, on the CPU.

    Raises:
        ValueError: If there are none, they are not of all classes, or they are not finite and
            non-negative.
    """
    maps = data_sample.get('pred_cam')
    if maps is None:
        raise ValueError(
            'Expected data samples with class maps in `pred_cam`, but got one '
            'without. Use ClassMapValLoop or ClassMapTestLoop, or --maps of '
            'tools/test.py.'
        )
    maps = maps.detach().cpu()
    check_class_maps(maps)
    pred_score = data_sample.get('pred_score')
    if pred_score is not None and len(pred_score) != len(maps):
        raise ValueError(
            f'Expected `pred_cam` to hold maps of all {len(pred_score)} classes, but '
            f'got {len(maps)}.'
        )
    return maps


def input_size(data_sample: dict, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width to resize maps to: ``size``, or those of the image that the model saw.

    Raises:
        ValueError: If neither ``size`` nor the sample's ``img_shape`` is given.
    """
    size = size or data_sample.get('img_shape')
    if size is None:
        raise ValueError(
            'Expected data samples with `img_shape`, but got one without. Keep it '
            'among the `meta_keys` of PackInputs, or give the metric a `size`.'
        )
    return tuple(size[:2])


def summarise(
    name: str, values: Tensor, chance: Tensor, empty: Tensor, quartiles: bool
) -> dict[str, float]:
    """Sum up a figure over maps.

    Args:
        name (str): Name of the figure.
        values (Tensor): Figure of every map as a share, float64 ``(num_maps,)``.
        chance (Tensor): What a uniform map would get, same shape.
        empty (Tensor): Whether a map is empty, bool, same shape.
        quartiles (bool): Whether to add the quartiles.

    Returns:
        dict[str, float]: Mean, its level of chance and, if asked, quartiles, in percent, then the
        numbers of maps and of empty ones. NaN if there is no map.
    """
    result = {name: 100 * values.mean().item(), f'{name}_chance': 100 * chance.mean().item()}
    if quartiles:
        points = values.new_tensor([0.25, 0.5, 0.75])
        cuts = values.quantile(points) if len(values) > 0 else torch.full_like(points, torch.nan)
        for label, cut in zip(('q25', 'median', 'q75'), cuts.tolist()):
            result[f'{name}_{label}'] = 100 * cut
    result[f'{name}_num_maps'] = float(len(values))
    result[f'{name}_num_empty'] = float(empty.sum())
    return result


def mean_per_class(values: Tensor, classes: Tensor, num_classes: int) -> list[float]:
    """Mean in percent over the maps of every class, NaN for a class without maps."""
    sums = values.new_zeros(num_classes).index_add(0, classes, values)
    return (100 * sums / classes.bincount(minlength=num_classes)).tolist()


def log_per_class(name: str, metrics: dict, dataset_meta: dict | None) -> None:
    """Log a table of a figure and its level of chance per class.

    Args:
        name (str): Name of the figure.
        metrics (dict): With ``<name>``, ``<name>_classwise`` and the same for ``<name>_chance``.
        dataset_meta (dict, optional): Where the names of the classes come from.
    """
    values, chances = metrics[f'{name}_classwise'], metrics[f'{name}_chance_classwise']
    table = Table(title=f'{name} per class')
    table.add_column('class')
    table.add_column('mean', justify='right')
    table.add_column('chance', justify='right')
    for label, value, chance in zip(class_names(dataset_meta, len(values)), values, chances):
        table.add_row(Text(label), _show(value), _show(chance))
    table.add_section()
    table.add_row('all maps', _show(metrics[name]), _show(metrics[f'{name}_chance']))
    log_table(table)


def _show(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.2f}'
