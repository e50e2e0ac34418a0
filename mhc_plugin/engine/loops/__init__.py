"""Loops over stored features."""
from .cache_options import DEFAULT_CACHE_DIR, CacheOptions
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
from .feature_dataset import FeatureDataset

__all__ = [
    'DEFAULT_CACHE_DIR', 'CacheOptions', 'ClassMapTestLoop', 'ClassMapValLoop',
    'FeatureCacheClassMapTestLoop', 'FeatureCacheClassMapValLoop', 'FeatureCacheMixin',
    'FeatureCacheTestLoop', 'FeatureCacheTrainLoop', 'FeatureCacheValLoop', 'FeatureDataset'
]
