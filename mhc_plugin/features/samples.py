"""What a pipeline packs besides the image: as JSON beside the features, and labels as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from mhc_plugin.utils.known_pairs import KnownPairs

from .store import EntryReader

# Labels are set by these, which bring them into MMPretrain's form.
SETTERS = dict(gt_label=DataSample.set_gt_label, gt_score=DataSample.set_gt_score)
LABELS = frozenset(SETTERS)
# MMPretrain derives it from `gt_score`.
DERIVED = {'num_classes'}
# Targets that are put together at a time, and images that tell how many are known.
TARGET_VALUES = 1 << 22
NUM_LOOKED_AT = 1024


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


def target_table(dataset: Sequence, reader: EntryReader, num_classes: int) -> Tensor | KnownPairs:
    """Labels of all images, as MMPretrain's multi-label heads take them from data samples.

    Args:
        dataset (Sequence): The dataset of images.
        reader (EntryReader): What was stored of them.
        num_classes (int): Number of classes.

    Returns:
        Tensor | KnownPairs: ``(len(dataset), num_classes)``, or as many rows as are stored where
        the pipeline makes labels; int8 if all are 1, 0 or -1, else float32. The known pairs where
        they take fewer bytes than the matrix.
    """
    kept = [packs_labels_of_info(encoded) for encoded in reader.distinct_samples()]
    number = len(dataset) if all(kept) else reader.layout.num_rows

    table = getattr(dataset, 'label_table', None)
    if table is not None and table.num_classes == num_classes and _takes_all_scores(reader):
        return _from_label_table(table)

    def targets(rows: Sequence[int]) -> Tensor:
        return _targets(dataset, reader, rows, num_classes)

    at_once = max(TARGET_VALUES // num_classes, 1)
    parts = (
        targets(range(start, min(start + at_once, number))) for start in range(0, number, at_once)
    )
    # Some images tell how many targets are known; a wrong guess costs memory alone.
    some = targets(range(0, number, -(-number // min(NUM_LOOKED_AT, at_once))))
    if KnownPairs.from_dense(some).num_bytes < some.numel() * some.element_size():
        return KnownPairs.cat([KnownPairs.from_dense(part) for part in parts])
    table, start = torch.empty(number, num_classes, dtype=torch.int8), 0
    for part in parts:
        if part.is_floating_point():
            table = table.float()
        table[start : start + len(part)] = part
        start += len(part)
    return table


def _takes_all_scores(reader: EntryReader) -> bool:
    return all('gt_score' in encoded['data_of_info'] for encoded in reader.distinct_samples())


def _from_label_table(table: Any) -> Tensor | KnownPairs:
    """The same of a dataset's own table, ``LabelTable``, whose arrays are taken as they are."""
    if table.fill == -1 and not (table.values == -1).any():
        arrays = (table.offsets, table.classes, table.values)
        pairs = KnownPairs(*map(torch.from_numpy, arrays), table.num_classes)
        if pairs.num_bytes < len(table) * table.num_classes:
            return pairs
    matrix = torch.empty(len(table), table.num_classes, dtype=torch.int8)
    at_once = max(TARGET_VALUES // table.num_classes, 1)
    for start in range(0, len(table), at_once):
        stop = min(start + at_once, len(table))
        matrix[start:stop] = torch.from_numpy(table.part(start, stop).dense())
    return matrix


def _targets(
    dataset: Sequence, reader: EntryReader, rows: Sequence[int], num_classes: int
) -> Tensor:
    """Targets of some rows: int8 if all are 1, 0 or -1, else float32."""
    targets = np.zeros((len(rows), num_classes), np.float32)
    for target, row in zip(targets, rows):
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
    with np.errstate(invalid='ignore'):  # NaN
        compact = targets.astype(np.int8)
    is_exact = np.array_equal(compact, targets) and np.abs(compact).max(initial=0) <= 1
    return torch.from_numpy(compact if is_exact else targets)


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
