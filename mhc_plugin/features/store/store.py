"""The folder of the feature cache: its entries, their locks, and what to throw away."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .files import TEMPORARY_SUFFIX, format_bytes
from .hashing import FileHashes
from .manifest import Entry, is_shared

LOCKS = 'locks'
DAY = 24 * 3600


class EntryInUseError(RuntimeError):
    """An entry is being written by another process."""


class FeatureStore:
    """All entries of a feature cache.

    Args:
        root (str | Path): The folder; it need not exist yet.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def file_hashes(self, trust_mtime: bool = False) -> FileHashes:
        """Hashes of files, remembered in this folder."""
        return FileHashes(self.root / 'hashes.sqlite', trust_mtime)

    def entry(self, key: str) -> Entry:
        """The entry of a key, there or not."""
        return Entry(self.root / key)

    def entries(self) -> list[Entry]:
        """All entries with a readable manifest, complete or begun, the last used first."""
        if not self.root.is_dir():
            return []
        # Hidden ones are what removals left that were killed.
        folders = [p for p in self.root.iterdir() if p.name != LOCKS and p.name[0] != '.']
        entries = [entry for entry in map(Entry, folders) if entry.read_manifest() is not None]
        return sorted(entries, key=Entry.last_used, reverse=True)

    def find(self, key: str) -> Entry:
        """The entry whose key begins so.

        Raises:
            ValueError: If there is none, or more than one.
        """
        found = [entry for entry in self.entries() if entry.key.startswith(key)]
        if len(found) != 1:
            keys = [entry.key for entry in found or self.entries()]
            what = 'fits several entries' if found else 'fits no entry'
            raise ValueError(
                f'Expected argument `key` to be the beginning of one key, but {key!r} '
                f'{what}. There are {keys}.'
            )
        return found[0]

    @contextmanager
    def lock(self, entry: Entry, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Keep other processes from writing an entry; released by the kernel if this one dies.

        Args:
            entry (Entry): The entry.
            on_wait (Callable, optional): Is told who holds the lock before waiting for it. Without
                it nothing is waited for.

        Raises:
            EntryInUseError: If another process holds the lock and ``on_wait`` is None.
        """
        folder = self.root / LOCKS
        lock, owner = FileLock(folder / f'{entry.key}.lock'), folder / f'{entry.key}.owner'
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            if on_wait is None:
                raise EntryInUseError(
                    f'{entry.path} is being written by {_read_owner(owner)}.'
                ) from None
            on_wait(_read_owner(owner))
            lock.acquire()
        except OSError as error:
            raise ValueError(
                f'Expected argument `cache_dir` to be a folder that can be written to, since '
                f'{entry.key} has to be, but got {self.root} ({error.strerror}). Choose another '
                'with `--cache-dir`.'
            ) from error
        try:
            owner.write_text(json.dumps(dict(pid=os.getpid(), host=socket.gethostname())))
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def remove(self, entry: Entry) -> int:
        """Remove an entry; who has mapped its files keeps them.

        Returns:
            int: Bytes that were freed, once the last reader is gone.

        Raises:
            EntryInUseError: If it is being written.
        """
        with self.lock(entry):
            size = entry.size()
            # Out of sight at once: a kill in the middle leaves no half of an entry.
            doomed = self.root / f'.{entry.key}{TEMPORARY_SUFFIX}'
            shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was killed
            os.replace(entry.path, doomed)
            shutil.rmtree(doomed)
        return size

    def verify(self, entry: Entry) -> list[int]:
        """Read all files of an entry; the next run that needs it computes damaged chunks anew.

        Returns:
            list[int]: Numbers of chunks that are missing, truncated or changed.
        """
        damaged = entry.damaged_chunks(entry.layout())
        # Nobody may write where a cache is shared for reading; to say so is still of use.
        if damaged:
            with suppress(EntryInUseError, ValueError, OSError), self.lock(entry):
                for chunk in damaged:
                    entry.mark_path(chunk).unlink(missing_ok=True)
        return damaged

    def prune(self, max_bytes: int | None = None, unused_days: float | None = None) -> list[Entry]:
        """Remove what is of no use any more, and on request what was not used for longest.

        Entries that no other run can share and what killed processes left behind go always;
        entries that are being written stay.

        Args:
            max_bytes (int, optional): Remove the entries unused for longest until the rest is no
                larger than this.
            unused_days (float, optional): Remove entries not used for so many days.

        Returns:
            list[Entry]: What was removed.
        """
        for doomed in self.root.glob(f'.*{TEMPORARY_SUFFIX}'):
            shutil.rmtree(doomed, ignore_errors=True)
        removed, total = [], 0
        for entry in self.entries():
            total += entry.size()
            too_old = unused_days is not None and (
                time.time() - entry.last_used() > unused_days * DAY
            )
            too_much = max_bytes is not None and total > max_bytes
            if too_old or too_much or not is_shared(entry.read_manifest()['description']):
                with suppress(EntryInUseError):
                    self.remove(entry)
                    removed.append(entry)
        return removed

    def report(self) -> str:
        """One line on how much is stored."""
        entries = self.entries()
        size = format_bytes(sum(entry.size() for entry in entries))
        number = f'{len(entries)} {"entry" if len(entries) == 1 else "entries"}'
        return f'{self.root} holds {number}, {size}'


def _read_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f'process {owner["pid"]} on {owner["host"]}'
    except (OSError, ValueError, KeyError):
        return 'another process'
