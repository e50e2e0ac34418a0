"""Thresholds per class, chosen for the best F1."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS
from torch import Tensor

from mhc_plugin.functional.thresholds import best_f1_thresholds

from .samples import read_scores, stack_scores


@METRICS.register_module()
class BestF1Thresholds(BaseMetric):
    """For every class the threshold with the best F1 over its known targets.

    Results: ``multi-label/threshold_classwise``, scores in 0..1, and
    ``multi-label/best-f1_classwise`` in percent, which is optimistic, since the thresholds are
    chosen on the same data. A class without positives has threshold 0.5 and F1 0.

    Args:
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.
    """

    default_prefix = 'multi-label'

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep scores and targets of one batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_score``, and ``gt_score`` or ``gt_label``.
        """
        self.results.extend(read_scores(data_sample) for data_sample in data_samples)

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict:
        """Choose the thresholds over all samples.

        Args:
            results (list): Scores and targets of every sample.

        Returns:
            dict: Two lists, one number per class each.
        """
        best = best_f1_thresholds(*stack_scores(results))
        return {
            'threshold_classwise': best.thresholds.tolist(),
            'best-f1_classwise': (100 * best.f1).tolist(),
        }
