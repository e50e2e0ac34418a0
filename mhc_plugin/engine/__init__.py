"""Hooks, loops, and mixed precision without a GPU."""

from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper as CPUAmpOptimWrapper
from .hooks import *
from .loops import *
