"""Files that are whole or not there: every write of the feature cache goes through here."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

TEMPORARY_SUFFIX = '.tmp'


def write_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name, flush it to disk, and move it to its place.

    Who has opened or mapped the old file keeps the old content.

    Args:
        path (Path): Where the file is to be.
        write (Callable): Is given the open file and writes the content.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}')
    try:
        with open(temporary, 'wb') as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write JSON together with a hash of itself, so that damage is seen when it is read."""
    whole = dict(sha256=_json_hash(content), content=content)
    text = json.dumps(whole, indent=indent)
    write_file(path, lambda f: f.write(text.encode()))


def read_json(path: Path) -> Any | None:
    """Content of a file of :func:`write_json`; None if it is missing or damaged."""
    try:
        whole = json.loads(path.read_bytes())
        return whole['content'] if whole['sha256'] == _json_hash(whole['content']) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _json_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(f'.*{TEMPORARY_SUFFIX}'):
        path.unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """Make sure that a folder's disk has room.

    Args:
        folder (Path): An existing folder.
        needed (int): Bytes.

    Raises:
        OSError: With ``errno.ENOSPC``, if there is less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f'The features need {format_bytes(needed)}, but {folder} has only '
            f'{format_bytes(free)} left. Free some space (`tools/feature_cache.py list` shows what '
            'is stored), choose another folder with `--cache-dir`, or store less with fewer '
            '`--views` or `--storage fp16`',
        )


def format_bytes(size: int) -> str:
    """Such as ``'12.3 MiB'``."""
    value, units = float(size), ['B', 'KiB', 'MiB', 'GiB', 'TiB']
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f'{value:.0f} {units[0]}' if units[0] == 'B' else f'{value:.1f} {units[0]}'


def npy_header(path: Path) -> tuple[tuple[tuple[int, ...], np.dtype] | None, int]:
    """Shape and dtype of a ``.npy`` file in C order, None if it is none, and where data begin."""
    try:
        with open(path, 'rb') as f:
            version = np.lib.format.read_magic(f)
            read = getattr(np.lib.format, f'read_array_header_{version[0]}_{version[1]}')
            shape, is_fortran, dtype = read(f)
            return (None if is_fortran else (shape, dtype)), f.tell()
    except (ValueError, AttributeError):
        return None, 0
