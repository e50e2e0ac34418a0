"""Multi-head, multi-label classification for MMPretrain.

``custom_imports = dict(imports=['mhc_plugin'])`` in a config registers every part.
"""

from . import compat
from .version import __version__

compat.check_stack()
compat.apply()

from . import datasets, engine, evaluation, models  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
