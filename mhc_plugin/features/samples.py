"""What a pipeline packs besides the image: as JSON beside the features, and labels as a table."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from .store import EntryReader

# Labels are set by these, which bring them into MMPretrain's form.
SETTERS = dict(gt_label=DataSample.set_gt_label, gt_score=DataSample.set_gt_score)
LABELS = frozenset(SETTERS)
# MMPretrain derives it from `gt_score`.
DERIVED = {'num_classes'}
# Targets that are put together at a time.
TARGET_ROWS = 4096


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


def target_table(dataset: Sequence, reader: EntryReader, num_classes: int) -> Tensor:
    """Labels of all images, as MMPretrain's multi-label heads take them from data samples.

    Args:
        dataset (Sequence): The dataset of images.
        reader (EntryReader): What was stored of them.
        num_classes (int): Number of classes.

    Returns:
        Tensor: ``(len(dataset), num_classes)``, or as many rows as are stored where the pipeline
        makes labels; int8 if all are 1, 0 or -1, else float32.
    """
    kept = [packs_labels_of_info(encoded) for encoded in reader.distinct_samples()]
    number = len(dataset) if all(kept) else reader.layout.num_rows
    table = torch.empty(number, num_classes, dtype=torch.int8)
    for start, part in _target_parts(dataset, reader, number, num_classes):
        is_compact = (part == 0) | (part == 1) | (part == -1)
        if table.dtype is torch.int8 and not is_compact.all():
            table = table.float()
        table[start : start + len(part)] = torch.from_numpy(part)
    return table


def _target_parts(
    dataset: Sequence, reader: EntryReader, number: int, num_classes: int
) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, number, TARGET_ROWS):
        rows = range(start, min(start + TARGET_ROWS, number))
        part = np.zeros((len(rows), num_classes), np.float32)
        for target, row in zip(part, rows):
            labels = _labels(dataset.get_data_info(row % len(dataset)), reader.sample(row))
            scores, positives = labels.get('gt_score'), np.asarray(labels.get('gt_label', ()))
            if scores is not None and len(scores) == num_classes:
                target[:] = scores
            elif scores is None and (positives < num_classes).all():
                target[positives.astype(np.int64)] = 1
            else:
                given = positives.tolist() if scores is None else f'{len(scores)} scores'
                raise ValueError(
                    f'Expected labels of the {num_classes} classes of the head, but image '
                    f'{row % len(dataset)} has {given}.'
                )
        yield start, part


def _labels(info: dict, encoded: dict) -> dict:
    """The labels of a data sample, without making it."""
    stored = {name: _decode(value) for name, value in encoded['data'].items() if name in LABELS}
    return {name: info[name] for name in encoded['data_of_info'] if name in LABELS} | stored


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
