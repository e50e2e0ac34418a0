"""Errors in one sentence, as far as they come from settings and files."""

import difflib
import inspect
import re
import traceback
from collections.abc import Iterator

import mmpretrain.registry
from mmengine.registry import Registry
from torch.utils.data import DataLoader

_UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')
_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_IN_WORKER = 'in DataLoader worker process'


def in_one_sentence(error: BaseException) -> str:
    """Say what went wrong without a traceback.

    Args:
        error (BaseException): Any exception.

    Returns:
        str: Its message, with what is known to help: the closest name for a misspelt type or
        argument, the file for a failed assertion without a message.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if _IN_WORKER in text:
        return _last_line(text)
    if match := _UNKNOWN_TYPE.search(text):
        return _unknown_type(*match.groups())
    if match := _UNKNOWN_ARGUMENT.search(text):
        return _unknown_argument(*match.groups())
    if isinstance(error, OSError) and error.filename is not None:
        hint = (
            ' Data is looked for in the `data_root` of the config; the variable MHC_DATA_ROOT '
            'sets where that is.'
            if isinstance(error, FileNotFoundError)
            else ''
        )
        return f'{error.strerror}: {error.filename}.{hint}'
    if not text:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f'{type(error).__name__} in {frame.filename}, line {frame.lineno}: {frame.line}'
    # These are raised with sentences; the name of others is needed to understand them.
    if type(error) in (ValueError, FileNotFoundError, ConnectionError, ImportError, SyntaxError):
        return text
    return f'{type(error).__name__}: {text}'


def _last_line(text: str) -> str:
    """The message of an error of a worker, without its traceback."""
    lines = text.strip().splitlines()
    last_frame = max((i for i, line in enumerate(lines) if line.startswith('  ')), default=-1)
    return ' '.join(lines[last_frame + 1 :])


def _registries(name: str) -> Iterator[Registry]:
    for registry in vars(mmpretrain.registry).values():
        if isinstance(registry, Registry) and name in ('', registry.name):
            yield registry
            if registry.parent is not None:
                yield registry.parent


def _unknown_type(name: str, scope: str, registry: str) -> str:
    known = {key for found in _registries(registry) for key in found.module_dict}
    close = difflib.get_close_matches(name.rpartition('.')[2], known, n=3)
    hint = (
        f'did you mean {" or ".join(close)}?'
        if close
        else ('its module must be imported, for instance by `custom_imports` of the config.')
    )
    return f'There is no {name} in the {registry} registry of {scope}; {hint}'


def _unknown_argument(cls_name: str, argument: str) -> str:
    # The argument may have been meant for a subclass, which hands on what it does not know.
    registered = [cls for found in _registries('') for cls in found.module_dict.values()]
    families = [cls.__mro__ for cls in [*registered, DataLoader] if inspect.isclass(cls)]
    known = {
        name
        for family in families
        if cls_name in (base.__name__ for base in family)
        for base in family
        if '__init__' in vars(base)
        for name in inspect.signature(base.__init__).parameters
    } - {'self', 'args', 'kwargs'}
    close = difflib.get_close_matches(argument, known, n=1)
    hint = f'; did you mean `{close[0]}`?' if close else '.'
    return f'{cls_name} takes no argument `{argument}`{hint}'
