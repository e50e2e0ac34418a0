"""Hooks for training."""

from .class_map_hook import ClassMapHook
from .reproducible_epoch_hook import ReproducibleEpochHook
from .small_checkpoint_hook import SmallCheckpointHook
from .sync_trained_buffers_hook import SyncTrainedBuffersHook

__all__ = ['ClassMapHook', 'ReproducibleEpochHook', 'SmallCheckpointHook', 'SyncTrainedBuffersHook']
