"""Lists of class names: read, checked, and compared with one another."""

import difflib
import os
import unicodedata
from collections.abc import Iterable, Sequence

from .annotation_files import AnnotationError, check_path, read_text

# A sentence has room for as many names of a list.
_MAX_SHOWN = 12


def read_class_list(classes: Sequence[str] | str | os.PathLike) -> tuple[str, ...]:
    """Names of classes, checked: each a text, none empty, none twice.

    Args:
        classes (Sequence[str] | str | PathLike): The names, or a file with one a line. Blank lines
            and spaces around a name do not count there.

    Returns:
        tuple[str]: The names, in Unicode's composed form, so that equal names are equal.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the names are no list of distinct names.
    """
    if isinstance(classes, str | os.PathLike):
        path = os.path.expanduser(classes)
        check_path(path, 'classes')
        names = [line.strip() for line in read_text(path).splitlines()]
        return _checked([name for name in names if name], path)
    return _checked(classes, None)


def _checked(names: Iterable[str], path: str | None) -> tuple[str, ...]:
    names = tuple(names)
    problem = None
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        problem = f'names of classes, but got {shown(names) if names else "none"}'
    else:
        names = tuple(unicodedata.normalize('NFC', name) for name in names)
        twice = (
            sorted({name for name in names if names.count(name) > 1})
            if (len(set(names)) < len(names))
            else []
        )
        if twice:
            problem = f'each class once, but got {shown(twice)} more than once'
    if problem is None:
        return names
    if path is None:
        raise ValueError(f'Expected argument `classes` to hold {problem}.')
    raise AnnotationError(f'Expected the file to hold {problem}.', path)


def near_names(name: str, known: Iterable[str]) -> str:
    """What may have been meant: `` (did you mean 'dog'?)``, or nothing."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f' (did you mean {" or ".join(repr(by_lower[other]) for other in close)}?)' * bool(close)


def shown(names: Sequence[str]) -> str:
    """A list of names as a sentence has room for it."""
    names = list(names)
    if len(names) <= _MAX_SHOWN:
        return str(names)
    return f'{str(names[:_MAX_SHOWN])[:-1]}, ... {len(names) - _MAX_SHOWN} more]'


def class_list_difference(
    first: Sequence[str], second: Sequence[str], first_name: str, second_name: str
) -> str | None:
    """One sentence on two lists of classes that have to be the same, or None if they are.

    Outputs, targets and thresholds of a model belong to classes by their place, so names and order
    have to agree: of training, validation and test data, checkpoint, thresholds and predictions.

    Args:
        first (Sequence[str]): A list of classes.
        second (Sequence[str]): Another one.
        first_name (str): What has the first, such as 'the training data'.
        second_name (str): What has the second.
    """
    first, second = [
        [unicodedata.normalize('NFC', name) for name in names] for names in (first, second)
    ]
    if first == second:
        return None
    if sorted(first) == sorted(second):
        place = next(i for i, (a, b) in enumerate(zip(first, second)) if a != b)
        how = f'the order (class {place} is {first[place]!r} and {second[place]!r})'
    else:
        only = [
            f'only {owner} has {shown([name for name in names if name not in set(others)])}'
            for owner, names, others in ((first_name, first, second), (second_name, second, first))
            if set(names) - set(others)
        ]
        how = '; '.join(only) or 'how often a class is named'
    return (
        f'Expected the classes of {second_name} to be those of {first_name} in the same order, '
        f'{shown(first)}, but got {shown(second)}: they differ in {how}.'
    )


def num_classes_difference(num_classes: int, classes: Sequence[str], data_name: str) -> str | None:
    """One sentence on a head that has not as many outputs as its data has classes, or None.

    Args:
        num_classes (int): Setting ``num_classes`` of the head.
        classes (Sequence[str]): Classes of the data.
        data_name (str): Setting that gives the data, such as 'train_dataloader.dataset'.
    """
    if num_classes == len(classes):
        return None
    return (
        f'Expected `model.head.num_classes` to be the number of classes of `{data_name}`, '
        f'{len(classes)} ({shown(classes)}), but got {num_classes}.'
    )
