"""Boxes that stay true to the image: which pipelines they may enter, and how they are packed."""

from collections.abc import Callable, Sequence

import mmcv.transforms as mmcv_transforms
import mmpretrain.datasets.transforms as mmpretrain_transforms
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmpretrain.registry import TRANSFORMS

# mmcv's transforms rewrite the first; the second goes with it by mmcv's convention.
BOX_KEYS = ('gt_bboxes', 'gt_bboxes_labels', 'gt_bbox_difficult')


@TRANSFORMS.register_module()
class NormalizeBoxes(BaseTransform):
    """Turn boxes in pixels into boxes in 0..1 of the image, as tensors ready to be packed.

    Stands right before ``PackInputs``, whose ``algorithm_keys`` name what it adds. Samples without
    boxes pass unchanged; :class:`VOCSubset` and :class:`OpenImagesSubset` take the boxes away
    where a pipeline has a transform that crops, or that moves the image without them.

    **Required Keys:**

    - gt_bboxes (np.ndarray, optional): ``(n, 4)``, x1, y1, x2, y2 in pixels of ``img``
    - gt_bboxes_labels (np.ndarray, optional): int64 ``(n,)``
    - gt_bbox_difficult (np.ndarray, optional): bool ``(n,)``
    - img_shape (tuple): height, width

    **Modified Keys:**

    - gt_bboxes (Tensor): float32 ``(n, 4)``, x1, y1, x2, y2 in 0..1 of the image
    - gt_bbox_difficult (Tensor): bool ``(n,)``

    **Added Keys:**

    - gt_bbox_labels (Tensor): int64 ``(n,)``
    """

    def transform(self, results: dict) -> dict:
        """Normalise the boxes of one sample."""
        if 'gt_bboxes' not in results:
            return results
        height, width = results['img_shape'][:2]
        boxes = results['gt_bboxes'] / np.array([width, height, width, height])
        results['gt_bboxes'] = torch.from_numpy(boxes.clip(0, 1).astype(np.float32))
        results['gt_bbox_labels'] = torch.from_numpy(results.pop('gt_bboxes_labels'))
        results['gt_bbox_difficult'] = torch.from_numpy(results['gt_bbox_difficult'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


# These keep every pixel where boxes say it is: they leave the geometry alone, or they scale, flip
# or pad (at the right and below) and rewrite `gt_bboxes` where that is needed. MMPretrain's
# ResizeEdge does not rewrite them.
_WHOLE = tuple(
    getattr(module, name)
    for module, names in (
        (
            mmcv_transforms,
            (
                'LoadImageFromFile',
                'Normalize',
                'Pad',
                'RandomChoiceResize',
                'RandomFlip',
                'RandomGrayscale',
                'RandomResize',
                'Resize',
            ),
        ),
        (
            mmpretrain_transforms,
            (
                'AutoContrast',
                'Brightness',
                'ColorJitter',
                'ColorTransform',
                'Contrast',
                'Cutout',
                'Equalize',
                'GaussianBlur',
                'Invert',
                'Lighting',
                'NumpyToPIL',
                'PILToNumpy',
                'PackInputs',
                'Posterize',
                'RandomErasing',
                'Sharpness',
                'Solarize',
                'SolarizeAdd',
            ),
        ),
    )
    for name in names
) + (NormalizeBoxes,)


def keeps_whole_image(transforms: Sequence[Callable]) -> bool:
    """Whether boxes are still true after these transforms.

    A transform that is not known to keep the whole image and to take boxes along does not.

    Args:
        transforms (Sequence[Callable]): Built transforms, as in ``dataset.pipeline.transforms``.
    """
    return all(_keeps_whole_image(transform) for transform in transforms)


def _keeps_whole_image(transform: Callable) -> bool:
    # Every way through these has to keep it.
    if isinstance(transform, Compose | mmcv_transforms.Compose | mmcv_transforms.RandomChoice):
        return keeps_whole_image(transform.transforms)
    if isinstance(transform, mmcv_transforms.TestTimeAug):
        return keeps_whole_image(transform.subroutines)
    if isinstance(transform, mmcv_transforms.RandomApply):
        return _keeps_whole_image(transform.transforms)
    return isinstance(transform, _WHOLE)
