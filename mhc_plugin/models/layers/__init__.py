"""Fused per-head primitives: linear, convolution, pools, normalised maps."""

from .conv_stage import NORMS, FusedConvStage
from .fused import FusedConv2d, FusedLinear, view_of
from .pooling import (
    NORMALIZATIONS,
    POOLS,
    GlobalPool,
    NormalizeMaps,
    mean_over_positions,
    normalize_maps,
    resize_to_largest,
    side_by_side,
    signed_root,
)

__all__ = [
    'NORMALIZATIONS',
    'NORMS',
    'POOLS',
    'FusedConv2d',
    'FusedConvStage',
    'FusedLinear',
    'GlobalPool',
    'NormalizeMaps',
    'mean_over_positions',
    'normalize_maps',
    'resize_to_largest',
    'side_by_side',
    'signed_root',
    'view_of',
]
