"""Errors in one sentence, as far as they come from settings and files."""

import difflib
import re
import traceback
from collections.abc import Iterator

import mmpretrain.registry
from mmengine.registry import Registry

from mhc_plugin.datasets import AnnotationError

_WITH_SENTENCES = (
    ValueError,
    FileNotFoundError,
    OSError,
    ConnectionError,
    ImportError,
    FloatingPointError,
    SyntaxError,
    AnnotationError,
)
_UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')
_ESCAPE_CODE = re.compile(r'\x1b\[[0-9;]*m')
_IN_WORKER = 'in DataLoader worker process'


def in_one_sentence(error: BaseException) -> str:
    """Say what went wrong without a traceback.

    Args:
        error (BaseException): Any exception.

    Returns:
        str: Its message, with what is known to help: the closest name for a misspelt type, the file
        for a failed assertion without a message.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = _ESCAPE_CODE.sub('', text)
    if _IN_WORKER in text:
        return _last_line(text)
    if match := _UNKNOWN_TYPE.search(text):
        return _unknown_type(*match.groups())
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
    if type(error) in _WITH_SENTENCES:
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
