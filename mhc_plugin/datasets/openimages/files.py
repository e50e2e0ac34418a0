"""Where OpenImages' files are, by the names under which its versions are published."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

# V7 says "val" in some names.
_SPLITS = dict(train=('train',), validation=('validation', 'val'), test=('test',))
_VERSIONS = ('', 'oidv7-', 'oidv6-', 'oidv5-', 'oidv4-')
# V2 and V3 unpack into one folder per split; other tools sort the files into these.
_FOLDERS = ('', 'annotations', 'labels', 'metadata')

_CLASS_NAMES = ('class-descriptions-boxable.csv', 'class-descriptions.csv', 'dict.csv')
_LABEL_NAMES = ('annotations-human-imagelabels-boxable.csv', 'annotations-human-imagelabels.csv')
_BOX_NAMES = ('annotations-bbox.csv', 'annotations-human-bbox.csv')


def check_split(split: str) -> None:
    """Raise a ValueError if OpenImages has no such split."""
    if split not in _SPLITS:
        raise ValueError(
            f'Expected argument `split` to be one of {", ".join(_SPLITS)}, but got {split!r}.'
        )


def find_class_file(root: Path, given: str | None = None) -> Path:
    """Find the names of the classes, the boxable ones first."""
    names = [version + name for name, version in product(_CLASS_NAMES, _VERSIONS)]
    return _find(root, given, 'class_file', _FOLDERS, names)


def find_label_file(root: Path, split: str, given: str | None = None) -> Path:
    """Find the verified image-level labels of a split, those of the boxable classes first."""
    names = [*_split_names(_LABEL_NAMES, split), 'annotations-human.csv']
    return _find(root, _of_split(given, split), 'label_file', (*_FOLDERS, *_SPLITS[split]), names)


def find_box_file(root: Path, split: str, given: str | None = None) -> Path:
    """Find the boxes of a split."""
    names = [*_split_names(_BOX_NAMES, split), 'annotations-human-bbox.csv']
    return _find(root, _of_split(given, split), 'box_file', (*_FOLDERS, *_SPLITS[split]), names)


def _of_split(given: str | None, split: str) -> str | None:
    return None if given is None else given.replace('<split>', split)


def _split_names(names: Sequence[str], split: str) -> Iterator[str]:
    for name, version, word in product(names, _VERSIONS, _SPLITS[split]):
        yield f'{version}{word}-{name}'


def _find(
    root: Path, given: str | None, argument: str, folders: Sequence[str], names: Sequence[str]
) -> Path:
    if given is not None:
        path = root / given
        if not path.is_file():
            raise FileNotFoundError(
                f'Expected argument `{argument}` to be a file, given whole or '
                f'below {root}, but there is no {path}.'
            )
        return path
    for folder, name in product(folders, names):
        path = root / folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'Expected one of {names[0]}, ..., {names[-1]} in {root} or a folder {", ".join(folders)} '
        f'of it, but found none; set `{argument}`.'.replace('folder , ', 'folder ')
    )
