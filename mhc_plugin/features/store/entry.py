"""One entry of the feature cache: a folder with a manifest, and chunks each with its mark.

A chunk is one ``.npy`` file per stored position of the features, and a file with a line of JSON per
row for what else belongs to it; its mark, written last, lists both with their hashes. The manifest
says that the entry is complete only once all marks are there.
"""

import os
from pathlib import Path

from .files import read_json, write_json
from .hashing import hash_file
from .layout import Layout

MANIFEST = 'manifest.json'


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

    def chunk_is_whole(self, layout: Layout, chunk: int, check_content: bool = True) -> bool:
        """Whether a chunk is there and its files are as they were written.

        Args:
            layout (Layout): The entry's layout.
            chunk (int): Number of the chunk.
            check_content (bool): Whether to read the files and compare hashes, or sizes alone.
                Defaults to True.
        """
        mark = read_json(self.mark_path(chunk))
        if mark is None or Layout.from_dict(mark['layout']) != layout:
            return False
        for name, written in mark['files'].items():
            path = self.path / name
            if not path.is_file() or path.stat().st_size != written['bytes']:
                return False
            if check_content and hash_file(path) != written['sha256']:
                return False
        return True

    def damaged_chunks(self, layout: Layout, check_content: bool = True) -> list[int]:
        """Chunks that are missing, truncated or changed."""
        return [
            chunk
            for chunk in range(layout.num_chunks)
            if not self.chunk_is_whole(layout, chunk, check_content)
        ]

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
        except PermissionError:
            return
