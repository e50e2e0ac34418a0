"""MMEngine's loops over stored features, and with class maps."""

from .class_map_loops import (
    ClassMapTestLoop,
    ClassMapValLoop,
    FeatureCacheClassMapTestLoop,
    FeatureCacheClassMapValLoop,
)
from .feature_cache_loops import FeatureCacheTestLoop, FeatureCacheTrainLoop, FeatureCacheValLoop
from .optimum_loop import OptimumTrainLoop
from .sweep_loop import SweepTrainLoop

__all__ = [
    'ClassMapTestLoop',
    'ClassMapValLoop',
    'FeatureCacheClassMapTestLoop',
    'FeatureCacheClassMapValLoop',
    'FeatureCacheTestLoop',
    'FeatureCacheTrainLoop',
    'FeatureCacheValLoop',
    'OptimumTrainLoop',
    'SweepTrainLoop',
]
