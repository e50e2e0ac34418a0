"""Mean average precision that leaves out what is not known."""

import torch
from mmengine.logging import MMLogger
from mmpretrain.registry import METRICS
from rich.table import Table
from rich.text import Text
from torch import Tensor

from mhc_plugin.functional.average_precision import EVAL_MODES, average_precision_of_class
from mhc_plugin.functional.checks import check_choice
from mhc_plugin.utils.logs import log_table

from .running import KnownScores, RunningMetric, pairs_of_classes
from .samples import class_names, in_test_loop


@METRICS.register_module()
class MultiLabelMeanAP(RunningMetric):
    """Mean average precision over the known targets, ties grouped as in scikit-learn.

    Classes without positives have no average precision and are left out of the mean.

    Results, in percent except for the counts; ``<name>`` is ``mAP``, or ``mAP_voc07`` for VOC's
    11-point form:

    - ``average='macro'``: ``multi-label/<name>``, and ``multi-label/<name>_num_classes``, the
      number of classes in the mean. The log says both in a sentence.
    - ``average=None``: the lists ``multi-label/<name>_classwise`` (NaN for a class without
      positives), ``multi-label/<name>_positives_classwise`` and
      ``multi-label/<name>_known_classwise``, the numbers of positive and of known targets.

    The scores of known pairs are kept, 5 bytes each in float32: 376 MB for 125,000 images with 601
    known classes, 6 MB for as many with 10.

    A table of average precision, positives and known targets per class is logged with
    ``average=None``, and in a test loop always.

    Args:
        average (str, optional): ``'macro'`` or None. Defaults to ``'macro'``.
        eval_mode (str): ``'area'`` under the curve, or ``'11points'`` as VOC 2007; the two differ
            by up to 5 points. Defaults to ``'area'``.
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.

    Raises:
        ValueError: If an argument does not fit; while evaluating, if a score is NaN or shapes
            differ.

    Examples:
        >>> from mmengine.evaluator import Evaluator
        >>> from mmpretrain.structures import DataSample
        >>> samples = [DataSample().set_pred_score([0.9, 0.2]).set_gt_score([1., 0.]),
        ...            DataSample().set_pred_score([0.9, 0.6]).set_gt_score([0., -1.])]
        >>> evaluator = Evaluator(MultiLabelMeanAP())
        >>> evaluator.process(samples)
        >>> evaluator.evaluate(2)
        {'multi-label/mAP': 50.0, 'multi-label/mAP_num_classes': 1.0}
    """

    def __init__(
        self,
        average: str | None = 'macro',
        eval_mode: str = 'area',
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        check_choice('average', average, ('macro', None))
        check_choice('eval_mode', eval_mode, EVAL_MODES)
        self.average = average
        self.eval_mode = eval_mode
        super().__init__(collect_device=collect_device, prefix=prefix)

    def new_state(self) -> KnownScores:
        return KnownScores()

    def add(self, state: KnownScores, scores: Tensor, target: Tensor) -> KnownScores:
        return state.add(scores, target)

    def compute_metrics(self, results: list[KnownScores]) -> dict:
        """Compute the results over all samples.

        Args:
            results (list[KnownScores]): What every process has kept.

        Returns:
            dict: Names without prefix, and floats or lists.
        """
        ap, positives, known = [], [], []
        for score, positive in pairs_of_classes(results):
            ap.append(average_precision_of_class(score, positive, self.eval_mode))
            positives.append(int(positive.sum()))
            known.append(len(score))
        ap = 100 * torch.stack(ap)
        mean_ap, num_averaged = ap.nanmean().item(), int((~ap.isnan()).sum())

        name = 'mAP' if self.eval_mode == 'area' else 'mAP_voc07'
        if self.average is None or in_test_loop():
            self._log_table(name, ap, positives, known)
        self._log_sentence(name, mean_ap, num_averaged, len(ap))

        if self.average is None:
            return {
                f'{name}_classwise': ap.tolist(),
                f'{name}_positives_classwise': positives,
                f'{name}_known_classwise': known,
            }
        return {name: mean_ap, f'{name}_num_classes': float(num_averaged)}

    def _log_sentence(self, name: str, mean_ap: float, num_averaged: int, num_classes: int) -> None:
        logger = MMLogger.get_current_instance()
        if num_averaged == 0:
            logger.warning(
                f'{name} is undefined: none of the {num_classes} classes has a positive target.'
            )
            return
        left_out = num_classes - num_averaged
        logger.info(
            f'{name} {mean_ap:.2f} is the mean over {num_averaged} of {num_classes} '
            f'classes; {left_out} without positives left out.'
        )

    def _log_table(self, name: str, ap: Tensor, positives: list[int], known: list[int]) -> None:
        table = Table(title=f'Average precision per class ({name})')
        table.add_column('class')
        for column in ('AP', 'positives', 'known'):
            table.add_column(column, justify='right')
        rows = zip(class_names(self.dataset_meta, len(ap)), ap.tolist(), positives, known)
        for label, value, num_positives, num_known in rows:
            # A class without positives has no average precision.
            shown = f'{value:.2f}' if num_positives > 0 else '-'
            table.add_row(Text(label), shown, str(num_positives), str(num_known))
        log_table(table)
