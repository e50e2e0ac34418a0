"""Hashes of content: files and arrays."""

import hashlib
import os
import sqlite3
import time
from pathlib import Path

import numpy as np

BLOCK = 1 << 20
# A file that was written this shortly before it was hashed may be written again within the same
# tick of the clock, and look untouched.
SETTLED_AFTER_NS = 2_000_000_000


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
    digest = hashlib.sha256(f'{array.dtype.str}{array.shape}'.encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class FileHashes:
    """Hashes of files, remembered in a side file.

    In the default, safe mode every file is read once by each object of this class. With
    ``trust_mtime=True`` a file whose size, times of modification and change, and inode are those
    that were remembered is not read again; one that was changed with all of these kept, on a file
    system with coarse times for example, is then taken for the old one.

    Args:
        side_file (str | Path, optional): An SQLite database; made where it does not exist, made
            anew where it is damaged. None remembers nothing.
        trust_mtime (bool): Whether to believe the side file. Defaults to False.

    Attributes:
        num_read (int): How many files were read.
    """

    def __init__(self, side_file: str | Path | None = None, trust_mtime: bool = False) -> None:
        self.side_file = side_file
        self.trust_mtime = trust_mtime
        self.num_read = 0
        self._known: dict[str, str] = {}
        self._new: list[tuple] = []
        self._connection = _open(side_file) if side_file and trust_mtime else None

    def __call__(self, path: str | os.PathLike) -> str:
        """Hash of the file at ``path``.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        path = os.path.abspath(path)
        if path not in self._known:
            self._known[path] = self._look_up(path) or self._read(path)
        return self._known[path]

    def save(self) -> None:
        """Write new hashes to the side file, unless other processes keep it busy."""
        if not self._new or self.side_file is None:
            return
        Path(self.side_file).parent.mkdir(parents=True, exist_ok=True)
        connection = _open(self.side_file)
        if connection is None:
            return
        try:
            with connection:
                connection.executemany('REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)', self._new)
        except sqlite3.Error:
            pass  # It only saves time.
        finally:
            connection.close()
        self._new = []

    def _read(self, path: str) -> str:
        now = time.time_ns()
        before = os.stat(path)
        digest = hash_file(path)
        self.num_read += 1
        settled = now - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_AFTER_NS
        if settled and _fingerprint(os.stat(path)) == _fingerprint(before):
            self._new.append((path, *_fingerprint(before), digest))
        return digest

    def _look_up(self, path: str) -> str | None:
        if self._connection is None:
            return None
        query = (
            'SELECT sha256 FROM files WHERE path=? AND size=? AND mtime_ns=? AND ctime_ns=? '
            'AND inode=?'
        )
        try:
            row = self._connection.execute(query, (path, *_fingerprint(os.stat(path)))).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else row[0]


def _fingerprint(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _open(side_file: str | Path) -> sqlite3.Connection | None:
    """Open the side file; None if it cannot be used. A damaged one is deleted first."""
    for _ in range(2):
        try:
            connection = sqlite3.connect(side_file, timeout=10)
            connection.execute(
                'CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, '
                'size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, '
                'sha256 TEXT)'
            )
            return connection
        except sqlite3.OperationalError:  # busy, or the folder is missing or not writable
            return None
        except sqlite3.DatabaseError:
            connection.close()
            Path(side_file).unlink(missing_ok=True)
    return None
