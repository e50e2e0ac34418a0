from .best_f1_thresholds import BestF1Thresholds
from .box_pointing_games import EnergyPointingGame, PointingGame
from .grid_pointing_game import GridPointingGame
from .map_correlation import MapCorrelation
from .multi_label_mean_ap import MultiLabelMeanAP
from .topk_multi_label import TopKMultiLabelMetric

__all__ = [
    'BestF1Thresholds',
    'EnergyPointingGame',
    'GridPointingGame',
    'MapCorrelation',
    'MultiLabelMeanAP',
    'PointingGame',
    'TopKMultiLabelMetric',
]
