"""Descriptions of objects by content and configuration, for keys of the feature cache.

A description is made of what JSON holds. It names classes and functions with the version of their
code, that of an installed library or a hash of the source files, replaces arrays and files by
hashes of their content, and holds no path and no address. Nothing of an object is left out unless
it is listed here: where a part has no description, :class:`UndescribableError` is raised.
"""

import functools
import hashlib
import inspect
import json
import math
import os
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor, nn

from mhc_plugin.utils.tensor_hash import hash_tensors

from .store import FileHashes, hash_array, make_key
from .versions import UndescribableError, code_version, is_known_code, qualified_name

# What mmcv's transforms keep of their last random draw.
TRANSIENT = {'_cache', '_cache_enabled'}
INDEX_KEYS = {'sample_idx'}
LABEL_KEYS = {'gt_label', 'gt_score', 'unknown_label'}
# Attributes of modules that change nothing of what a frozen module computes: how it is trained,
# where its weights, which are described by their content, come from, and where it is.
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
    '_device',
    *vars(nn.Module()),
}
# What is run in a forward pass, and what only labels and training use.
HOOKS = ('_forward_pre_hooks', '_forward_hooks')
LABELS_OF_PREPROCESSOR = {'num_classes', 'to_onehot', 'batch_augments'}
WORD = object.__basicsize__ // 2
# Samples that are described ahead of the files that are being read. Few: Python looks through all
# its objects whenever some hundreds more are kept.
AHEAD = 64
# Of descriptions, in which a hash may be what waits for it.
ENCODER = json.JSONEncoder(sort_keys=True, default=lambda read: read())


def describe(value: Any, file_hash: Callable[[str], Any]) -> Any:
    """Describe a value.

    Modules are described by weights, classes and attributes of all submodules, private ones and
    hooks included; their mode, device, memory format and what was said of their training make no
    difference. Files, wherever a path stands, are described by their bytes.

    Args:
        value (Any): Plain values, containers, arrays, enums, classes, functions, partials, modules,
            and objects of Python classes that can be imported.
        file_hash (Callable): Gives the hash of the file at a path.

    Raises:
        UndescribableError: If a part has no description.
    """
    return _Describer(file_hash).describe(value)


def summarize(module: nn.Module, file_hash: Callable[[str], Any]) -> dict:
    """A module's description with its hundreds of layers hashed, so that people can read it."""
    whole = describe(module, file_hash)
    return dict(
        code=whole['modules']['']['code'],
        weights=whole['weights'],
        layers=make_key(whole['modules']),
    )


def describe_dataset(dataset: Any, hashes: FileHashes, with_labels: bool = False) -> dict:
    """Describe a dataset: its samples, by the content of their images, and its pipeline.

    Everything that ``get_data_info`` gives counts, whatever a transform may read: every file by its
    bytes wherever its path stands, arrays, boxes, cells; not the index. Datasets inside, of a
    wrapper for example, are described as well. Files are read by several threads.

    Args:
        dataset (Sequence): An object with ``get_data_info(index)`` and a length.
        hashes (FileHashes): Gives the hashes of files.
        with_labels (bool): Whether ``gt_label``, ``gt_score`` and ``unknown_label`` count. Defaults
            to False, since they change no pixel.
    """
    left_out = INDEX_KEYS if with_labels else INDEX_KEYS | LABEL_KEYS
    info_of = dataset.get_data_info
    if not with_labels:
        # Some make them for this alone, or give those of some classes.
        info_of = getattr(dataset, 'unlabelled_info', info_of)

    def described() -> Iterator[list[dict]]:
        ahead = _Describer(hashes.submit)
        for start in range(0, len(dataset), AHEAD):
            infos = map(info_of, range(start, min(start + AHEAD, len(dataset))))
            yield [
                ahead.describe({k: v for k, v in info.items() if k not in left_out})
                for info in infos
            ]

    digest, before = hashlib.sha256(), []
    for samples in chain(described(), [[]]):
        # Without its brackets: how many are described at once makes no difference.
        digest.update(f'{ENCODER.encode(before)[1:-1]}, '.encode())
        before = samples
    describer = _Describer(hashes, with_labels)
    parts = {
        name: describer.describe(getattr(dataset, name))
        for name in ('pipeline', 'dataset', 'datasets')
        if hasattr(dataset, name)
    }
    return dict(
        **describer.code(type(dataset)),
        num_samples=len(dataset),
        samples=digest.hexdigest(),
        settings=describer.settings(dataset),
        **parts,
    )


