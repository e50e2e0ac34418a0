"""Descriptions of objects by content and configuration, for keys of the feature cache.

A description is made of what JSON holds. It names classes and functions with the version of their
code, replaces arrays and files by hashes of their content, and holds no path and no address. Where
that cannot be had, :class:`UndescribableError` is raised.
"""

import functools
import hashlib
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mhc_plugin.utils.tensor_hash import hash_tensors, hash_weights

from .store.hashing import hash_array
from .versions import UndescribableError, code_version, qualified_name

FileHash = Callable[[str], str]
# What mmcv's transforms keep of their last random draw.
TRANSIENT = {'_cache', '_cache_enabled'}
INDEX_KEYS = {'sample_idx'}
LABEL_KEYS = {'gt_label', 'gt_score'}
# Attributes of modules that change nothing of a frozen module's output: how it is trained, and
# where its weights, which are described by their content, come from.
WITHOUT_EFFECT = {
    'training',
    'init_cfg',
    'frozen_stages',
    'norm_eval',
    'with_cp',
    'pretrained',
    'checkpoint_path',
    'grad_checkpointing',
    '_is_init',
    '_non_blocking',
    *vars(nn.Module()),
}


def describe(value: Any, file_hash: FileHash) -> Any:
    """Describe a value.

    Args:
        value (Any): Plain values, containers, arrays, enums, classes, functions, partials, modules,
            datasets (see :func:`describe_dataset`), and objects of classes that can be imported.
        file_hash (Callable): Gives the hash of the file at a path.

    Raises:
        UndescribableError: If a part has no description.
    """
    return _Describer(file_hash).describe(value)


def describe_module(module: nn.Module, file_hash: FileHash) -> dict:
    """Describe a frozen module: weights, and classes and attributes of its submodules.

    How it was trained, its mode, device and memory format make no difference, nor does a forward
    pass. Of private attributes only numbers and texts count; others are caches and the like.

    Args:
        module (nn.Module): The module.
        file_hash (Callable): Gives the hash of the file at a path.
    """
    return _Describer(file_hash).module(module)


def describe_dataset(dataset: Any, file_hash: FileHash, with_labels: bool = False) -> dict:
    """Describe a dataset: its samples, by the content of their images, and its pipeline.

    Everything that ``get_data_info`` gives counts, whatever a transform may read: every file by its
    bytes wherever its path stands, arrays, boxes, cells; not the index. Datasets inside, of a
    wrapper for example, are described as well.

    Args:
        dataset (Sequence): An object with ``get_data_info(index)`` and a length.
        file_hash (Callable): Gives the hash of the file at a path.
        with_labels (bool): Whether ``gt_label`` and ``gt_score`` count. Defaults to False, since
            they change no pixel.
    """
    return _Describer(file_hash, with_labels).describe(dataset)


def is_dataset(value: Any) -> bool:
    """Whether an object gives samples by index, with what is known of them."""
    return hasattr(value, 'get_data_info') and hasattr(value, '__len__')


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


class _Describer:
    def __init__(self, file_hash: FileHash, with_labels: bool = False) -> None:
        self.file_hash = file_hash
        self.left_out = INDEX_KEYS if with_labels else INDEX_KEYS | LABEL_KEYS
        self.parents: list[int] = []

    def describe(self, value: Any) -> Any:
        if value is None or (isinstance(value, (bool, int)) and not isinstance(value, Enum)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)
        if isinstance(value, (str, os.PathLike)) and not isinstance(value, Enum):
            return self.text(value)
        if id(value) in self.parents:
            raise UndescribableError(f'an object of {type(value).__name__} holds itself')
        self.parents.append(id(value))
        try:
            return self.composed(value)
        finally:
            self.parents.pop()

    def text(self, value: str | os.PathLike) -> Any:
        path = os.fspath(value)
        is_path = isinstance(value, os.PathLike) or os.sep in path
        if is_path and os.path.isfile(path):
            return dict(file=self.file_hash(path))
        if isinstance(value, os.PathLike) or (is_path and os.path.isdir(path)):
            raise UndescribableError(f'{path} is no file, whose content could be compared')
        return path

    def path(self, value: Any) -> Any:
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            return self.describe(value)
        if not os.path.isfile(value):
            raise UndescribableError(f'{value} is no file on this machine')
        return dict(file=self.file_hash(value))

    def composed(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return dict(enum=qualified_name(type(value)), name=value.name)
        if isinstance(value, np.generic):
            return self.describe(value.item())
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                raise UndescribableError(f'an array of {value.dtype} holds more than numbers')
            return dict(array=hash_array(value))
        if isinstance(value, Tensor):
            return dict(tensor=hash_tensors([('', value)]))
        if isinstance(value, (bytes, complex, range, slice, np.dtype, torch.dtype, torch.device)):
            return dict(type=type(value).__name__, value=repr(value))
        if isinstance(value, re.Pattern):
            return dict(pattern=value.pattern, flags=value.flags)
        if isinstance(value, Mapping):
            return self.mapping(value)
        if isinstance(value, (list, tuple)):
            return [self.describe(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return dict(set=sorted((self.describe(item) for item in value), key=repr))
        if isinstance(value, functools.partial):
            return dict(
                partial=self.describe(value.func),
                args=self.describe(value.args),
                keywords=self.describe(value.keywords),
            )
        if inspect.ismethod(value):
            return dict(method=value.__name__, of=self.describe(value.__self__))
        if inspect.isclass(value) or inspect.isroutine(value):
            return dict(code=qualified_name(value), **code_version(value))
        if isinstance(value, nn.Module):
            return self.module(value)
        if is_dataset(value):
            return self.dataset(value)
        return self.instance(value)

    def mapping(self, value: Mapping) -> Any:
        if all(isinstance(key, str) for key in value):
            return {
                key: self.path(value[key]) if key.endswith('path') else self.describe(value[key])
                for key in sorted(value)
            }
        items = [[self.describe(key), self.describe(item)] for key, item in value.items()]
        return dict(items=sorted(items, key=repr))

    def instance(self, value: Any) -> dict:
        if not hasattr(value, '__dict__'):
            raise UndescribableError(f'an object of {type(value).__name__} does not show its state')
        state = {
            name: self.describe(item)
            for name, item in sorted(vars(value).items())
            if name not in TRANSIENT
        }
        return dict(code=qualified_name(type(value)), **code_version(type(value)), state=state)

    def module(self, value: nn.Module) -> dict:
        return dict(
            weights=hash_weights(value),
            modules={name: self.submodule(part) for name, part in value.named_modules()},
        )

    def submodule(self, value: nn.Module) -> dict:
        attributes = {
            name: self.describe(item)
            for name, item in sorted(vars(value).items())
            if name not in WITHOUT_EFFECT and (not name.startswith('_') or _is_plain(item))
        }
        return dict(code=qualified_name(type(value)), **code_version(type(value)), **attributes)

    def dataset(self, value: Any) -> dict:
        parts = {
            name: self.describe(getattr(value, name))
            for name in ('pipeline', 'dataset', 'datasets')
            if hasattr(value, name)
        }
        return dict(
            code=qualified_name(type(value)),
            **code_version(type(value)),
            num_samples=len(value),
            samples=self.samples(value),
            **parts,
        )

    def samples(self, value: Any) -> str:
        digest = hashlib.sha256()
        for index in range(len(value)):
            info = value.get_data_info(index)
            known = {name: item for name, item in info.items() if name not in self.left_out}
            digest.update(json.dumps(self.describe(known), sort_keys=True).encode())
        return digest.hexdigest()
