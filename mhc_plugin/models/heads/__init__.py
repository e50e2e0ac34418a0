"""Heads for MMPretrain classifiers: one for every class, fused."""

from .attention_head import AttentionMultiHeadClsHead
from .base import BaseMultiHeadClsHead, SplitHead
from .conv_multi_head import ConvClsHead, ConvMultiHeadClsHead
from .multi_head import MultiHeadClsHead

__all__ = [
    'AttentionMultiHeadClsHead',
    'BaseMultiHeadClsHead',
    'ConvClsHead',
    'ConvMultiHeadClsHead',
    'MultiHeadClsHead',
    'SplitHead',
]
