"""Heads for MMPretrain classifiers: one for every class, fused."""

from .attention_head import AttentionMultiHeadClsHead
from .base import BaseMultiHeadClsHead
from .conv_multi_head import ConvClsHead, ConvMultiHeadClsHead
from .multi_head import MultiHeadClsHead
from .split_head import SplitHead

__all__ = [
    'AttentionMultiHeadClsHead',
    'BaseMultiHeadClsHead',
    'ConvClsHead',
    'ConvMultiHeadClsHead',
    'MultiHeadClsHead',
    'SplitHead',
]
