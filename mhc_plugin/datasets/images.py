"""Images from files, folders and arrays, prepared as a config's test pipeline does."""

import copy
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from .image_files import SUFFIXES

Image = str | os.PathLike | np.ndarray


def list_images(inputs: Image | Sequence[Image]) -> list[str | np.ndarray]:
    """List what an input stands for.

    Args:
        inputs (str | PathLike | np.ndarray | Sequence): An image file, a folder (images in it and
            below it), a glob pattern (``**`` goes through folders), an array, or a sequence of
            any of these.

    Returns:
        list[str | np.ndarray]: Paths and arrays; those of folders and patterns are sorted.

    Raises:
        FileNotFoundError: If a folder or pattern holds no image. A file that is not there is
            listed: it cannot be read, as others may not.
    """
    if isinstance(inputs, np.ndarray):
        return [inputs]
    if not isinstance(inputs, str | os.PathLike):
        return [image for item in inputs for image in list_images(item)]
    path = os.fspath(inputs)
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).rglob('*') if p.suffix.lower() in SUFFIXES)
        where = f'folder {path}'
    elif not os.path.exists(path) and glob.has_magic(path):
        found = sorted(p for p in glob.glob(path, recursive=True) if os.path.isfile(p))
        where = f'pattern {path}'
    else:
        return [path]
    if not found:
        raise FileNotFoundError(f'There is no image in {where}.')
    return found


def read_image(image: str | np.ndarray) -> np.ndarray:
    """Read an image as MMPretrain's ``LoadImageFromFile`` would.

    Args:
        image (str | np.ndarray): A path; or an array, uint8 (H, W), (H, W, 1) or (H, W, 3), the
            last in BGR order as OpenCV and mmcv read it.

    Returns:
        np.ndarray: BGR, uint8 (H, W, 3), upright.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (1,), (3,)) or image.ndim < 2:
            raise ValueError(
                'Expected an image to be a uint8 array of shape (H, W), (H, W, 1) or '
                f'(H, W, 3), but got {image.dtype} {image.shape}.'
            )
        return image if image.shape[2:] == (3,) else mmcv.gray2bgr(image.reshape(image.shape[:2]))
    if not os.path.isfile(image):
        raise FileNotFoundError(f'There is no image file {image}.')
    try:
        pixels = mmcv.imread(image)
    except Exception:  # every decoder has its own errors
        pixels = None
    if pixels is None:
        raise ValueError(f'{image} cannot be read as an image.')
    return pixels


class ImagePipeline:
    """The test pipeline of a config, for images of any origin.

    What loads or composes an image is taken out of the pipeline. A model trained on splices gets
    ordinary images, resized to the size of a composite.

    Args:
        cfg (Config): A config with a ``test_dataloader``.
        tta (bool): Give the views of test-time augmentation: those of the config's
            ``tta_pipeline``, or else the image and its mirror image. Defaults to False.

    Raises:
        ValueError: If the config has no test pipeline.
    """

    def __init__(self, cfg: Config, tta: bool = False) -> None:
        dataset = test_dataset(cfg)
        pipeline = copy.deepcopy(dataset['pipeline'])
        if tta:
            pipeline = copy.deepcopy(cfg.get('tta_pipeline')) or flip_views(pipeline)
        self.steps = [
            step for transform in pipeline for step in _for_single_images(transform, dataset)
        ]
        # Transforms in transforms look for their types in the default scope.
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            self.transform = Compose([TRANSFORMS.build(step) for step in self.steps])

    def __call__(self, image: str | np.ndarray) -> dict:
        """Prepare one image.

        Args:
            image (str | np.ndarray): See :func:`read_image`.

        Returns:
            dict: ``inputs`` and ``data_samples``, as the pipeline packs them.

        Raises:
            FileNotFoundError, ValueError: If the image cannot be read.
        """
        pixels = read_image(image)
        results = dict(img=pixels, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2])
        if isinstance(image, str):
            results['img_path'] = image
        return self.transform(results)


def batches(items: Iterable[dict], batch_size: int) -> Iterator[dict]:
    """Collate packed items; a batch ends early where the size of images changes."""
    batch: list[dict] = []
    for item in items:
        if batch and (len(batch) == batch_size or _shapes(item) != _shapes(batch[0])):
            yield default_collate(batch)
            batch = []
        batch.append(item)
    if batch:
        yield default_collate(batch)


def flip_views(pipeline: Sequence[dict]) -> list[dict]:
    """Turn a test pipeline into one of two views: the image, and its mirror image.

    The image as it is comes first: its annotation is the one that a merged sample keeps.
    """
    *steps, pack = copy.deepcopy(list(pipeline))
    flips = [dict(type='RandomFlipWithCells', prob=prob) for prob in (0.0, 1.0)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def test_dataset(cfg: Config) -> dict:
    """Give the config of the test data set itself, inside whatever wraps it.

    Raises:
        ValueError: If there is none with a pipeline.
    """
    dataset = inner_dataset((cfg.get('test_dataloader') or {}).get('dataset'))
    if dataset is None:
        raise ValueError(
            'Expected the config to have a `test_dataloader` with a pipeline, which '
            'says how to prepare images.'
        )
    return dataset


def dataset_with_test_pipeline(cfg: Config, split: str) -> Dataset:
    """Build the data set of a split, prepared as for testing.

    Args:
        cfg (Config): A config.
        split (str): ``'train'``, ``'val'`` or ``'test'``: whose data loader to look into.

    Raises:
        ValueError: If the config has no such split.
    """
    dataset = copy.deepcopy((cfg.get(f'{split}_dataloader') or {}).get('dataset'))
    inner = inner_dataset(dataset)
    if inner is None:
        raise ValueError(
            f'Expected the config to have a `{split}_dataloader` with a data set and '
            'its pipeline, but it has none.'
        )
    inner['pipeline'] = copy.deepcopy(test_dataset(cfg)['pipeline'])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(dataset)


def test_image_size(cfg: Config) -> tuple[int, int]:
    """Give height and width of what the test pipeline makes of a square image."""
    pixels = np.zeros((256, 256, 3), np.uint8)
    height, width = ImagePipeline(cfg)(pixels)['inputs'].shape[-2:]
    return height, width


def inner_dataset(dataset: dict | None) -> dict | None:
    """Give the first config with a pipeline inside wrappers of a data set, or None."""
    while dataset is not None and 'pipeline' not in dataset:
        inner = dataset.get('dataset') or dataset.get('datasets')
        dataset = inner[0] if isinstance(inner, list | tuple) else inner
    return dataset


def _shapes(item: dict) -> list:
    inputs = item['inputs']
    return [view.shape for view in (inputs if isinstance(inputs, list) else [inputs])]


def _for_single_images(transform: dict, dataset: dict) -> list[dict]:
    """What stands in the place of a transform where one image is given."""
    kind = transform['type']
    kind = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
    if kind == 'LoadImageFromFile':
        return []
    if kind == 'ComposeTiles':
        rows, columns = dataset.get('grid', (2, 2))
        size = dataset.get('tile_size', 112)
        return [dict(type='Resize', scale=(columns * size, rows * size))]
    return [transform]
