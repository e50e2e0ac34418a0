"""Data samples as JSON: what a pipeline packs besides the image is stored beside the features."""

from typing import Any

import numpy as np
import torch
from mmpretrain.structures import DataSample

# Labels are set by these, which bring them into MMPretrain's form.
SETTERS = dict(gt_label=DataSample.set_gt_label, gt_score=DataSample.set_gt_score)
LABELS = frozenset(SETTERS)
# MMPretrain derives it from `gt_score`.
DERIVED = {'num_classes'}


def encode_sample(sample: DataSample, info: dict) -> dict:
    """Encode a data sample.

    Fields that are the same in ``info``, labels and the image's path first of all, are named
    only; :func:`decode_sample` takes them from there, so that they are never out of date.

    Args:
        sample (DataSample): What the pipeline packed.
        info (dict): What the dataset knows of the image.

    Returns:
        dict: Values that JSON can hold.

    Raises:
        ValueError: If a field is of a type that cannot be encoded.
    """
    if not isinstance(sample, DataSample):
        raise ValueError(
            'Expected the pipeline to pack a `DataSample`, as `PackInputs` does, but '
            f'got `{type(sample).__name__}`, which the feature cache cannot store.'
        )
    encoded = {}
    for kind, items in (('metainfo', sample.metainfo_items()), ('data', sample.items())):
        items = {name: value for name, value in items if name not in DERIVED}
        known = sorted(name for name, value in items.items() if _is_known(name, value, info))
        encoded[kind] = {n: _encode(n, v) for n, v in sorted(items.items()) if n not in known}
        encoded[f'{kind}_of_info'] = known
    return encoded


def decode_sample(encoded: dict, info: dict) -> DataSample:
    """Inverse of :func:`encode_sample`, with today's ``info``."""
    sample = DataSample()
    for kind in ('metainfo', 'data'):
        for name in encoded[f'{kind}_of_info']:
            _set(sample, name, info[name], kind)
        for name, value in encoded[kind].items():
            _set(sample, name, _decode(value), kind)
    return sample


def packs_labels_of_info(encoded: dict) -> bool:
    """Whether the pipeline left the labels as the dataset gives them."""
    return not LABELS & encoded['data'].keys()


def _set(sample: DataSample, name: str, value: Any, kind: str) -> None:
    if name in SETTERS:
        SETTERS[name](sample, value)
    else:
        sample.set_field(value, name, field_type=kind)


def _is_known(name: str, value: Any, info: dict) -> bool:
    if name not in info:
        return False
    if name in SETTERS:
        return torch.equal(value, getattr(SETTERS[name](DataSample(), info[name]), name))
    return _equal(value, info[name])


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return isinstance(one, (str, int, float, bool, type(None))) and one == other


def _encode(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, torch.Tensor):
        return dict(
            tensor=value.flatten().tolist(),
            shape=list(value.shape),
            dtype=str(value.dtype).removeprefix('torch.'),
        )
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return dict(array=value.flatten().tolist(), shape=list(value.shape), dtype=value.dtype.str)
    if isinstance(value, (tuple, list)):
        return {type(value).__name__: [_encode(name, item) for item in value]}
    raise ValueError(
        f'The pipeline packs `{name}`, a `{type(value).__name__}`, which the feature cache cannot '
        'store. Leave it out of `meta_keys` and `algorithm_keys`, or pack an array.'
    )


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if 'tensor' in value:
        dtype = getattr(torch, value['dtype'])
        return torch.tensor(value['tensor'], dtype=dtype).view(value['shape'])
    if 'array' in value:
        return np.array(value['array'], value['dtype']).reshape(value['shape'])
    ((kind, items),) = value.items()
    return (tuple if kind == 'tuple' else list)(_decode(item) for item in items)
