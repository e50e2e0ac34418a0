"""Errors in one sentence, as far as they come from settings, files and the network."""

import difflib
import errno
import os
import re
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmpretrain.registry
from mmengine.config import Config
from mmengine.registry import Registry

_NETWORK_PACKAGES = (
    'urllib',
    'urllib3',
    'http',
    'ssl',
    'requests',
    'httpx',
    'httpcore',
    'huggingface_hub',
)
_WITH_SENTENCES = (
    ValueError,
    FileNotFoundError,
    OSError,
    ConnectionError,
    ImportError,
    FloatingPointError,
    SyntaxError,
)
_UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')
_ESCAPE_CODE = re.compile(r'\x1b\[[0-9;]*m')
_IN_WORKER = 'in DataLoader worker process'


@contextmanager
def explain_downloads(cfg: Config) -> Iterator[None]:
    """Turn the many errors of a failed download into one that says what was to be downloaded.

    Args:
        cfg (Config): The config, whose weights may have to be downloaded.

    Raises:
        ConnectionError: If the network failed.
    """
    try:
        yield
    except Exception as error:
        reason = next(filter(_is_network_error, _chain(error)), None)
        if reason is None:
            raise
        first_line = str(reason).partition('\n')[0]
        weights, checkpoint = list(_downloads(cfg.model)), str(cfg.get('load_from') or '')
        advice = 'name a local copy of the checkpoint'
        if weights:
            advice = (
                'give the weights with `--backbone-weights PATH`, or take random ones with '
                '`--backbone-weights none`'
            )
        sources = weights + [checkpoint] * ('://' in checkpoint)
        raise ConnectionError(
            f'Could not download {" or ".join(sources) or "a file"} '
            f'({first_line}). Without a network, {advice}.'
        ) from error


@contextmanager
def explain_full_disk(*folders: str | os.PathLike) -> Iterator[None]:
    """Say which folder could not be written to: neither torch nor Python does.

    Args:
        *folders (str | PathLike): What is written to.

    Raises:
        OSError: If a disk is full.
    """
    try:
        yield
    except Exception as error:
        if not any(_is_full_disk(cause) for cause in _chain(error)):
            raise
        # The one with the least room first.
        free = sorted((shutil.disk_usage(folder).free, os.fspath(folder)) for folder in folders)
        places = ' or '.join(f'{folder} ({room / 2**20:,.0f} MiB free)' for room, folder in free)
        raise OSError(
            f'The disk is full: writing to {places} failed. Make room, or name another folder; '
            '`--resume` goes on from the last checkpoint that was written whole.'
        ) from error


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


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full_disk(error: BaseException) -> bool:
    # torch.save turns a failed write into an error of its own.
    return getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT) or (
        isinstance(error, RuntimeError)
        and ('PytorchStreamWriter failed' in str(error) or 'iostream error' in str(error))
    )


def _is_network_error(error: BaseException) -> bool:
    return type(error).__module__.split('.')[0] in _NETWORK_PACKAGES


def _downloads(value: Any, key: str = '') -> Iterator[str]:
    """Addresses of weights in a config, and names of timm's models that come with weights."""
    if isinstance(value, dict):
        if value.get('type') == 'TIMMBackbone' and value.get('pretrained'):
            yield f'the weights of {value.get("model_name")}'
        for name, item in value.items():
            yield from _downloads(item, name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _downloads(item, key)
    elif key in ('checkpoint', 'pretrained') and '://' in str(value):
        yield value


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
