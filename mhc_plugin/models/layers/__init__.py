"""Fused per-head primitives: linear, convolution, pools, channel split."""

from .conv_stage import NORMS, FusedConvStage
from .fused import FusedConv2d, FusedLinear, PerHeadGather
from .pooling import POOLS, GlobalPool

__all__ = [
    'NORMS',
    'POOLS',
    'FusedConv2d',
    'FusedConvStage',
    'FusedLinear',
    'GlobalPool',
    'PerHeadGather',
]
