"""Grid pointing game for spliced images."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS
from torch import Tensor

from mhc_plugin.functional.localisation import grid_pointing_game

from .class_map_results import (
    check_size,
    input_size,
    log_per_class,
    mean_per_class,
    read_maps,
    summarise,
)
from .samples import in_test_loop


@METRICS.register_module()
class GridPointingGame(BaseMetric):
    """Share of the mass of a class's map that lies in the class's own cell.

    For every class that a spliced image shows, the map is resized bilinearly to the size of the
    input and its mass is counted per cell. An empty map scores 0 and is counted as empty; a
    uniform map scores the cell's share of the area, which is chance: 25 % for 2 x 2.

    Results in percent, over the maps of all composites, and, with ``_sure`` put behind
    ``grid_pg``, over those of the composites whose classes the model is sure of (a score of
    ``sure_thr`` at least for all that are there):

    - ``multi-label/grid_pg``, ``..._chance``, ``..._q25``, ``..._median``, ``..._q75``: mean, its
      level of chance, and quartiles;
    - ``..._num_maps``, ``..._num_empty``: how many maps, and how many of them are empty.

    With ``per_class=True`` also lists over classes, NaN where a class is never there:

    - ``..._classwise`` and ``..._chance_classwise``;
    - ``..._matrix`` and ``..._chance_matrix``: in row i and column j the mean share of the mass of
      class i's map in the cell of class j, over the composites that show both.

    A table per class is logged with ``per_class=True``, and in a test loop always.

    Args:
        size (tuple[int, int], optional): Height and width to resize maps to. Defaults to None,
            which means the sample's ``img_shape``.
        sure_thr (float): Score from which on the model counts as sure. Defaults to 0.5.
        per_class (bool): Whether to report lists per class. Defaults to False.
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.

    Raises:
        ValueError: If an argument does not fit; while evaluating, if a sample lacks ``pred_cam``,
            ``pred_score`` or ``gt_cells``, or a map is not finite and non-negative.
    """

    default_prefix = 'multi-label'

    def __init__(
        self,
        size: Sequence[int] | None = None,
        sure_thr: float = 0.5,
        per_class: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        if not 0 <= sure_thr <= 1:
            raise ValueError(f'Expected argument `sure_thr` to be in 0..1, but got {sure_thr}.')
        self.size = check_size(size)
        self.sure_thr = sure_thr
        self.per_class = per_class
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the shares of mass of one batch, not the maps.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_cam``, ``pred_score``, ``gt_cells`` (int64
                ``(rows, columns)``) and, without ``size``, ``img_shape``.
        """
        for data_sample in data_samples:
            maps = read_maps(data_sample)
            cells, pred_score = (data_sample.get(key) for key in ('gt_cells', 'pred_score'))
            if cells is None or pred_score is None:
                raise ValueError(
                    'Expected data samples with `gt_cells` and `pred_score`, but got '
                    'one without. The grid pointing game is for spliced images.'
                )
            pointing = grid_pointing_game(
                maps, torch.as_tensor(cells).cpu(), input_size(data_sample, self.size)
            )
            sure = bool((pred_score.detach().cpu()[pointing.classes] >= self.sure_thr).all())
            self.results.append(dict(num_classes=len(maps), sure=sure, **pointing._asdict()))

    def compute_metrics(self, results: list[dict]) -> dict:
        """Sum up over all samples.

        Args:
            results (list[dict]): What :meth:`process` kept of every sample.

        Returns:
            dict: Names without prefix, and floats or lists.
        """
        if len(results) == 0:
            raise ValueError('Expected at least one sample to evaluate, but got none.')
        num_classes = results[0]['num_classes']
        metrics = {}
        for name, chosen in (
            ('grid_pg', results),
            ('grid_pg_sure', [r for r in results if r['sure']]),
        ):
            metrics.update(self._summarise(name, chosen, num_classes))
        return metrics

    def _summarise(self, name: str, results: list[dict], num_classes: int) -> dict:
        classes = _concat([r['classes'] for r in results], torch.int64)
        values = _concat([r['shares'].diagonal() for r in results], torch.float64)
        chance = _concat([r['chance'] for r in results], torch.float64)
        empty = _concat([r['empty'] for r in results], torch.bool)
        metrics = summarise(name, values, chance, empty, quartiles=True)
        lists = {
            f'{name}_classwise': mean_per_class(values, classes, num_classes),
            f'{name}_chance_classwise': mean_per_class(chance, classes, num_classes),
            f'{name}_matrix': _mean_matrix(results, 'shares', num_classes),
            f'{name}_chance_matrix': _mean_matrix(results, 'chance', num_classes),
        }
        if results and (self.per_class or in_test_loop()):
            log_per_class(name, metrics | lists, self.dataset_meta)
        return metrics | lists if self.per_class else metrics


def _concat(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([torch.empty(0, dtype=dtype), *tensors])


def _mean_matrix(results: list[dict], key: str, num_classes: int) -> list[list[float]]:
    """Mean in percent over the composites that show both classes, NaN where none does."""
    sums, counts = torch.zeros(2, num_classes, num_classes, dtype=torch.float64)
    for result in results:
        rows, columns = torch.meshgrid(result['classes'], result['classes'], indexing='ij')
        sums[rows, columns] += result[key]
        counts[rows, columns] += 1
    return (100 * sums / counts).tolist()
