"""Hooks, loops, and what builds or wraps an optimizer."""

from .hooks import *
from .loops import *
from .optim import CPUAmpOptimWrapper as CPUAmpOptimWrapper
from .optim import TrainedOptimWrapperConstructor as TrainedOptimWrapperConstructor
