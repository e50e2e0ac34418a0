"""Hooks for training."""

from .class_map_hook import ClassMapHook
from .finite_loss_hook import FiniteLossHook
from .matching_checkpoint_hook import MatchingCheckpointHook
from .reproducible_epoch_hook import ReproducibleEpochHook
from .resume_hook import ResumeHook
from .small_checkpoint_hook import SmallCheckpointHook
from .sync_trained_buffers_hook import SyncTrainedBuffersHook

__all__ = [
    'ClassMapHook',
    'FiniteLossHook',
    'MatchingCheckpointHook',
    'ReproducibleEpochHook',
    'ResumeHook',
    'SmallCheckpointHook',
    'SyncTrainedBuffersHook',
]
