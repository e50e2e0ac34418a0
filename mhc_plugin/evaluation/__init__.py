from .multi_label_mean_ap import MultiLabelMeanAP
from .topk_multi_label import TopKMultiLabelMetric

__all__ = ['MultiLabelMeanAP', 'TopKMultiLabelMetric']
