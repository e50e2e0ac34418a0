"""OpenImages' annotations of one split: found under its versions' names, read into arrays."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from mhc_plugin.datasets.annotation_files import check_path
from mhc_plugin.datasets.class_lists import near_names
from mhc_plugin.datasets.label_table import BoxTable, LabelBuilder, LabelTable
from mhc_plugin.functional.checks import check_choice

from .csv_files import BoxBlock, iter_box_blocks, iter_label_blocks
from .image_index import ImageIndex

# V7 says "val" in some names.
_SPLITS = dict(train=('train',), validation=('validation', 'val'), test=('test',))
_VERSIONS = ('', 'oidv7-', 'oidv6-', 'oidv5-', 'oidv4-')
# V2 and V3 unpack into one folder per split; other tools sort the files into these.
_FOLDERS = ('', 'annotations', 'labels', 'metadata')

_CLASS_NAMES = ('class-descriptions-boxable.csv', 'class-descriptions.csv', 'dict.csv')
_LABEL_NAMES = ('annotations-human-imagelabels-boxable.csv', 'annotations-human-imagelabels.csv')
_BOX_NAMES = ('annotations-bbox.csv', 'annotations-human-bbox.csv')


@dataclass(frozen=True)
class OpenImagesFiles:
    """The files of one split; ``None`` for those that are not needed.

    Attributes:
        classes (Path): MIDs and display names.
        labels (Path, optional): Verified image-level labels.
        boxes (Path, optional): Boxes.
    """

    classes: Path
    labels: Path | None
    boxes: Path | None

    @property
    def paths(self) -> list[str]:
        """The files that are there."""
        return [str(path) for path in (self.classes, self.labels, self.boxes) if path is not None]

    @classmethod
    def find(
        cls,
        root: str | os.PathLike,
        split: str,
        labels: bool,
        boxes: bool,
        class_file: str | None = None,
        label_file: str | None = None,
        box_file: str | None = None,
    ) -> 'OpenImagesFiles':
        """Find the files under their usual names, or take those that are given.

        Raises:
            ValueError: If there is no such split.
            FileNotFoundError: If a file is missing.
        """
        check_split(split)
        check_path(str(root), 'data_root')
        root = Path(root)
        return cls(
            find_class_file(root, class_file),
            find_label_file(root, split, label_file) if labels else None,
            find_box_file(root, split, box_file) if boxes else None,
        )


@dataclass(frozen=True)
class OpenImagesAnnotations:
    """What is known of the ``n`` images of a split, in the order of their IDs.

    Attributes:
        ids (np.ndarray): ImageIDs, bytes ``(n,)``, sorted.
        labels (LabelTable): Labels of the images; unknown where no file says anything.
        boxes (BoxTable, optional): Boxes, in 0..1 of the image.
        images_left_out (int): Images that the files name and that were not wanted.
        rows_left_out (int): Their rows, of the wanted classes.
    """

    ids: np.ndarray
    labels: LabelTable
    boxes: BoxTable | None
    images_left_out: int
    rows_left_out: int


def resolve_classes(descriptions: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
    """Find classes by display name or MID.

    Args:
        descriptions (Mapping): Display names by MID.
        classes (Sequence[str]): What to find.

    Returns:
        dict[str, str]: Display name by MID, in the order of ``classes``.

    Raises:
        ValueError: If a name is not there, is that of several MIDs, or comes twice.
    """
    mids_of: dict[str, list[str]] = {}
    for mid, name in descriptions.items():
        mids_of.setdefault(name, []).append(mid)
    found: dict[str, str] = {}
    for wanted in classes:
        mids = [wanted] if wanted in descriptions else mids_of.get(wanted, [])
        if not mids:
            raise ValueError(
                'Expected argument `classes` to hold display names or MIDs of OpenImages, but got '
                f'{wanted!r}{near_names(wanted, mids_of)}.'
            )
        if len(mids) > 1:
            raise ValueError(
                f'Expected argument `classes` to be unambiguous, but {wanted!r} is '
                f'the name of {", ".join(mids)}: give the MID.'
            )
        if mids[0] in found:
            raise ValueError(
                f'Expected argument `classes` to name each class once, but got {wanted!r} twice.'
            )
        found[mids[0]] = descriptions[mids[0]]
    return found


def read_annotations(
    files: OpenImagesFiles,
    mids: Sequence[str],
    label_boxes: bool = False,
    keep_boxes: bool = False,
    depictions: bool = True,
    image_folder: str | os.PathLike | None = None,
) -> OpenImagesAnnotations:
    """Read labels and boxes of one split.

    Args:
        files (OpenImagesFiles): What to read.
        mids (Sequence[str]): The classes, in the order of their indices.
        label_boxes (bool): Whether a class is present where a box of it is. Defaults to False.
        keep_boxes (bool): Whether to keep the boxes. Defaults to False.
        depictions (bool): Whether boxes of depictions count. Defaults to True.
        image_folder (str | PathLike, optional): Keep the images that are there as
            ``<ImageID>.jpg``. Defaults to None, which keeps all that the files name.

    Raises:
        AnnotationError: If a file is damaged.
    """
    class_of = {mid: i for i, mid in enumerate(mids)}
    index = ImageIndex()
    labels = LabelBuilder(len(class_of))
    boxes: list[BoxBlock] = []
    if files.labels is not None:
        for block in iter_label_blocks(files.labels, class_of, index):
            labels.add(*block)
    if files.boxes is not None:
        for block in iter_box_blocks(files.boxes, class_of, index, depictions):
            if label_boxes:
                labels.add(block.images, block.classes, np.ones(len(block.classes), np.int8))
            if keep_boxes:
                boxes.append(block)
    ids, row_of, left_out = _kept_images(index, image_folder)
    table, rows_left_out = labels.build(row_of)
    return OpenImagesAnnotations(
        ids,
        table,
        _box_table(boxes, row_of, len(ids)) if keep_boxes else None,
        left_out,
        rows_left_out,
    )


def images_on_disk(folder: str | os.PathLike) -> np.ndarray:
    """Names without ``.jpg`` of the images in a folder, bytes, sorted."""
    chunks, names = [], []
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            if entry.name.endswith(b'.jpg'):
                names.append(entry.name[:-4])
            if len(names) == 1 << 16:
                chunks.append(np.array(names, np.bytes_))
                names.clear()
    chunks.append(np.array(names, np.bytes_))
    return np.sort(np.concatenate(chunks))


def _kept_images(
    index: ImageIndex, folder: str | os.PathLike | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """IDs of the images to keep, the row of each position (-1: none), and how many are not kept."""
    ids, positions = index.names()
    kept = np.ones(len(ids), bool)
    if folder is not None:
        kept = np.isin(ids, images_on_disk(folder), assume_unique=True)
    row_of = np.full(len(ids), -1, np.int32)
    row_of[positions[kept]] = np.arange(kept.sum())
    return ids[kept], row_of, len(ids) - int(kept.sum())


def _join(chunks: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    """Concatenate along the first axis and empty the list on the way, so memory is not doubled.

    Args:
        chunks (list[np.ndarray]): Arrays that differ in length alone.
        like (np.ndarray): An array, perhaps empty, that has their type and other axes.
    """
    stop = sum(len(chunk) for chunk in chunks)
    joined = np.empty((stop, *like.shape[1:]), like.dtype)
    while chunks:
        chunk = chunks.pop()
        joined[stop - len(chunk) : stop] = chunk
        stop -= len(chunk)
    return joined


def _box_table(blocks: list[BoxBlock], row_of: np.ndarray, num_images: int) -> BoxTable:
    rows = row_of[_join([block.images for block in blocks], np.empty(0, np.int32))]
    classes = _join([block.classes for block in blocks], np.empty(0, np.int16))
    corners = _join([block.corners for block in blocks], np.empty((0, 4), np.float32))
    order = np.argsort(rows, kind='stable')
    order = order[np.searchsorted(rows[order], 0) :]
    return BoxTable(
        offsets=np.searchsorted(rows[order], np.arange(num_images + 1)),
        corners=corners[order],
        classes=classes[order],
        # OpenImages marks no object as difficult.
        difficult=np.zeros(len(order), bool),
        normalized=True,
    )


def check_split(split: str) -> None:
    """Raise a ValueError if OpenImages has no such split."""
    check_choice('split', split, tuple(_SPLITS))


def find_class_file(root: Path, given: str | None = None) -> Path:
    """Find the names of the classes, the boxable ones first."""
    names = [version + name for name, version in product(_CLASS_NAMES, _VERSIONS)]
    return _find(root, given, 'class_file', _FOLDERS, names)


def find_label_file(root: Path, split: str, given: str | None = None) -> Path:
    """Find the verified image-level labels of a split, those of the boxable classes first."""
    names = [*_split_names(_LABEL_NAMES, split), 'annotations-human.csv']
    return _find(root, _of_split(given, split), 'label_file', (*_FOLDERS, *_SPLITS[split]), names)


def find_box_file(root: Path, split: str, given: str | None = None) -> Path:
    """Find the boxes of a split."""
    names = [*_split_names(_BOX_NAMES, split), 'annotations-human-bbox.csv']
    return _find(root, _of_split(given, split), 'box_file', (*_FOLDERS, *_SPLITS[split]), names)


def _of_split(given: str | None, split: str) -> str | None:
    return None if given is None else given.replace('<split>', split)


def _split_names(names: Sequence[str], split: str) -> Iterator[str]:
    for name, version, word in product(names, _VERSIONS, _SPLITS[split]):
        yield f'{version}{word}-{name}'


def _find(
    root: Path, given: str | None, argument: str, folders: Sequence[str], names: Sequence[str]
) -> Path:
    if given is not None:
        path = root / given
        if not path.is_file():
            raise FileNotFoundError(
                f'Expected argument `{argument}` to be a file, given whole or '
                f'below {root}, but there is no {path}.'
            )
        return path
    for folder, name in product(folders, names):
        path = root / folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'Expected one of {names[0]}, ..., {names[-1]} in {root} or a folder {", ".join(folders)} '
        f'of it, but found none; set `{argument}`.'.replace('folder , ', 'folder ')
    )
