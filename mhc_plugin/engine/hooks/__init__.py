"""Hooks for training."""
from .reproducible_epoch_hook import ReproducibleEpochHook
from .sync_trained_buffers_hook import SyncTrainedBuffersHook

__all__ = ['ReproducibleEpochHook', 'SyncTrainedBuffersHook']
