"""Classifiers, heads, layers and losses for MMPretrain's MODELS registry."""

from .classifiers import *
from .heads import *
from .losses import *
from .pretrained import EfficientNetLite0Init
