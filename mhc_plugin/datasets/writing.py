"""Datasets written to disk: whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .sample_table import SampleTable


@contextmanager
def new_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Fill a folder beside ``target`` and give it that name at the end.

    If anything is raised before, what was written is removed; if the process is killed, what was
    written stays under a hidden name of its own, and there is no ``target``.

    Args:
        target (str | PathLike): A path where nothing is yet; its parents are made.

    Raises:
        FileExistsError: If there is something already.
    """
    target = Path(target)
    if target.exists():
        raise FileExistsError(f'{target} exists already; name another folder, or remove it.')
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent))
    try:
        yield folder
        # mkdtemp lets nobody else in.
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_annotations(path: Path, classes: Sequence[str], entries: Iterable[dict]) -> None:
    """Write OpenMMLab's multi-label JSON, one image a line.

    Args:
        path (Path): The file.
        classes (Sequence[str]): Names of the classes.
        entries (Iterable[dict]): ``img_path``, ``gt_label`` and what else there is, per image.
            They are written as they come, so a million of them need no memory.
    """
    with _synced(path) as file:
        file.write(f'{{"metainfo": {json.dumps(dict(classes=list(classes)))},\n"data_list": [')
        for number, entry in enumerate(entries):
            file.write((',\n' if number else '\n') + json.dumps(entry))
        file.write('\n]}\n')


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file."""
    with _synced(path) as file:
        file.writelines(f'{line}\n' for line in lines)


def sample_entries(samples: SampleTable, root: str) -> Iterator[dict]:
    """Entries of :func:`write_annotations`, paths below ``root``.

    Classes of which nothing is known are in ``unknown_label``, which
    :class:`JSONMultiLabelDataset` reads and MMPretrain's ``MultiLabelDataset`` passes over.
    """
    folders = [os.path.relpath(folder, root) for folder in samples.folders]
    for row in range(len(samples)):
        labels = samples.labels.row(row)
        path = os.path.join(folders[samples.folder_of[row]], f'{samples.names[row].decode()}.jpg')
        yield dict(
            img_path=os.path.normpath(path),
            gt_label=np.flatnonzero(labels == 1).tolist(),
            unknown_label=np.flatnonzero(labels == -1).tolist(),
        )


def describe_file(path: str | os.PathLike) -> dict:
    """Path, size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return dict(path=os.fspath(path), bytes=os.path.getsize(path), sha256=digest.hexdigest())


@contextmanager
def _synced(path: Path) -> Iterator:
    with path.open('w', encoding='utf-8') as file:
        yield file
        # The folder must not get its name before its files have their content.
        file.flush()
        os.fsync(file.fileno())
