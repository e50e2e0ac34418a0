from .boxes import NormalizeBoxes
from .compose_tiles import ComposeTiles
from .random_flip_with_cells import RandomFlipWithCells

__all__ = ['ComposeTiles', 'NormalizeBoxes', 'RandomFlipWithCells']
