"""Images put together from tiles of single-label images, each of another class."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.class_lists import near_names, shown
from mhc_plugin.datasets.targets import MultiLabelTargets
from mhc_plugin.functional.checks import check_argument, check_int, check_ints
from mhc_plugin.utils.seeding import sample_seed

from .sources import SourceImage, read_source, same_content, same_name


@DATASETS.register_module()
class SplicedDataset(MultiLabelTargets, BaseDataset):
    """Multi-label composites of the images of a single-label dataset.

    A composite is a grid of tiles, each a source image of another class. Nothing is written:
    the dataset deals out classes and images (:func:`plan_splices`), and the transform
    :class:`ComposeTiles`, first in the pipeline, reads the tiles and puts them together. Equal
    source, classes and seed give equal composites on any machine.

    Training and test composites must not share a source image. Where the source comes with a
    split (Imagenette's folders, Caltech-101's lists, the split of :class:`SklearnDigits`), each
    side is spliced from its own part, and ``exclude`` on the training side names the part of
    the test side: an image that stands in both, by name or by content, is left out of
    training. Content is that of the file, byte for byte: a copy saved anew is another image.
    A source in one piece is split by MMPretrain's ``KFoldDataset`` around it, with the same
    ``fold`` and ``seed`` on both sides and ``test_mode`` on one, and ``exclude`` keeps
    duplicates on one side there, too.

    Args:
        source (dict): Config of any single-label MMPretrain dataset. Its images are files or
            uint8 arrays, (h, w) grey or (h, w, 3) RGB. Composites hold the arrays themselves,
            ``length`` x cells of them.
        classes (Sequence[str], optional): Names of the classes to use, in the order of the
            class indices. Defaults to None, which means all classes of the source.
        grid (tuple[int, int]): Rows and columns of tiles. Defaults to (2, 2).
        tile_size (int): Height and width of a tile in pixels. Defaults to 112.
        length (int): Number of composites. Defaults to 1000.
        seed (int): Seed of the draw. Defaults to 0.
        exclude (dict, optional): Config of a dataset none of whose images may be used, whatever
            its class there. Defaults to None.
        exclude_by (Sequence[str]): What makes two images the same: ``'name'``, the path below
            the image folder of its dataset, so that a resized copy is found, and
            ``'content'``. Leave out ``'name'`` where both sides number their files anew.
            Defaults to both.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: If an argument does not fit the others or the source.
        FileNotFoundError: If ``data_root`` of the source does not exist.
    """

    def __init__(
        self,
        source: dict,
        classes: Sequence[str] | None = None,
        grid: tuple[int, int] = (2, 2),
        tile_size: int = 112,
        length: int = 1000,
        seed: int = 0,
        exclude: dict | None = None,
        exclude_by: Sequence[str] = ('name', 'content'),
        **kwargs,
    ) -> None:
        check_int('tile_size', tile_size)
        check_int('length', length)
        check_ints('grid', grid)
        check_argument(len(grid) == 2, 'grid', 'to be rows and columns', grid)
        # An int, so that composites can be drawn again.
        check_argument(isinstance(seed, int), 'seed', 'to be an int', seed)
        check_argument(
            not isinstance(exclude_by, str) and set(exclude_by) <= {'name', 'content'},
            'exclude_by',
            "to hold 'name', 'content' or both",
            exclude_by,
        )
        self.source = source
        self.grid = tuple(grid)
        self.tile_size = tile_size
        self.length = length
        self.seed = seed
        self.exclude = exclude
        self.exclude_by = tuple(exclude_by)
        super().__init__(ann_file='', classes=classes, **kwargs)
        if self.CLASSES is not None:
            _check_classes(self.CLASSES, self.grid)

    def load_data_list(self) -> list[dict]:
        """Deal classes and images to the composites.

        Returns:
            list[dict]: One per composite: ``tiles``, the source images in the order of the
            cells, row by row, ``tile_size``, ``gt_label``, sorted, and ``gt_cells``.
        """
        images, source_classes = read_source(self.source)
        classes = self._metainfo.setdefault('classes', source_classes)
        _check_classes(classes, self.grid)
        _check_known(classes, source_classes)
        pools = _pool_by_class(self._without_excluded(images), classes, source_classes)
        rows, columns = self.grid
        labels, positions = plan_splices(
            [len(pool) for pool in pools], rows * columns, self.length, self.seed
        )
        return [
            dict(
                tiles=[pools[c][i].tile for c, i in zip(row, positions[composite])],
                tile_size=self.tile_size,
                gt_label=sorted(row),
                gt_cells=labels[composite].reshape(rows, columns).tolist(),
            )
            for composite, row in enumerate(labels.tolist())
        ]

    def labelled_info(self, idx: int) -> dict:
        """What is known of one composite, with the labels of all classes, whichever are kept.

        Returns:
            dict: ``tiles`` (list of dicts with ``img_path`` or ``img``), ``tile_size`` (int),
            ``gt_label`` (list[int]), ``gt_score`` (float32 ``(num_classes,)``), ``gt_cells``
            (long tensor ``(rows, columns)``, the class index in every cell), ``sample_idx``.
        """
        info = super().labelled_info(idx)
        info['gt_cells'] = torch.tensor(info['gt_cells'])
        return info

    def extra_repr(self) -> list[str]:
        """Lines that MMPretrain adds to the printed form."""
        return [
            f'Source: \t{self.source.get("type")}',
            f'Grid: \t{self.grid[0]} x {self.grid[1]} tiles of {self.tile_size} px',
            f'Seed: \t{self.seed}',
        ]

    def _without_excluded(self, images: list[SourceImage]) -> list[SourceImage]:
        if self.exclude is None:
            return images
        others, _ = read_source(self.exclude)
        by_name = same_name(images, others) if 'name' in self.exclude_by else set()
        by_content = same_content(images, others) if 'content' in self.exclude_by else set()
        dropped = by_name | by_content
        if dropped:
            print_log(
                f'SplicedDataset: {len(dropped)} of {len(images)} source images are left out, '
                f'because `exclude` holds them too ({len(by_name)} by name, {len(by_content)} '
                'by content).',
                logger='current',
            )
        return [image for position, image in enumerate(images) if position not in dropped]


def _pool_by_class(
    images: list[SourceImage], classes: Sequence[str], source_classes: Sequence[str]
) -> list[list[SourceImage]]:
    labels = [source_classes.index(name) for name in classes]
    pools = {label: [] for label in labels}
    for image in images:
        if image.label in pools:
            pools[image.label].append(image)
    empty = [source_classes[label] for label, pool in pools.items() if not pool]
    if empty:
        raise ValueError(
            f'Expected argument `source` to have images of every class, but none is left of '
            f'{empty}: leave these out of `classes`, or exclude less.'
        )
    return [pools[label] for label in labels]


def _check_classes(classes: Sequence[str], grid: Sequence[int]) -> None:
    """The cells of an image are of distinct classes."""
    check_argument(
        len(classes) >= grid[0] * grid[1],
        'grid',
        f'to have at most as many cells as there are classes, {len(classes)}',
        f'{grid[0]} x {grid[1]} = {grid[0] * grid[1]}',
    )


def _check_known(classes: Sequence[str], source_classes: Sequence[str]) -> None:
    for name in classes:
        check_argument(
            name in source_classes,
            'classes',
            f'to name classes of the source, {shown(source_classes)}',
            f'{name!r}{near_names(name, source_classes)}',
        )


def plan_splices(
    images_per_class: Sequence[int], num_cells: int, length: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deal classes and source images to composites, as evenly as arithmetic allows.

    Both are dealt like cards: all classes are shuffled into a deck, every composite takes the
    next ``num_cells`` of it, and a new deck follows when one is used up; each class deals its
    images in the same way. So after any number of composites the uses of two classes differ
    by at most one, and so do the uses of two images of a class. No set of classes is preferred
    over another. The first composites do not depend on ``length``.

    All draws come from ``numpy.random.RandomState``, whose streams NumPy keeps for good.

    Args:
        images_per_class (Sequence[int]): Number of source images of each class, all above 0.
        num_cells (int): Cells of a composite, at most the number of classes.
        length (int): Number of composites.
        seed (int): Seed of all draws.

    Returns:
        tuple[np.ndarray, np.ndarray]: Two int64 arrays ``(length, num_cells)``: the class of
        every cell, distinct within a row, and the position of its image among the images of
        that class.
    """
    classes = _deal_classes(len(images_per_class), num_cells, length, _stream(seed, 0))
    images = np.empty_like(classes)
    for label, num_images in enumerate(images_per_class):
        cells = classes == label
        images[cells] = _deal_images(num_images, int(cells.sum()), _stream(seed, 1 + label))
    return classes, images


def _stream(seed: int, part: int) -> np.random.RandomState:
    return np.random.RandomState(sample_seed(seed, part))


def _deal_classes(
    num_classes: int, num_cells: int, length: int, stream: np.random.RandomState
) -> np.ndarray:
    dealt = np.empty((length, num_cells), dtype=np.int64)
    deck: list[int] = []
    for row in range(length):
        hand, deck = deck[:num_cells], deck[num_cells:]
        if len(hand) < num_cells:
            fresh = stream.permutation(num_classes).tolist()
            # What the rest of the old deck has put into the hand stays in the new deck.
            fill = [label for label in fresh if label not in hand][: num_cells - len(hand)]
            deck = [label for label in fresh if label not in fill]
            hand = hand + fill
        dealt[row] = hand
    return dealt


def _deal_images(num_images: int, uses: int, stream: np.random.RandomState) -> np.ndarray:
    decks = [stream.permutation(num_images) for _ in range(-(-uses // num_images))]
    return np.concatenate([*decks, np.empty(0, dtype=np.int64)])[:uses]
