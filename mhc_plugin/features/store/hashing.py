"""Hashes of content: files and arrays."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from errno import EISDIR
from itertools import takewhile
from pathlib import Path
from stat import S_ISREG

import numpy as np

BLOCK = 1 << 20
# A file that was written this shortly before it was hashed may be written again within the same
# tick of the clock, and look untouched.
SETTLED_AFTER_NS = 2_000_000_000
# Files that are being read, or were and are not noted yet.
MAX_READING = 4096
TABLE = (
    'CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, '
    'ctime_ns INTEGER, inode INTEGER, sha256 TEXT)'
)
TRUSTED = 'SELECT * FROM files WHERE path IN ({})'
MAX_ASKED = 500


def hash_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while block := f.read(BLOCK):
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
        self._reading: dict[str, Future] = {}
        # Files that the side file is asked about, many at a time.
        self._asked: dict[str, tuple[tuple, list]] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __call__(self, path: str | os.PathLike) -> str:
        """Hash of the file at ``path``.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return self.submit(path)()

    def submit(self, path: str | os.PathLike) -> Callable[[], str]:
        """Begin to read a file, if that is necessary; what is returned waits for its hash."""
        path = os.fspath(path)
        if path[0] != os.sep:
            path = os.path.abspath(path)
        if self._num_known and path not in self._reading:
            query = 'SELECT sha256 FROM files WHERE path=?'
            for (digest,) in self._known.execute(query, (path,)):
                return lambda: digest
        if self._trusted is None:
            row = self._read(path)
            return lambda: row.result()[-1]
        if path not in self._asked:
            if len(self._asked) == MAX_ASKED:
                self._ask()
            self._asked[path] = _fingerprint(_stat(path)), []
        answer = self._asked[path][1]

        def wait() -> str:
            if not answer:
                self._ask()
            (found,) = answer
            return found if isinstance(found, str) else found.result()[-1]

        return wait

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
        done = list(takewhile(lambda path: self._reading[path].done(), self._reading))
        readings = [(path, self._reading.pop(path)) for path in done]
        rows = [(path, *row.result()) for path, row in readings if row.exception() is None]
        self._num_known += len(rows)
        with self._known:
            self._known.executemany('REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)', rows)

    def _read(self, path: str) -> Future:
        if path not in self._reading:
            _stat(path)
            if len(self._reading) >= MAX_READING:
                self._note_done()
            self._reading[path] = self._pool.submit(_read, path)
        return self._reading[path]

    def _ask(self) -> None:
        """Look up what was asked for in the side file, and begin to read the rest."""
        known = {}
        with suppress(sqlite3.Error):
            query = TRUSTED.format(','.join('?' * len(self._asked)))
            rows = self._trusted.execute(query, list(self._asked))
            known = {(path, *fingerprint): sha for path, *fingerprint, sha in rows}
        for path, (fingerprint, answer) in self._asked.items():
            answer.append(known.get((path, *fingerprint)) or self._read(path))
        self._asked.clear()


def _stat(path: str) -> os.stat_result:
    stat = os.stat(path)
    if not S_ISREG(stat.st_mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), path)
    return stat


def _read(path: str) -> tuple:
    """A file's fingerprint, -1 where it may still be changing, and its hash."""
    now = time.time_ns()
    before = os.stat(path)
    digest = hash_file(path)
    settled = now - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_AFTER_NS
    if settled and _fingerprint(os.stat(path)) == _fingerprint(before):
        return (*_fingerprint(before), digest)
    return -1, -1, -1, -1, digest


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
