"""Panels of class maps for images and data sets, of one model or of several side by side."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from PIL import Image as PILImage
from torch.utils.data import Dataset

from mhc_plugin.class_maps import predictions_with_maps
from mhc_plugin.class_maps.display import packed_to_rgb
from mhc_plugin.class_maps.panels import MapView, draw_panel, truth_of

from .class_maps import class_indices
from .images import batches, inner_dataset, test_dataset
from .inferencer import MultiLabelInferencer


def draw_class_maps(
    inferencers: Mapping[str, MultiLabelInferencer],
    items: Iterable[dict],
    out_dir: str | os.PathLike,
    *,
    method: str = 'inherent',
    classes: Sequence[int | str] | None = None,
    thr: float | Sequence[float] | None = None,
    topk: int | None = None,
    npz: bool = False,
    batch_size: int = 16,
) -> Iterator[Path]:
    """Draw a panel for every image, and write raw maps on request.

    Args:
        inferencers (Mapping[str, MultiLabelInferencer]): One model, or several to stand side by
            side, under the names that they are shown with.
        items (Iterable[dict]): Images as a test pipeline packs them.
        out_dir (str | PathLike): Folder for ``<number>_<name>.png``.
        method (str): Method of the maps. Defaults to ``'inherent'``.
        classes (Sequence[int | str], optional): Classes to draw. Defaults to all.
        thr (float | Sequence[float], optional): Threshold for what counts as predicted.
        topk (int, optional): Number of classes that count as predicted.
        npz (bool): Write ``<number>_<name>.npz``, too: for every model, numbered in order,
            ``maps_<i>`` float32 (num_classes, h, w) and ``scores_<i>`` (num_classes,), and the
            names of ``models`` and ``classes``. Defaults to False.
        batch_size (int): Defaults to 16.

    Yields:
        Path: Every picture when it is written.

    Raises:
        ValueError: If models do not have the same classes, or an argument does not fit.
    """
    first = next(iter(inferencers.values()))
    for name, inferencer in inferencers.items():
        if inferencer.classes != first.classes:
            raise ValueError(
                f'Expected models of the same classes, but {name} has '
                f'{inferencer.classes} and another one {first.classes}.'
            )
    indices = None if classes is None else class_indices(first.model, classes)
    names = first.classes if indices is None else [first.classes[index] for index in indices]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    number = 0
    for batch in batches(items, batch_size):
        predicted = {
            title: _predict(inferencer, batch, method, indices, thr, topk)
            for title, inferencer in inferencers.items()
        }
        for place, sample in enumerate(batch['data_samples']):
            views = [
                MapView.of(samples[place], indices, title if len(inferencers) > 1 else '')
                for title, samples in predicted.items()
            ]
            image = packed_to_rgb(batch['inputs'][place], first.model.data_preprocessor)
            truth = truth_of(sample, len(first.classes))
            truth = truth if truth is None or indices is None else truth[indices]
            path = out_dir / f'{number:05d}_{_name(sample)}.png'
            PILImage.fromarray(draw_panel(image, views, names, truth, _name(sample))).save(path)
            if npz:
                _save_npz(path.with_suffix('.npz'), views, list(inferencers), names)
            number += 1
            yield path


def dataset_with_test_pipeline(cfg: Config, split: str) -> Dataset:
    """Build the data set of a split, prepared as for testing.

    Args:
        cfg (Config): A config.
        split (str): ``'train'``, ``'val'`` or ``'test'``: whose data loader to look into.

    Raises:
        ValueError: If the config has no such split.
    """
    dataset = copy.deepcopy((cfg.get(f'{split}_dataloader') or {}).get('dataset'))
    inner = inner_dataset(dataset)
    if inner is None:
        raise ValueError(
            f'Expected the config to have a `{split}_dataloader` with a data set and '
            'its pipeline, but it has none.'
        )
    inner['pipeline'] = copy.deepcopy(test_dataset(cfg)['pipeline'])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(dataset)


def _predict(
    inferencer: MultiLabelInferencer,
    batch: dict,
    method: str,
    indices: Sequence[int] | None,
    thr,
    topk: int | None,
) -> list[DataSample]:
    # A model writes its predictions into the samples that it is given.
    batch = dict(inputs=batch['inputs'], data_samples=copy.deepcopy(batch['data_samples']))
    with predictions_with_maps(inferencer.model, method, indices), torch.no_grad():
        return inferencer.predict_batch(batch, thr, topk)


def _name(sample: DataSample) -> str:
    if sample.get('img_path'):
        return Path(sample.img_path).stem
    return f'image{sample.get("sample_idx", "")}'


def _save_npz(
    path: Path, views: Sequence[MapView], titles: Sequence[str], names: Sequence[str]
) -> None:
    arrays = dict(classes=np.array(names), models=np.array(titles))
    for index, view in enumerate(views):
        arrays[f'maps_{index}'] = view.maps.astype(np.float32)
        arrays[f'scores_{index}'] = view.scores.astype(np.float32)
    np.savez_compressed(path, **arrays)
