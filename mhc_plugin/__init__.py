"""Multi-head, multi-label classification for MMPretrain.

``custom_imports = dict(imports=['mhc_plugin'])`` in a config registers every part.
"""

from . import compat, stack
from .version import __version__

compat.give_back_find_loader()
stack.check_stack()
compat.apply()

from . import datasets, engine, evaluation, models  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
