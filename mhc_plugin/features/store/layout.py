"""How the features of one cache entry lie in files."""

import math
from dataclasses import asdict, dataclass

import numpy as np

STORAGES = {'fp16': np.float16, 'fp32': np.float32}
# A killed process loses one chunk at most, so a chunk is small in time; there are not so many of
# them that files and batches are torn to pieces; and a chunk has to fit in memory.
MIN_CHUNK_ROWS = 256
MAX_CHUNK_ROWS = 4096
AIMED_CHUNKS = 64
MAX_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Layout:
    """The rows of an entry, one per image and view, and the chunks that hold them.

    Args:
        num_samples (int): Number of images.
        views (int): Draws of the augmentation per image. Row ``view * num_samples + sample``
            holds a view of an image.
        shapes (tuple[tuple[int, ...] | None, ...]): Shape of a feature of one image, for every
            position in the tuple of features; None where nothing is stored.
        storage (str): ``'fp16'`` or ``'fp32'``.
        chunk_rows (int): Rows per chunk; the last chunk may have fewer.
    """

    num_samples: int
    views: int
    shapes: tuple[tuple[int, ...] | None, ...]
    storage: str
    chunk_rows: int

    @classmethod
    def plan(
        cls, num_samples: int, views: int, shapes: tuple[tuple[int, ...] | None, ...], storage: str
    ) -> 'Layout':
        """Choose the size of the chunks."""
        rows = num_samples * views
        row_bytes = cls(num_samples, views, shapes, storage, 1).row_bytes
        chunk_rows = min(max(math.ceil(rows / AIMED_CHUNKS), MIN_CHUNK_ROWS), MAX_CHUNK_ROWS)
        return cls(
            num_samples,
            views,
            shapes,
            storage,
            max(1, min(chunk_rows, MAX_CHUNK_BYTES // max(row_bytes, 1))),
        )

    @classmethod
    def from_dict(cls, values: dict) -> 'Layout':
        """Inverse of :meth:`to_dict`, tuples made lists by JSON included."""
        shapes = tuple(None if s is None else tuple(s) for s in values['shapes'])
        return cls(**{**values, 'shapes': shapes})

    def to_dict(self) -> dict:
        """Values that JSON can hold."""
        return asdict(self)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(STORAGES[self.storage])

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions in the tuple of features at which something is stored."""
        return tuple(i for i, shape in enumerate(self.shapes) if shape is not None)

    @property
    def num_rows(self) -> int:
        return self.num_samples * self.views

    @property
    def num_chunks(self) -> int:
        return math.ceil(self.num_rows / self.chunk_rows)

    @property
    def row_bytes(self) -> int:
        values = sum(math.prod(self.shapes[position]) for position in self.positions)
        return values * self.dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """Size of all features; the files are larger by some kilobytes each."""
        return self.num_rows * self.row_bytes

    def rows_of(self, chunk: int) -> range:
        """The rows of a chunk."""
        start = chunk * self.chunk_rows
        return range(start, min(start + self.chunk_rows, self.num_rows))
