"""Heads for MMPretrain classifiers: one for every class, fused."""

from .base import BaseMultiHeadClsHead
from .conv_multi_head import ConvClsHead, ConvMultiHeadClsHead
from .multi_head import MultiHeadClsHead
from .split import SplitHead

__all__ = [
    'BaseMultiHeadClsHead',
    'ConvClsHead',
    'ConvMultiHeadClsHead',
    'MultiHeadClsHead',
    'SplitHead',
]
