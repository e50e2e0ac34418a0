from .boxes import NormalizeBoxes
from .tiles import ComposeTiles, RandomFlipWithCells

__all__ = ['ComposeTiles', 'NormalizeBoxes', 'RandomFlipWithCells']
