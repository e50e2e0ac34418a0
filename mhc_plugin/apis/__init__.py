"""What the tools call, and what a notebook would call."""
from .config import load_config
from .test import test
from .train import TrainResult, train

__all__ = ['TrainResult', 'load_config', 'test', 'train']
