"""Labels and boxes of many images in a few arrays.

A Python list of 1.7 million samples takes gigabytes and is copied into every worker. These tables
take some bytes per label and are shared: rows of differing length lie one behind the other, and
``offsets`` says where each begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Ten million labels are worked on in parts of this length where whole ones need a second array.
_STEP = 1 << 19
# Images that are worked on at a time where each entry needs some numbers of eight bytes.
_ROWS = 1 << 13


def _compress(array: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """``array[kept]`` in the memory of ``array``."""
    end = 0
    for start in range(0, len(array), _STEP):
        part = array[start : start + _STEP][kept[start : start + _STEP]]
        array[end : end + len(part)] = part
        end += len(part)
    return array[:end]


def _gather(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the chosen rows, and where their entries lie among all entries."""
    lengths = offsets[rows + 1] - offsets[rows]
    chosen = np.concatenate([[0], np.cumsum(lengths)])
    number = np.int32 if offsets[-1] < 2**31 else np.int64
    entries = np.repeat((offsets[rows] - chosen[:-1]).astype(number), lengths)
    entries += np.arange(chosen[-1], dtype=number)
    return chosen, entries


@dataclass(frozen=True)
class LabelTable:
    """Labels of ``n`` images; entries equal to ``fill`` are not stored.

    Attributes:
        offsets (np.ndarray): int64 ``(n + 1,)``; image i has the entries
            ``offsets[i]:offsets[i + 1]``.
        classes (np.ndarray): int16 ``(entries,)``, ascending within an image.
        values (np.ndarray): int8 ``(entries,)`` of 1 (present), 0 (absent), -1 (unknown).
        num_classes (int): Number of classes.
        fill (int): What holds of a class without an entry: 0 or -1.
    """

    offsets: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    num_classes: int
    fill: int

    @classmethod
    def from_dense(cls, matrix: np.ndarray, fill: int) -> 'LabelTable':
        """Make a table of an int8 matrix ``(n, num_classes)`` of 1, 0 and -1."""
        rows, classes = np.nonzero(matrix != fill)
        offsets = np.searchsorted(rows, np.arange(len(matrix) + 1))
        return cls(
            offsets,
            classes.astype(np.int16),
            matrix[rows, classes].astype(np.int8),
            matrix.shape[1],
            fill,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def part(self, start: int, stop: int) -> 'LabelTable':
        """Images one after the other; labels stay in the memory of all."""
        offsets = self.offsets[start : stop + 1]
        entries = slice(offsets[0], offsets[-1])
        return LabelTable(
            offsets - offsets[0],
            self.classes[entries],
            self.values[entries],
            self.num_classes,
            self.fill,
        )

    def _parts(self) -> Iterator[tuple[slice, 'LabelTable']]:
        for start in range(0, max(len(self), 1), _ROWS):
            yield slice(start, start + _ROWS), self.part(start, start + _ROWS)

    def row(self, row: int) -> np.ndarray:
        """1, 0 and -1 for one image, int8 ``(num_classes,)``."""
        labels = np.full(self.num_classes, self.fill, np.int8)
        entries = slice(self.offsets[row], self.offsets[row + 1])
        labels[self.classes[entries]] = self.values[entries]
        return labels

    def positives(self, row: int) -> np.ndarray:
        """Classes present in one image, int64, ascending."""
        entries = slice(self.offsets[row], self.offsets[row + 1])
        return self.classes[entries][self.values[entries] == 1].astype(np.int64)

    def num_positives(self) -> np.ndarray:
        """Number of classes present in each image, int64 ``(n,)``."""
        counts = np.empty(len(self), np.int64)
        for rows, part in self._parts():
            ends = np.concatenate([[0], np.cumsum(part.values == 1)])
            counts[rows] = np.diff(ends[part.offsets])
        return counts

    def count(self, value: int) -> np.ndarray:
        """Number of images with ``value`` for each class, int64 ``(num_classes,)``."""
        counts = np.zeros(self.num_classes, np.int64)
        # In parts, since bincount makes eight bytes of each of its two.
        for start in range(0, len(self.values), _STEP):
            part = slice(start, start + _STEP)
            classes, hit = self.classes[part], self.values[part] == value
            counts += np.bincount(classes[hit], minlength=self.num_classes)
            if value == self.fill:
                counts -= np.bincount(classes, minlength=self.num_classes)
        return counts + len(self) if value == self.fill else counts

    def take(self, rows: np.ndarray) -> 'LabelTable':
        """The chosen images, in the order of ``rows``."""
        rows = np.asarray(rows, np.int64)
        offsets = np.concatenate([[0], np.cumsum(self.offsets[rows + 1] - self.offsets[rows])])
        classes, values = np.empty(offsets[-1], np.int16), np.empty(offsets[-1], np.int8)
        for start in range(0, len(rows), _ROWS):
            _, entries = _gather(self.offsets, rows[start : start + _ROWS])
            part = slice(offsets[start], offsets[start] + len(entries))
            classes[part], values[part] = self.classes[entries], self.values[entries]
        return LabelTable(offsets, classes, values, self.num_classes, self.fill)

    def only_positives(self) -> 'LabelTable':
        """The same images with the classes that are present; all others are absent."""
        present = self.values == 1
        offsets = np.concatenate([[0], np.cumsum(self.num_positives())])
        return LabelTable(offsets, self.classes[present], self.values[present], self.num_classes, 0)

    def rows_by_class(self) -> list[np.ndarray]:
        """Images, int32, that have an entry of each class, ascending."""
        ends = np.cumsum(
            sum(np.bincount(part.classes, minlength=self.num_classes) for _, part in self._parts())
        )
        filled = np.concatenate([[0], ends[:-1]])
        rows = np.empty(len(self.classes), np.int32)
        for images, part in self._parts():
            order = np.argsort(part.classes, kind='stable')
            classes = part.classes[order]
            counts = np.bincount(classes, minlength=self.num_classes)
            places = np.arange(len(order)) + np.repeat(filled - np.cumsum(counts) + counts, counts)
            rows[places] = (
                images.start + np.repeat(np.arange(len(part)), np.diff(part.offsets))[order]
            )
            filled += counts
        return np.split(rows, ends[:-1])

    def select_classes(self, classes: Sequence[int]) -> 'LabelTable':
        """The chosen classes, renumbered in the order given."""
        number = np.full(self.num_classes, -1, np.int16)
        number[np.asarray(classes, np.int64)] = np.arange(len(classes))
        parts, sizes = [], []
        for _, part in self._parts():
            kept = number[part.classes] >= 0
            rows = np.repeat(np.arange(len(part)), np.diff(part.offsets))[kept]
            renumbered = number[part.classes[kept]]
            order = np.lexsort((renumbered, rows))
            parts.append((renumbered[order], part.values[kept][order]))
            sizes.append(np.bincount(rows, minlength=len(part)))
        return LabelTable(
            np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
            np.concatenate([renumbered for renumbered, _ in parts]),
            np.concatenate([values for _, values in parts]),
            len(classes),
            self.fill,
        )

    def dense(self) -> np.ndarray:
        """All labels as an int8 matrix ``(n, num_classes)``."""
        matrix = np.full((len(self), self.num_classes), self.fill, np.int8)
        matrix[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.classes] = self.values
        return matrix


class LabelBuilder:
    """Gather single labels in any order; where they disagree, present beats absent.

    A label takes eight bytes until it is built: row, class and value in one number.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._keys = np.empty(1 << 16, np.int64)
        self._size = 0

    def add(self, rows: np.ndarray, classes: np.ndarray, values: np.ndarray) -> None:
        """Add labels 1 or 0; all three arrays are of one length."""
        end = self._size + len(rows)
        if end > len(self._keys):
            # In place: the system moves pages instead of copying them.
            self._keys.resize(max(end, len(self._keys) * 3 // 2), refcheck=False)
        self._keys[self._size : end] = (rows.astype(np.int64) * self.num_classes + classes) * 2
        self._keys[self._size : end] += values
        self._size = end

    def build(self, row_of: np.ndarray) -> tuple[LabelTable, int]:
        """Make the table; the builder is of no use afterwards.

        Args:
            row_of (np.ndarray): The final row of each row that was added; -1 leaves it out.

        Returns:
            tuple: The table, unknown (-1) where nothing was added, and how many of the labels
            were left out.
        """
        end = 0
        for start in range(0, self._size, _STEP):
            part = self._keys[start : min(start + _STEP, self._size)]
            rows, rest = np.divmod(part, 2 * self.num_classes)
            rows = row_of[rows]
            kept = rows >= 0
            part = rows[kept].astype(np.int64) * (2 * self.num_classes) + rest[kept]
            self._keys[end : end + len(part)] = part
            end += len(part)
        table = self._to_table(self._keys[:end], int(row_of.max(initial=-1)) + 1)
        return table, self._size - end

    def _to_table(self, keys: np.ndarray, num_rows: int) -> LabelTable:
        """Sort and split the keys in place: there may be ten million."""
        keys.sort()
        values = np.empty(len(keys), np.int8)
        np.bitwise_and(keys, 1, out=values, casting='unsafe')
        keys >>= 1
        # Of the entries of one row and class the last is a 1 if any is.
        last = np.ones(len(keys), bool)
        np.not_equal(keys[1:], keys[:-1], out=last[:-1])
        keys, values = _compress(keys, last), values[last]
        offsets = np.searchsorted(keys, np.arange(num_rows + 1) * self.num_classes)
        keys %= self.num_classes
        return LabelTable(offsets, keys.astype(np.int16), values, self.num_classes, fill=-1)


@dataclass(frozen=True)
class BoxTable:
    """Boxes of ``n`` images.

    Attributes:
        offsets (np.ndarray): int64 ``(n + 1,)``; image i has the boxes
            ``offsets[i]:offsets[i + 1]``.
        corners (np.ndarray): float32 ``(boxes, 4)``: x1, y1, x2, y2.
        classes (np.ndarray): int16 ``(boxes,)``.
        difficult (np.ndarray): bool ``(boxes,)``.
        normalized (bool): Whether corners are in 0..1 of the image as it is stored, else in pixels
            of the image as it is shown.
    """

    offsets: np.ndarray
    corners: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    normalized: bool

    def take(self, rows: np.ndarray) -> 'BoxTable':
        """The chosen images, in the order of ``rows``."""
        offsets, boxes = _gather(self.offsets, np.asarray(rows, np.int64))
        return BoxTable(
            offsets,
            self.corners[boxes],
            self.classes[boxes],
            self.difficult[boxes],
            self.normalized,
        )

    def keep(self, corners: np.ndarray, kept: np.ndarray) -> 'BoxTable':
        """The boxes that are ``kept``, bool ``(boxes,)``, with other ``corners``."""
        counts = np.concatenate([[0], np.cumsum(kept)])
        return BoxTable(
            counts[self.offsets],
            corners[kept],
            self.classes[kept],
            self.difficult[kept],
            self.normalized,
        )

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners ``(m, 4)``, classes int64 ``(m,)`` and difficult ``(m,)`` of one image."""
        boxes = slice(self.offsets[row], self.offsets[row + 1])
        return self.corners[boxes], self.classes[boxes].astype(np.int64), self.difficult[boxes]
