"""Single-label datasets as pools of source images, and what two of them have in common."""

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import mmengine.fileio as fileio
import numpy as np
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.annotation_files import check_path


class SourceImage(NamedTuple):
    """One image of a single-label dataset.

    Attributes:
        name (str): Its path below the image folder of its dataset, or its position in a
            dataset that holds its images in memory; positions are padded so that they sort.
        label (int): Class index in its own dataset.
        tile (dict): ``img_path``, or ``img``, a uint8 array, for an image in memory.
    """

    name: str
    label: int
    tile: dict

    @property
    def in_memory(self) -> bool:
        """Whether the image is an array and has no file."""
        return 'img' in self.tile


def read_source(cfg: dict) -> tuple[list[SourceImage], tuple[str, ...]]:
    """Build a single-label dataset and list its images by name.

    Args:
        cfg (dict): Config of any single-label MMPretrain dataset, or of a wrapper that has
            ``get_data_info`` and ``metainfo``. Its pipeline is not used.

    Returns:
        tuple[list[SourceImage], tuple[str, ...]]: The images, sorted by name, so that no order
        of a file system matters, and the names of the classes.

    Raises:
        FileNotFoundError: If ``data_root`` of the config does not exist.
        ValueError: If an image has no single label, if it has neither a path nor an array, or
            if the dataset does not name its classes.
    """
    if cfg.get('data_root'):
        check_path(cfg['data_root'], 'data_root')
    dataset = DATASETS.build(cfg)
    dataset.full_init()
    classes = dataset.metainfo.get('classes')
    if classes is None:
        raise ValueError(
            f'Expected argument `source` to be a dataset that names its classes, but '
            f'{type(dataset).__name__} does not: give its config `classes`.'
        )
    root = getattr(dataset, 'img_prefix', None)
    images = [_source_image(dataset, idx, root) for idx in range(len(dataset))]
    return sorted(images, key=lambda image: image.name), tuple(classes)


def _source_image(dataset, idx: int, root: str | None) -> SourceImage:
    info = dataset.get_data_info(idx)
    label = info.get('gt_label')
    if not isinstance(label, (int, np.integer)):
        raise ValueError(
            f'Expected argument `source` to be a single-label dataset, whose `gt_label` is an '
            f'int, but image {idx} of {type(dataset).__name__} has {label!r}.'
        )
    if 'img_path' in info:
        path = str(info['img_path'])
        name = os.path.relpath(path, root) if root else path
        return SourceImage(name, int(label), dict(img_path=path))
    if isinstance(info.get('img'), np.ndarray):
        return SourceImage(f'{idx:09d}', int(label), dict(img=info['img']))
    raise ValueError(
        f'Expected argument `source` to be a dataset whose images have `img_path` or an array '
        f'`img`, but image {idx} of {type(dataset).__name__} has {sorted(info)}.'
    )


def same_name(images: Sequence[SourceImage], others: Sequence[SourceImage]) -> set[int]:
    """Positions of the images whose file has the name of a file of ``others``.

    Images in memory have no names.
    """
    names = {other.name for other in others if not other.in_memory}
    return {
        position
        for position, image in enumerate(images)
        if not image.in_memory and image.name in names
    }


def same_content(images: Sequence[SourceImage], others: Sequence[SourceImage]) -> set[int]:
    """Positions of the images that are, byte for byte, one of ``others``.

    Only files whose size occurs on both sides are read. A file of ``others`` that is not on
    disk is nobody's copy.

    Raises:
        FileNotFoundError: If a file of ``images`` is missing.
    """
    sizes = [_size(image) for image in images]
    if None in sizes:
        path = images[sizes.index(None)].tile['img_path']
        raise FileNotFoundError(
            f"Expected every image of argument `source` to exist, but '{path}' does not."
        )
    own_sizes = set(sizes)
    candidates = [other for other in others if _size(other) in own_sizes]
    known = {_digest(other) for other in candidates}
    known_sizes = {_size(other) for other in candidates}
    return {
        position
        for position, (image, size) in enumerate(zip(images, sizes))
        if size in known_sizes and _digest(image) in known
    }


def _size(image: SourceImage) -> tuple | None:
    if image.in_memory:
        return image.tile['img'].shape
    path = image.tile['img_path']
    # Remote storage has no cheap size: every such file is read.
    if '://' in path:
        return ()
    return (os.path.getsize(path),) if os.path.isfile(path) else None


def _digest(image: SourceImage) -> bytes:
    if image.in_memory:
        content = np.ascontiguousarray(image.tile['img']).tobytes()
    else:
        content = fileio.get(image.tile['img_path'])
    return hashlib.sha256(content).digest()
