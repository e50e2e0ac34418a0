"""Put the tiles of a splice together, and flip it with its cells."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, RandomFlip
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ComposeTiles(BaseTransform):
    """Read the tiles of a composite, resize each, and put them together.

    The first transform of a :class:`SplicedDataset`'s pipeline, in the place of
    ``LoadImageFromFile``. Whatever a file is (grey, palette, CMYK, with an orientation in its
    EXIF data), its tile is upright and has three channels.

    **Required Keys:**

    - tiles (list[dict]): ``img_path`` of a file, or ``img``, a uint8 array (h, w), (h, w, 1)
      or (h, w, 3), the last in RGB order as MMPretrain's datasets in memory have it; row by row
    - tile_size (int): in pixels
    - gt_cells (Tensor): ``(rows, columns)``

    **Added Keys:**

    - img (np.ndarray): uint8 ``(rows * tile_size, columns * tile_size, 3)``, BGR as
      ``LoadImageFromFile`` gives it, so that ``to_rgb=True`` of a preprocessor is right
    - img_shape, ori_shape (tuple[int, int])

    Args:
        imdecode_backend (str): Backend of :func:`mmcv.imread`. Defaults to 'cv2'.
        interpolation (str): Interpolation of :func:`mmcv.imresize`. Defaults to 'bilinear'.
        backend_args (dict, optional): File backend of :func:`mmcv.imread`.
            Defaults to None.

    Raises:
        FileNotFoundError: If a tile's file is missing.
        ValueError: If a tile cannot be read as an image.
    """

    def __init__(
        self,
        imdecode_backend: str = 'cv2',
        interpolation: str = 'bilinear',
        backend_args: dict | None = None,
    ) -> None:
        self.imdecode_backend = imdecode_backend
        self.interpolation = interpolation
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Compose the image of one sample."""
        rows, columns = results['gt_cells'].shape
        size = results['tile_size']
        tiles = [self._resized(tile, size) for tile in results['tiles']]
        img = np.stack(tiles).reshape(rows, columns, size, size, 3)
        img = img.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results

    def _resized(self, tile: dict, size: int) -> np.ndarray:
        img = _from_memory(tile['img']) if 'img' in tile else self._from_file(tile['img_path'])
        return mmcv.imresize(img, (size, size), interpolation=self.interpolation)

    def _from_file(self, path: str) -> np.ndarray:
        try:
            img = mmcv.imread(
                path, flag='color', backend=self.imdecode_backend, backend_args=self.backend_args
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(f"Expected tile '{path}' to exist, but it does not.") from error
        except Exception as error:  # each backend has its own: cv2.error, OSError, SyntaxError
            raise ValueError(_unreadable(path)) from error
        if img is None:
            raise ValueError(_unreadable(path))
        return img

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(imdecode_backend='{self.imdecode_backend}', "
            f"interpolation='{self.interpolation}', backend_args={self.backend_args})"
        )


def _from_memory(img: np.ndarray) -> np.ndarray:
    if img.dtype != np.uint8 or img.ndim not in (2, 3) or img.shape[2:] not in ((), (1,), (3,)):
        raise ValueError(
            'Expected a tile in memory to be uint8 of shape (h, w), (h, w, 1) or (h, w, 3), but '
            f'got {img.dtype} {img.shape}.'
        )
    if img.shape[2:] == (3,):
        return mmcv.rgb2bgr(img)
    return mmcv.gray2bgr(img.reshape(img.shape[:2]))


def _unreadable(path: str) -> str:
    return f"Expected tile '{path}' to be an image, but it cannot be read as one."


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
