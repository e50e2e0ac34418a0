"""Thresholds per class, chosen for the best F1."""

from mmpretrain.registry import METRICS
from torch import Tensor

from mhc_plugin.functional.thresholds import best_f1_threshold_of_class

from .running import KnownScores, RunningMetric, pairs_of_classes


@METRICS.register_module()
class BestF1Thresholds(RunningMetric):
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

    def new_state(self) -> KnownScores:
        return KnownScores()

    def add(self, state: KnownScores, scores: Tensor, target: Tensor) -> KnownScores:
        return state.add(scores, target)

    def compute_metrics(self, results: list[KnownScores]) -> dict:
        """Choose the thresholds over all samples.

        Args:
            results (list[KnownScores]): What every process has kept.

        Returns:
            dict: Two lists, one number per class each.
        """
        thresholds, f1 = zip(
            *(best_f1_threshold_of_class(*known) for known in pairs_of_classes(results))
        )
        return {
            'threshold_classwise': list(thresholds),
            'best-f1_classwise': [100 * value for value in f1],
        }
