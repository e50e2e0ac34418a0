"""Classifiers with a frozen backbone."""

from .data_preprocessor import FeatureDataPreprocessor
from .frozen_backbone import FrozenBackboneClassifier
from .score_tta import MultiLabelScoreTTA

__all__ = ['FeatureDataPreprocessor', 'FrozenBackboneClassifier', 'MultiLabelScoreTTA']
