"""A random flip that takes the cells of a splice along."""

from mmcv.transforms import RandomFlip
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomFlipWithCells(RandomFlip):
    """mmcv's ``RandomFlip`` that flips ``gt_cells``, too.

    A drop-in one: same arguments, same draws, same results for everything that mmcv's flips
    (image, boxes, key points, segmentation map), and nothing more on samples without cells.

    **Modified Keys**, besides those of mmcv's:

    - gt_cells (Tensor, optional): ``(rows, columns)``
    """

    _AXES = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        if 'gt_cells' in results:
            results['gt_cells'] = results['gt_cells'].flip(self._AXES[results['flip_direction']])
