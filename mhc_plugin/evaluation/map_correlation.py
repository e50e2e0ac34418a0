"""How alike the maps of different classes on one image are."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS
from torch import Tensor

from mhc_plugin.functional.localisation import is_empty, map_correlation

from .class_map_results import log_per_class, read_maps
from .samples import in_test_loop, read_target


@METRICS.register_module()
class MapCorrelation(BaseMetric):
    """Pearson correlation over pixels between the maps of different classes on one image.

    1 means that two heads look at the same places; unrelated maps have 0 on average, which is the
    level of chance. Maps are compared at their own resolution. A pair with a map without variation
    (uniform, or empty) counts 0; empty maps are counted.

    Results, as coefficients in -1..1 except for the numbers; first the mean over the pairs of
    classes of an image, then over images:

    - ``multi-label/map_correlation`` and ``..._chance``: over the pairs of all classes;
    - ``multi-label/map_correlation_positive`` and ``..._positive_chance``: over the pairs of
      classes that are both on the image, over images with two or more (NaN if there is none);
    - ``..._num_maps``, ``..._num_empty``: how many maps, and how many of them are empty;
    - with ``per_class=True`` the lists ``..._classwise``, every class's mean with all others, and
      ``..._chance_classwise``.

    A table per class is logged with ``per_class=True``, and in a test loop always.

    Args:
        per_class (bool): Whether to report lists per class. Defaults to False.
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.

    Raises:
        ValueError: While evaluating, if a sample lacks ``pred_cam`` or both ``gt_score`` and
            ``gt_label``, there are fewer than two classes, or a map is not finite and
            non-negative.
    """

    default_prefix = 'multi-label'

    def __init__(
        self, per_class: bool = False, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        self.per_class = per_class
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the correlations of one batch, not the maps.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_cam``, and ``gt_score`` or ``gt_label``.
        """
        for data_sample in data_samples:
            maps = read_maps(data_sample)
            if len(maps) < 2:
                raise ValueError(
                    f'Expected `pred_cam` to hold maps of two classes or more, but got {len(maps)}.'
                )
            positive = read_target(data_sample, len(maps)) == 1
            correlation = map_correlation(maps).fill_diagonal_(0)
            self.results.append(
                dict(
                    # A row of N numbers instead of a matrix: enough for all means, and small.
                    with_others=correlation.sum(1) / (len(maps) - 1),
                    positive=_mean_over_pairs(correlation[positive][:, positive]),
                    num_empty=int(is_empty(maps).sum()),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict:
        """Sum up over all samples.

        Args:
            results (list[dict]): What :meth:`process` kept of every sample.

        Returns:
            dict: Names without prefix, and floats or lists.
        """
        if len(results) == 0:
            raise ValueError('Expected at least one sample to evaluate, but got none.')
        with_others = torch.stack([r['with_others'] for r in results])
        positive = torch.tensor([r['positive'] for r in results], dtype=torch.float64)
        name = 'map_correlation'
        metrics = {
            name: with_others.mean().item(),
            f'{name}_chance': 0.0,
            f'{name}_positive': positive.nanmean().item(),
            f'{name}_positive_chance': 0.0,
            f'{name}_num_maps': float(with_others.numel()),
            f'{name}_num_empty': float(sum(r['num_empty'] for r in results)),
        }
        lists = {
            f'{name}_classwise': with_others.mean(0).tolist(),
            f'{name}_chance_classwise': [0.0] * with_others.shape[1],
        }
        if self.per_class or in_test_loop():
            log_per_class(name, metrics | lists, self.dataset_meta)
        return metrics | lists if self.per_class else metrics


def _mean_over_pairs(correlation: Tensor) -> float:
    """Mean off the diagonal, which is 0; NaN without a pair."""
    num_maps = len(correlation)
    return (correlation.sum() / (num_maps * (num_maps - 1))).item()
