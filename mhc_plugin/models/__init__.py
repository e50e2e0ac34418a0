from .classifiers import *
from .heads import *
from .losses import *
