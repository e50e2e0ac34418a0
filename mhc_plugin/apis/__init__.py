"""What the tools call, and what a notebook would call."""
from .class_maps import class_maps
from .config import load_config
from .inferencer import MultiLabelInferencer
from .model import load_model
from .test import test
from .thresholds import choose_thresholds
from .train import TrainResult, train

__all__ = [
    'MultiLabelInferencer', 'TrainResult', 'choose_thresholds', 'class_maps', 'load_config',
    'load_model', 'test', 'train'
]