class _Describer:
    def __init__(self, file_hash: Callable[[str], Any], with_labels: bool = False) -> None:
        self.file_hash = file_hash
        self.with_labels = with_labels
        self.parents: list[int] = []

    def describe(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return value
        if kind is float:
            return value if math.isfinite(value) else repr(value)
        if kind is str or isinstance(value, os.PathLike):
            return self.text(value)
        if id(value) in self.parents:
            raise UndescribableError(f'an object of {kind.__name__} holds itself')
        self.parents.append(id(value))
        try:
            is_plain = kind is dict or kind is list or kind is tuple
            return self.container(value) if is_plain else self.composed(value)
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
        try:
            return dict(file=self.file_hash(value))
        except OSError as error:
            raise UndescribableError(f'{value} is no file on this machine') from error

    def composed(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return dict(enum=qualified_name(type(value)), name=value.name)
        if isinstance(value, np.generic):
            return self.describe(value.item())
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, ATOMS):
            return dict(type=type(value).__name__, value=repr(value))
        if isinstance(value, re.Pattern):
            return dict(pattern=value.pattern, flags=value.flags)
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return self.container(value)
        if isinstance(value, functools.partial):
            return dict(
                partial=self.describe(value.func),
                args=self.describe(value.args),
                keywords=self.describe(value.keywords),
            )
        if inspect.ismethod(value):
            return dict(method=value.__name__, of=self.describe(value.__self__))
        if inspect.isclass(value) or inspect.isroutine(value):
            return self.code(value)
        if isinstance(value, nn.Module):
            return dict(
                weights=_hash_tensors(value.named_parameters(), value.named_buffers()),
                # Under all names: a layer may be run more than once.
                modules={
                    name: self.submodule(part)
                    for name, part in value.named_modules(remove_duplicate=False)
                },
            )
        if is_dataset(value):
            return describe_dataset(value, self.file_hash, self.with_labels)
        if _hides_state(value):
            raise UndescribableError(f'an object of {type(value).__name__} does not show its state')
        return dict(**self.code(type(value)), state=self.state(value))

    def array(self, value: np.ndarray) -> dict:
        if value.dtype.hasobject or type(value) not in (np.ndarray, np.memmap):
            raise UndescribableError(f'an array of {value.dtype} holds more than numbers')
        return dict(array=hash_array(value))

    def tensor(self, value: Tensor) -> dict:
        if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
            raise UndescribableError(f'a tensor of {type(value).__name__} holds more than numbers')
        return dict(tensor=_hash_tensors([('', value)]))

    def container(self, value: Any) -> Any:
        if isinstance(value, (dict, Mapping)):
            items = self.mapping(value)
        elif isinstance(value, (list, tuple)):
            items = [self.describe(item) for item in value]
        else:
            items = dict(set=sorted((self.describe(item) for item in value), key=ENCODER.encode))
        if type(value) in CONTAINERS or not _states(value):
            return items
        return dict(**self.code(type(value)), items=items, state=self.state(value))

    def mapping(self, value: Mapping) -> Any:
        if all(type(key) is str for key in value):
            return {
                key: self.path(value[key]) if key.endswith('path') else self.describe(value[key])
                for key in sorted(value)
            }
        items = [[self.describe(key), self.describe(item)] for key, item in value.items()]
        return dict(items=sorted(items, key=ENCODER.encode))

    def code(self, value: type | Callable) -> dict:
        return dict(code=qualified_name(value), **code_version(value))

    def state(self, value: Any) -> dict:
        return {
            name: self.describe(item)
            for name, item in sorted(_states(value).items())
            if name not in TRANSIENT
        }

    def submodule(self, value: nn.Module) -> dict:
        left_out = WITHOUT_EFFECT
        if isinstance(value, ClsDataPreprocessor):
            left_out = left_out | LABELS_OF_PREPROCESSOR
        attributes = {
            name: self.describe(item)
            for name, item in sorted(vars(value).items())
            if name not in left_out
        }
        hooks = {name: self.describe([*vars(value)[name].values()]) for name in HOOKS}
        return dict(**self.code(type(value)), **attributes, **{n: h for n, h in hooks.items() if h})

    def settings(self, dataset: Any) -> dict:
        """What a dataset of the user's own may do to images by itself, besides its pipeline.

        Its lists and dicts are tables of samples, which it gives one by one.
        """
        if is_known_code(sys.modules[type(dataset).__module__]):
            return {}
        return {
            name: self.describe(item)
            for name, item in sorted(vars(dataset).items())
            if isinstance(item, (bool, int, float, np.ndarray, Tensor, nn.Module))
            or (isinstance(item, str) and not os.path.exists(item))
        }


ATOMS = (
    bytes,
    complex,
    range,
    slice,
    np.dtype,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)
CONTAINERS = (dict, OrderedDict, defaultdict, ConfigDict, list, tuple, torch.Size, set, frozenset)


def is_dataset(value: Any) -> bool:
    """Whether an object gives samples by index, with what is known of them."""
    return hasattr(value, 'get_data_info') and hasattr(value, '__len__')


def _hash_tensors(*tensors: Iterable[tuple[str, Tensor]]) -> str:
    try:
        return hash_tensors(chain(*tensors))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise UndescribableError(f'a tensor does not show its values ({error})') from error


def _slots(cls: type) -> list[str]:
    names = []
    for base in cls.__mro__:
        slots = vars(base).get('__slots__', ())
        names += [slots] if isinstance(slots, str) else slots
    return [name for name in names if name not in ('__dict__', '__weakref__')]


def _states(value: Any) -> dict[str, Any]:
    """All attributes of an object."""
    slots = {n: getattr(value, n) for n in _slots(type(value)) if hasattr(value, n)}
    return slots | getattr(value, '__dict__', {})


def _hides_state(value: Any) -> bool:
    """Whether an object holds more than attributes.

    Compiled code keeps it in the object's bytes, of which a class of Python needs two words and one
    for each slot.
    """
    cls, slots = type(value), _slots(type(value))
    own = object.__basicsize__ + WORD * (2 + len(slots))
    is_larger = bool(cls.__itemsize__) or cls.__basicsize__ > own
    return is_larger or not (slots or hasattr(value, '__dict__'))
