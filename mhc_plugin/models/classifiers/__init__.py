"""Classifiers with a frozen backbone."""
from .data_preprocessor import FeatureDataPreprocessor
from .frozen_backbone import FrozenBackboneClassifier

__all__ = ['FeatureDataPreprocessor', 'FrozenBackboneClassifier']
