"""Accuracy, precision, recall, F1 and Hamming distance of the k best ranked classes."""

from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.registry import METRICS
from torch import Tensor

from mhc_plugin.functional.checks import AVERAGES, check_choice
from mhc_plugin.functional.topk import (
    TOPK_ITEMS,
    LabelCounts,
    check_topk,
    count_hits,
    format_topk,
    label_scores,
)

from .running import RunningMetric
from .samples import class_names


@METRICS.register_module()
class TopKMultiLabelMetric(RunningMetric):
    """Label-wise scores when the k highest scores of an image count as predicted.

    The k places are chosen among all classes, ties broken by the lower index. Pairs whose target
    is unknown (-1) count neither as hit nor as miss. A class without any known target is left out
    of macro averages; how many were, and which, is logged.

    Counts are kept, no scores: memory does not grow with the number of images.

    Results are Python floats in percent: ``multi-label/<item>_top<k>`` for macro averages,
    ``multi-label/<item>_top<k>_micro`` for micro averages and
    ``multi-label/<item>_top<k>_classwise``, a list, for None (NaN where no target is known).

    Args:
        topk (int | Sequence[int]): One k or several, in 1..num_classes.
        items (Sequence[str]): Which of ``'accuracy'``, ``'precision'``, ``'recall'``, ``'f1'``
            and ``'hamming_distance'`` (the Hamming loss, HL, of papers) to report. Defaults to all
            five.
        average (str, optional): ``'macro'``, ``'micro'`` or None. Defaults to ``'macro'``.
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.

    Raises:
        ValueError: If an argument does not fit; while evaluating, if a k is larger than the
            number of classes, a score is NaN, or shapes differ.

    Examples:
        >>> import torch
        >>> from mmengine.evaluator import Evaluator
        >>> from mmpretrain.structures import DataSample
        >>> sample = DataSample().set_pred_score([0.9, 0.2, 0.4]).set_gt_score([1., 0., 0.])
        >>> evaluator = Evaluator(TopKMultiLabelMetric(topk=1, items=('precision', ), average='micro'))
        >>> evaluator.process([sample])
        >>> evaluator.evaluate(1)
        {'multi-label/precision_top1_micro': 100.0}
    """  # noqa: E501

    def __init__(
        self,
        topk: int | Sequence[int],
        items: Sequence[str] = TOPK_ITEMS,
        average: str | None = 'macro',
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        check_choice('average', average, AVERAGES)
        for item in items:
            check_choice('items', item, TOPK_ITEMS)
        self.topk = format_topk(topk)
        self.items = tuple(items)
        self.average = average
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in one batch; see :class:`RunningMetric`."""
        if len(data_samples) > 0 and data_samples[0].get('pred_score') is not None:
            check_topk(self.topk, len(data_samples[0].get('pred_score')))
        super().process(data_batch, data_samples)

    def new_state(self) -> dict[int, LabelCounts]:
        return {}

    def add(
        self, state: dict[int, LabelCounts], scores: Tensor, target: Tensor
    ) -> dict[int, LabelCounts]:
        return _sum([state, count_hits(scores, target, self.topk)])

    def compute_metrics(self, results: list[dict[int, LabelCounts]]) -> dict:
        """Compute the results over all samples.

        Args:
            results (list[dict[int, LabelCounts]]): What every process has counted.

        Returns:
            dict: Names without prefix, and floats or lists of floats in percent.
        """
        counts = _sum(results)
        if not counts:
            raise ValueError('Expected at least one sample to evaluate, but got none.')
        if self.average == 'macro':
            self._log_left_out(counts[self.topk[0]].known)

        suffix = {'macro': '', 'micro': '_micro', None: '_classwise'}[self.average]
        metrics = {}
        for k in self.topk:
            scores = label_scores(counts[k], self.average)
            metrics.update(
                {f'{item}_top{k}{suffix}': (100 * scores[item]).tolist() for item in self.items}
            )
        return metrics

    def _log_left_out(self, known: Tensor) -> None:
        left_out = (known == 0).nonzero().squeeze(1).tolist()
        if not left_out:
            return
        names = class_names(self.dataset_meta, len(known))
        MMLogger.get_current_instance().warning(
            f'{type(self).__name__}: macro averages are over {len(known) - len(left_out)} of '
            f'{len(known)} classes; without a known target: '
            f'{", ".join(names[index] for index in left_out)}.'
        )


def _sum(parts: Sequence[dict[int, LabelCounts]]) -> dict[int, LabelCounts]:
    parts = [part for part in parts if part]
    return (
        {k: LabelCounts(*map(sum, zip(*(part[k] for part in parts)))) for k in parts[0]}
        if parts
        else {}
    )
