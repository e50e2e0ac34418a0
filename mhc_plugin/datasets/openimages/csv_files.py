"""OpenImages' CSV files, streamed: columns by name, in blocks, with the line of what is wrong.

The files differ between versions V1 to V7 in their names, in the number and order of their columns
and in how they write a number; the columns used here are the same in all of them.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from mhc_plugin.datasets.annotation_files import AnnotationError

from .image_index import ImageIndex

# Larger blocks are slower: fields then outlive the processor's caches and young garbage.
BLOCK_ROWS = 1024
_IMAGE_ID = re.compile(r'[\w.-]{1,64}', re.ASCII)
_LABEL_COLUMNS = ('ImageID', 'LabelName', 'Confidence')
_BOX_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'YMin', 'XMax', 'YMax')
_CORNERS = _BOX_COLUMNS[2:]
# Corners this far outside of the image are taken for rounding.
_MARGIN = 0.01


class LabelBlock(NamedTuple):
    """Some image-level labels: positions int32, classes int16, values int8, all ``(n,)``."""

    images: np.ndarray
    classes: np.ndarray
    values: np.ndarray


class BoxBlock(NamedTuple):
    """Some boxes: positions int32 and classes int16 ``(n,)``, corners float32 ``(n, 4)``."""

    images: np.ndarray
    classes: np.ndarray
    corners: np.ndarray


def read_class_descriptions(path: str | PathLike) -> dict[str, str]:
    """Read display names by MID, in the file's order; a header is optional.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If a row has not two fields or a MID has two names.
    """
    names: dict[str, str] = {}
    for line, row in _rows(path):
        if line == 1 and 'LabelName' in row:
            continue
        if len(row) != 2 or not all(row):
            raise AnnotationError(
                f'Expected a MID and a display name, but got {row!r:.200}.', path, line
            )
        mid, name = row
        if names.setdefault(mid, name) != name:
            raise AnnotationError(
                f'Expected one name for {mid!r:.80}, but got {names[mid]!r:.80} and {name!r:.80}.',
                path,
                line,
            )
    return names


def iter_label_blocks(
    path: str | PathLike, class_of: Mapping[str, int], index: ImageIndex
) -> Iterator[LabelBlock]:
    """Read verified image-level labels; every image that is named gets its place in ``index``.

    Args:
        path (str | PathLike): A file with the columns ImageID, LabelName and Confidence.
        class_of (Mapping): The wanted classes: MID to class index. Rows of others are checked and
            left out.
        index (ImageIndex): Numbers the images.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If the file or a row of it is unfit, naming the line.
    """
    value_of = _Numbers(0, 1)
    for ids, mids, confidences in _column_blocks(path, _LABEL_COLUMNS):
        try:
            images = _positions(ids, index)
            values = np.fromiter(map(value_of.__getitem__, confidences), np.int8, len(ids))
        except ValueError:
            raise _first_error(path, _LABEL_COLUMNS, _check_label) from None
        classes = np.fromiter(map(class_of.get, mids, repeat(-1)), np.int16, len(ids))
        kept = classes >= 0
        yield LabelBlock(images[kept], classes[kept], values[kept])


def iter_box_blocks(
    path: str | PathLike, class_of: Mapping[str, int], index: ImageIndex, depictions: bool
) -> Iterator[BoxBlock]:
    """Read boxes; every image that is named gets its place in ``index``.

    Args:
        path (str | PathLike): A file with the columns ImageID, LabelName, XMin, XMax, YMin, YMax,
            the corners in 0..1 of the image.
        class_of (Mapping): The wanted classes: MID to class index. Rows of others are checked and
            left out.
        index (ImageIndex): Numbers the images.
        depictions (bool): Whether drawings and the like count. If not, the file needs the column
            IsDepiction, which the oldest files for training lack.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If the file or a row of it is unfit, naming the line.
    """
    columns = _BOX_COLUMNS if depictions else (*_BOX_COLUMNS, 'IsDepiction')
    flag_of = _Numbers(-1, 0, 1)
    for ids, mids, *numbers in _column_blocks(path, columns):
        try:
            images = _positions(ids, index)
            corners = _corners(numbers[:4])
            flags = [
                np.fromiter(map(flag_of.__getitem__, column), np.int8, len(ids))
                for column in numbers[4:]
            ]
        except ValueError:
            raise _first_error(path, columns, _check_box) from None
        classes = np.fromiter(map(class_of.get, mids, repeat(-1)), np.int16, len(ids))
        kept = classes >= 0
        for flag in flags:
            kept &= flag != 1
        yield BoxBlock(images[kept], classes[kept], corners[kept].astype(np.float32))


class _Numbers(dict):
    """Allowed numbers by how they are written, of which there are few ways: 1, 1.0, ..."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = allowed

    def __missing__(self, text: str) -> int:
        number = float(text)
        if number not in self.allowed:
            raise ValueError
        if len(self) < 1000:
            self[text] = int(number)
        return int(number)


