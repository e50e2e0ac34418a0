"""What the tools call, and what a notebook would call."""

from mhc_plugin.analysis.measures import evaluate_maps, with_random_head
from mhc_plugin.analysis.road import road
from mhc_plugin.analysis.swap_test import swap_test

from .class_maps import class_maps, draw_class_maps
from .config import load_config
from .export import export_onnx
from .inferencer import MultiLabelInferencer
from .model import load_model
from .test import choose_thresholds, test
from .train import TrainResult, train

__all__ = [
    'MultiLabelInferencer',
    'TrainResult',
    'choose_thresholds',
    'class_maps',
    'draw_class_maps',
    'evaluate_maps',
    'export_onnx',
    'load_config',
    'load_model',
    'road',
    'swap_test',
    'test',
    'train',
    'with_random_head',
]
