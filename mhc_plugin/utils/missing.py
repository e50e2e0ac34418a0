"""Packages, weights and room on disks that are missing, each in one sentence."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

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


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Say which extra of this package brings a package that is not installed.

    A package that is installed, but has no such module or name any more, is another matter, and
    its own error is let through.

    Args:
        extra (str): Name of the extra.
        what (str): What needs it.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = error.name.partition('.')[0]
        if find_spec(package) is not None:
            raise
        raise ModuleNotFoundError(
            f'{what} needs {package}: pip install "mhc_plugin[{extra}]".', name=package
        ) from error


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
