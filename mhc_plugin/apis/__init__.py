"""What the tools call, and what a notebook would call."""

from mhc_plugin.analysis.measures import evaluate_maps, with_random_head
from mhc_plugin.analysis.road import road
from mhc_plugin.analysis.swap_test import swap_test

from .class_maps import class_maps, draw_class_maps
from .config import load_config
from .export import export_onnx
from .head_files import HeadFile, compare_heads, read_head, remove_head
from .heads import add_head, assemble_heads, extract_heads, load_heads, verify_heads
from .inferencer import MultiLabelInferencer
from .model import load_model
from .sweep import SweepRun, sweep
from .test import choose_thresholds, test
from .train import TrainResult, train

__all__ = [
    'HeadFile',
    'MultiLabelInferencer',
    'SweepRun',
    'TrainResult',
    'add_head',
    'assemble_heads',
    'choose_thresholds',
    'class_maps',
    'compare_heads',
    'draw_class_maps',
    'evaluate_maps',
    'export_onnx',
    'extract_heads',
    'load_config',
    'load_heads',
    'load_model',
    'read_head',
    'remove_head',
    'road',
    'swap_test',
    'sweep',
    'test',
    'train',
    'verify_heads',
    'with_random_head',
]
