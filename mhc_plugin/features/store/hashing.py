"""Hashes of content: files and arrays."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from errno import EISDIR
from io import FileIO
from itertools import islice, takewhile
from pathlib import Path
from stat import S_ISREG

import numpy as np

BLOCK = 1 << 20
# A file that was written this shortly before it was hashed may be written again within the same
# tick of the clock, and look untouched.
SETTLED_AFTER_NS = 2_000_000_000
# Files that are looked up at once, and that are being read, or were and are not noted yet. Few:
# Python looks through all its objects whenever some hundreds more are kept.
LOOKED_UP = 64
MAX_READING = 256
TABLE = (
    'CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, '
    'ctime_ns INTEGER, inode INTEGER, sha256 TEXT)'
)


def hash_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, 'rb', buffering=0) as f:
        return _hash(f)


def _hash(file: FileIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def hash_array(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values, whatever its memory layout.

    Raises:
        TypeError: If the array holds Python objects, whose bytes are addresses.
    """
    if array.dtype.hasobject:
        raise TypeError(f'Expected an array of plain values, but got dtype {array.dtype}.')
    digest = hashlib.sha256(f'{array.dtype!r}{array.shape}'.encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class FileHashes:
    """Hashes of files, read by several threads and remembered in a side file.

    In the default, safe mode every file is read once by each object of this class. With
    ``trust_mtime=True`` a file whose size, times of modification and change, and inode are those
    that were remembered is not read again; one that was changed with all of these kept, on a file
    system with coarse times for example, is then taken for the old one.

    Hashes are kept in a temporary database, not in memory.

    Args:
        side_file (str | Path, optional): An SQLite database; made where it does not exist, made
            anew where it is damaged. None remembers nothing.
        trust_mtime (bool): Whether to believe the side file. Defaults to False.
    """

    def __init__(self, side_file: str | Path | None = None, trust_mtime: bool = False) -> None:
        self.side_file = side_file
        self._trusted = _open(side_file) if side_file and trust_mtime else None
        self._known = sqlite3.connect('')
        self._known.execute(TABLE)
        self._num_known = 0
        self._asked: dict[str, _File] = {}
        self._reading: dict[str, _File] = {}
        self._num_threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._num_threads)

    def __call__(self, path: str | os.PathLike) -> str:
        """Hash of the file at ``path``.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return self.submit(path)()

    def submit(self, path: str | os.PathLike) -> Callable[[], str]:
        """Ask for a file's hash; what is returned waits for it.

        Files that are to be read are, some at a time.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        path = os.fspath(path)
        if path[0] != os.sep:
            path = os.path.abspath(path)
        file = self._asked.get(path) or self._reading.get(path)
        if file is None:
            file = self._asked[path] = _File(self, path, _fingerprint(_stat(path)))
            if len(self._asked) == LOOKED_UP:
                self._look_up()
        return file.wait

    @property
    def num_read(self) -> int:
        """How many files were read."""
        self._note_done()
        return self._num_known

    def save(self) -> None:
        """Write new hashes to the side file, unless it cannot be written or is kept busy."""
        self._note_done()
        if self.side_file is None:
            return
        # It only saves time.
        with suppress(OSError, sqlite3.Error):
            Path(self.side_file).parent.mkdir(parents=True, exist_ok=True)
            if (side := _open(self.side_file)) is not None:
                side.close()
                self._known.execute('ATTACH ? AS side', (str(self.side_file),))
                try:
                    with self._known:
                        self._known.execute(
                            'REPLACE INTO side.files SELECT * FROM files WHERE size >= 0'
                        )
                finally:
                    self._known.execute('DETACH side')

    def _note_done(self) -> None:
        # They are read in this order.
        done = [*takewhile(lambda file: file.reading.done(), self._reading.values())]
        rows = []
        for file in done:
            del self._reading[file.path]
            with suppress(OSError):
                rows.append((file.path, *file.row()))
        self._num_known += len(rows)
        with self._known:
            self._known.executemany('REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)', rows)

    def _look_up(self) -> None:
        """Find what was asked for among the known, and begin to read the rest."""
        files = self._asked.copy()
        if self._num_known:
            for path, *_, digest in _rows(self._known, files):
                files.pop(path).digest = digest
        if self._trusted is not None:
            with suppress(sqlite3.Error):
                for path, *fingerprint, digest in _rows(self._trusted, files):
                    file = files.get(path)
                    if file and digest and file.fingerprint == tuple(fingerprint):
                        files.pop(path).digest = digest
        if len(self._reading) + len(files) > MAX_READING:
            self._note_done()
        self._asked = {}
        self._reading |= files
        unread, share = iter(files.values()), -(-len(files) // self._num_threads)
        while part := [*islice(unread, share)]:
            reading = self._pool.submit(_read, [file.path for file in part])
            for place, file in enumerate(part):
                file.reading, file.place = reading, place


class _File:
    """A file whose hash was asked for: it is known, or there is a reading that will tell."""

    __slots__ = ('digest', 'fingerprint', 'hashes', 'path', 'place', 'reading')

    def __init__(self, hashes: FileHashes, path: str, fingerprint: tuple) -> None:
        self.hashes = hashes
        self.path = path
        self.fingerprint = fingerprint
        self.digest: str | None = None
        self.reading: Future | None = None

    def wait(self) -> str:
        if self.digest is None and self.reading is None:
            self.hashes._look_up()
        return self.digest or self.row()[-1]

    def row(self) -> tuple:
        """Fingerprint and hash.

        Raises:
            OSError: If the file could not be read.
        """
        row = self.reading.result()[self.place]
        if isinstance(row, OSError):
            raise row
        return row


def _rows(table: sqlite3.Connection, paths: Collection[str]) -> list[tuple]:
    places = ','.join('?' * len(paths))
    return table.execute(f'SELECT * FROM files WHERE path IN ({places})', [*paths]).fetchall()


def _stat(path: str) -> os.stat_result:
    stat = os.stat(path)
    if not S_ISREG(stat.st_mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), path)
    return stat


def _read(paths: list[str]) -> list[tuple | OSError]:
    """Fingerprint of every file, -1 where it may still be changing, and its hash."""
    rows = []
    for path in paths:
        try:
            rows.append(_read_file(path))
        except OSError as error:
            rows.append(error)
    return rows


def _read_file(path: str) -> tuple:
    # As few calls as it takes: threads wait for one another at each of them.
    now = time.time_ns()
    with open(path, 'rb', buffering=0) as f:
        before, digest, after = os.fstat(f.fileno()), _hash(f), os.fstat(f.fileno())
    settled = now - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_AFTER_NS
    settled = settled and _fingerprint(after) == _fingerprint(before)
    return (*(_fingerprint(before) if settled else [-1] * 4), digest)


def _fingerprint(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _open(side_file: str | Path) -> sqlite3.Connection | None:
    """Open the side file; None if it cannot be used. A damaged one is deleted first."""
    for _ in range(2):
        try:
            connection = sqlite3.connect(side_file, timeout=10)
            connection.execute(TABLE)
            return connection
        except sqlite3.OperationalError:  # busy, or the folder is missing or not writable
            return None
        except sqlite3.DatabaseError:
            connection.close()
            Path(side_file).unlink(missing_ok=True)
    return None
