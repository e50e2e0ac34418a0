"""Test-time augmentation for models with several labels."""

from mmpretrain.models import AverageClsScoreTTA, MultiLabelClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mhc_plugin.functional.thresholds import predicted_mask


@MODELS.register_module()
class MultiLabelScoreTTA(AverageClsScoreTTA):
    """Average the scores of all views, and set the labels anew from the average.

    MMPretrain's ``AverageClsScoreTTA`` keeps the labels of the first view. Labels follow ``thr``
    or ``topk`` of a multi-label head; under another head they are the highest score.
    """

    def _merge_single_sample(self, data_samples: list[DataSample]) -> DataSample:
        merged = super()._merge_single_sample(data_samples)
        head = self.module.head
        is_multi_label = isinstance(head, MultiLabelClsHead)
        thr, topk = (head.thr, head.topk) if is_multi_label else (None, 1)
        mask = predicted_mask(merged.pred_score[None], thr, topk)[0]
        return merged.set_pred_label(mask.nonzero()[:, 0])