def _positions(ids: Sequence[str], index: ImageIndex) -> np.ndarray:
    distinct = list(dict.fromkeys(ids))
    if not all(map(_IMAGE_ID.fullmatch, distinct)):
        raise ValueError
    position_of = dict(zip(distinct, index.positions(distinct).tolist()))
    return np.fromiter(map(position_of.__getitem__, ids), np.int32, len(ids))


def _corners(columns: Sequence[Sequence[str]]) -> np.ndarray:
    """XMin, YMin, XMax, YMax as ``(n, 4)``, clipped to the image; ValueError if unfit."""
    corners = np.array(columns, np.float64).T
    inside = (corners > -_MARGIN) & (corners < 1 + _MARGIN)
    if not (inside.all() and (corners[:, :2] <= corners[:, 2:]).all()):
        raise ValueError
    return corners.clip(0, 1)


def _check_label(image_id: str, mid: str, confidence: str) -> str | None:
    if not _IMAGE_ID.fullmatch(image_id):
        return _bad_id(image_id)
    try:
        _Numbers(0, 1)[confidence]
    except ValueError:
        return (
            f'Expected Confidence to be 1 (present) or 0 (verified absent), but got '
            f'{confidence!r:.80}; labels from a machine are not verified and not read.'
        )
    return None


def _check_box(image_id: str, mid: str, *numbers: str) -> str | None:
    if not _IMAGE_ID.fullmatch(image_id):
        return _bad_id(image_id)
    try:
        _corners([[number] for number in numbers[:4]])
    except ValueError:
        given = ', '.join(f'{name}={number!r:.40}' for name, number in zip(_CORNERS, numbers))
        return f'Expected 0 <= XMin <= XMax <= 1 and 0 <= YMin <= YMax <= 1, but got {given}.'
    try:
        _Numbers(-1, 0, 1)[numbers[4]] if len(numbers) > 4 else None
    except ValueError:
        return f'Expected IsDepiction to be 1, 0 or -1 (unknown), but got {numbers[4]!r:.80}.'
    return None


def _bad_id(image_id: str) -> str:
    return (
        'Expected ImageID to be up to 64 letters, digits, "_", "-" and ".", but got '
        f'{image_id!r:.80}.'
    )


def _first_error(
    path: str | PathLike, columns: Sequence[str], check: Callable[..., str | None]
) -> AnnotationError:
    """Read the file once more, row by row, to say where it is wrong."""
    rows = _rows(path)
    _, header = next(rows)
    places = _places(header, columns, path)
    for line, row in rows:
        message = check(*(row[place] for place in places))
        if message:
            return AnnotationError(message, path, line)
    return AnnotationError('The file changed while it was read.', path)


def _column_blocks(path: str | PathLike, columns: Sequence[str]) -> Iterator[list[Sequence[str]]]:
    """The named columns of up to ``BLOCK_ROWS`` rows at a time."""
    with _open(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            places, width = _places(header, columns, path), len(header)
            pick, count = itemgetter(*places), len(places)
            line = 0
            while line != reader.line_num:
                line = reader.line_num
                fields: list[str] = []
                for row in islice(reader, BLOCK_ROWS):
                    if len(row) == width:
                        fields.extend(pick(row))
                    elif row:
                        raise _bad_width(row, width, path, reader.line_num)
                if fields:
                    yield [fields[place::count] for place in range(count)]
        except csv.Error as error:
            raise AnnotationError(f'The CSV is broken: {error}.', path, reader.line_num) from None


def _rows(path: str | PathLike) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of every row that is not blank."""
    with _open(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise AnnotationError(f'The CSV is broken: {error}.', path, reader.line_num) from None


def _open(path: str | PathLike) -> TextIO:
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    # Bytes that are not UTF-8 come through here and are refused where they matter.
    return open(path, encoding='utf-8-sig', errors='surrogateescape', newline='')


def _places(header: Sequence[str], columns: Sequence[str], path: str | PathLike) -> list[int]:
    names = [name.strip() for name in header]
    missing = [column for column in columns if column not in names]
    if missing:
        raise AnnotationError(
            f'Expected a header with the columns {", ".join(columns)}, but got '
            f'{", ".join(names)!r:.200} without {", ".join(missing)}.',
            path,
            1,
        )
    return [names.index(column) for column in columns]


def _bad_width(row: Sequence[str], width: int, path: str | PathLike, line: int) -> AnnotationError:
    return AnnotationError(
        f'Expected {width} fields as in the header, but got {len(row)}: {",".join(row)!r:.200}.',
        path,
        line,
    )
