"""Hooks and optimizer wrappers."""
from .hooks import *
from .optimizers import *
