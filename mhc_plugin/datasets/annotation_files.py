"""Files of annotations: what is wrong with one, where data is missing, and how they are written."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mmengine.fileio as fileio


class AnnotationError(ValueError):
    """An annotation file says something that it should not.

    Args:
        message (str): What is wrong, as a whole sentence.
        path (str | PathLike, optional): The file at fault.
        line (int, optional): The line at fault, counted from 1.
    """

    def __init__(
        self, message: str, path: str | os.PathLike | None = None, line: int | None = None
    ) -> None:
        self.message = message
        self.path = path
        self.line = line
        super().__init__(message, path, line)

    def __str__(self) -> str:
        place = '' if self.path is None else str(self.path)
        if self.line is not None:
            place += f', line {self.line}'
        return f'{place}: {self.message}' if place else self.message


def check_path(path: str, argument: str) -> None:
    """Check that a folder or file of a dataset is there.

    Args:
        path (str): Where a dataset looks.
        argument (str): Name of the argument that says so.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(missing_data(path, argument))


def missing_data(path: str, argument: str) -> str:
    """The sentence that says what was looked for and what to do."""
    return (
        f"Expected argument `{argument}` to lead to data, but '{path}' does not exist: set "
        'MHC_DATA_ROOT to the folder that holds the datasets, or put them there '
        '(without MHC_DATA_ROOT our configs look in `data`).'
    )


def read_text(path: str | os.PathLike) -> str:
    """Read a text file in UTF-8, or in UTF-16 where it begins with a byte order mark.

    Raises:
        AnnotationError: If it is neither; the error names the line.
    """
    content = fileio.get(os.fspath(path))
    encoding = 'utf-16' if content.startswith((b'\xff\xfe', b'\xfe\xff')) else 'utf-8-sig'
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = None if encoding == 'utf-16' else len((content[: error.start] + b'.').splitlines())
        raise AnnotationError(
            f'Expected text in UTF-8, but got the bytes '
            f'{content[error.start : error.start + 4]!r}; save the file as UTF-8.',
            path,
            line,
        ) from None
    if '\0' in text:
        raise AnnotationError(
            'Expected text in UTF-8, but got zero bytes; save the file as UTF-8.',
            path,
            text[: text.index('\0')].count('\n') + 1,
        )
    return text


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


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Fill a file beside ``target`` and give it that name at the end; nothing stays of a failure.

    Raises:
        FileExistsError: If there is something already.
    """
    if target.exists():
        raise FileExistsError(f'{target} exists already; name another file, or remove it.')
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f'.{target.name}.{os.getpid()}')
    try:
        yield path
        path.rename(target)
    finally:
        path.unlink(missing_ok=True)


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


def write_label_csv(path: Path, classes: Sequence[str], entries: Iterable[dict]) -> None:
    """Write the CSV that :class:`CSVMultiLabelDataset` reads: lists of labels separated by ``|``.

    Args:
        path (Path): The file.
        classes (Sequence[str]): Names of the classes.
        entries (Iterable[dict]): ``img_path``, ``gt_label`` and ``unknown_label`` per image.

    Raises:
        ValueError: If a name holds the separator.
    """
    for name in classes:
        if '|' in name:
            raise ValueError(
                f'Expected names of classes without "|", which separates labels in CSV, but got '
                f'{name!r}; write JSON.'
            )
    with _synced(path) as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['file', 'labels', 'unknown_labels'])
        for entry in entries:
            labels = (
                '|'.join(classes[i] for i in entry[key]) for key in ('gt_label', 'unknown_label')
            )
            writer.writerow([entry['img_path'], *labels])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file."""
    with _synced(path) as file:
        file.writelines(f'{line}\n' for line in lines)


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
