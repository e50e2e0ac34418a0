"""Loops over stored features."""

from mhc_plugin.features.dataset import FeatureDataset
from mhc_plugin.features.options import DEFAULT_CACHE_DIR, CacheOptions

from .class_map_loops import (
    ClassMapTestLoop,
    ClassMapValLoop,
    FeatureCacheClassMapTestLoop,
    FeatureCacheClassMapValLoop,
)
from .feature_cache_loops import (
    FeatureCacheMixin,
    FeatureCacheTestLoop,
    FeatureCacheTrainLoop,
    FeatureCacheValLoop,
)

__all__ = [
    'DEFAULT_CACHE_DIR',
    'CacheOptions',
    'ClassMapTestLoop',
    'ClassMapValLoop',
    'FeatureCacheClassMapTestLoop',
    'FeatureCacheClassMapValLoop',
    'FeatureCacheMixin',
    'FeatureCacheTestLoop',
    'FeatureCacheTrainLoop',
    'FeatureCacheValLoop',
    'FeatureDataset',
]
