"""What an entry of the feature cache says of itself: its key, its layout, its manifest and marks.

An entry is a folder with a manifest, and chunks each with its mark. A chunk is one ``.npy`` file
per stored position of the features, and a file with a line of JSON per row for what else belongs to
it; its mark, written last, lists both with their hashes. The manifest says that the entry is
complete only once all marks are there.
"""

import hashlib
import json
import math
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .files import npy_header, read_json, write_json
from .hashing import hash_file

# Goes up whenever the same description gives other features: with what is computed here (how
# images, views and features come about, how files are laid out), not with options.
FORMAT = 2
MANIFEST = 'manifest.json'
STORAGES = {'fp16': np.float16, 'fp32': np.float32}
# A killed process loses one chunk at most, so a chunk is small in time; there are not so many of
# them that files and batches are torn to pieces; and a chunk has to fit in memory.
MIN_CHUNK_ROWS = 256
MAX_CHUNK_ROWS = 4096
AIMED_CHUNKS = 64
MAX_CHUNK_BYTES = 256 << 20


def make_key(description: dict) -> str:
    """Hash a description.

    Args:
        description (dict): What decides over the features; values that JSON can hold.

    Returns:
        str: 32 hexadecimal digits.
    """
    text = json.dumps(dict(format=FORMAT, **description), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def unshared(reason: str) -> dict:
    """The part of a description that no other has, for what cannot be described."""
    return dict(unshared=uuid.uuid4().hex, reason=reason)


def is_shared(description: dict) -> bool:
    """Whether another run can come to the same description."""
    return 'unshared' not in description


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


class Entry:
    """A folder of the cache; it need not exist.

    Args:
        path (Path): The folder, named after the key.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def key(self) -> str:
        return self.path.name

    # ---- manifest

    def read_manifest(self) -> dict | None:
        """``key``, ``description``, ``layout`` (dict) and ``complete``; None if unreadable."""
        return read_json(self.path / MANIFEST)

    def write_manifest(self, description: dict, layout: Layout, complete: bool) -> None:
        """Write the manifest anew; ``complete=True`` is the last write of all."""
        content = dict(
            key=self.key, description=description, layout=layout.to_dict(), complete=complete
        )
        write_json(self.path / MANIFEST, content, indent=1)

    def is_complete(self) -> bool:
        """Whether the manifest says so; see :meth:`damaged_chunks` for whether it is still so."""
        manifest = self.read_manifest()
        return manifest is not None and manifest['complete']

    def layout(self) -> Layout:
        """The layout of an entry with a manifest."""
        return Layout.from_dict(self.read_manifest()['layout'])

    # ---- chunks

    def array_path(self, chunk: int, position: int) -> Path:
        """The ``.npy`` file of one position of the features."""
        return self.path / f'{chunk:05d}-{position}.npy'

    def samples_path(self, chunk: int) -> Path:
        """The file, a line of JSON per row, of what belongs to the rows besides features."""
        return self.path / f'{chunk:05d}-samples.jsonl'

    def mark_path(self, chunk: int) -> Path:
        """The file that says that a chunk is there."""
        return self.path / f'{chunk:05d}.json'

    def chunk_files(self, layout: Layout, chunk: int) -> list[Path]:
        """The files of a chunk, without its mark."""
        arrays = [self.array_path(chunk, position) for position in layout.positions]
        return [*arrays, self.samples_path(chunk)]

    def write_mark(self, layout: Layout, chunk: int) -> None:
        """Declare a chunk, whose files have been written, to be there."""
        files = {
            path.name: dict(bytes=path.stat().st_size, sha256=hash_file(path))
            for path in self.chunk_files(layout, chunk)
        }
        write_json(self.mark_path(chunk), dict(layout=layout.to_dict(), files=files))

    def damaged_chunks(self, layout: Layout, check_content: bool = True) -> list[int]:
        """Chunks that are missing, truncated or changed.

        Args:
            layout (Layout): The entry's layout.
            check_content (bool): Whether to read the files, with several threads, and compare
                hashes; or to compare sizes and headers alone. Defaults to True.
        """
        chunks = range(layout.num_chunks)
        with ThreadPoolExecutor(os.cpu_count() if check_content else 1) as pool:
            whole = pool.map(lambda c: self._is_whole(layout, c, check_content), chunks)
            return [chunk for chunk, is_whole in zip(chunks, whole) if not is_whole]

    def _is_whole(self, layout: Layout, chunk: int, check_content: bool) -> bool:
        mark = read_json(self.mark_path(chunk))
        if mark is None or Layout.from_dict(mark['layout']) != layout:
            return False
        for name, written in mark['files'].items():
            path = self.path / name
            if not path.is_file() or path.stat().st_size != written['bytes']:
                return False
            if check_content and hash_file(path) != written['sha256']:
                return False
        rows = len(layout.rows_of(chunk))
        return all(
            npy_header(self.array_path(chunk, i))[0] == ((rows, *layout.shapes[i]), layout.dtype)
            for i in layout.positions
        )

    # ---- facts for reports

    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.stat().st_size for f in os.scandir(self.path) if f.is_file())

    def last_used(self) -> float:
        """Time of the last opening or writing, in seconds since the epoch."""
        manifest = self.path / MANIFEST
        return (manifest if manifest.is_file() else self.path).stat().st_mtime

    def touch(self) -> None:
        """Note that the entry is in use. A cache that may only be read is left as it is."""
        try:
            os.utime(self.path / MANIFEST)
        except OSError:
            return
