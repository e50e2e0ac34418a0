"""Class maps of models for images: as tensors, and as panels."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from mmpretrain.structures import DataSample
from PIL import Image as PILImage
from torch import nn

from mhc_plugin.class_maps import (
    class_maps_of,
    left_as_found,
    predictions_with_maps,
    unwrap_classifier,
)
from mhc_plugin.class_maps.display import packed_to_rgb
from mhc_plugin.class_maps.panels import MapView, draw_panel, truth_of
from mhc_plugin.datasets.images import Image, ImagePipeline, batches, list_images
from mhc_plugin.utils.batch import Features

from .inferencer import MultiLabelInferencer
from .model import classes_of

_BATCH = 32


def class_maps(
    model: nn.Module,
    images: torch.Tensor | Features | Image | Sequence[Image],
    classes: Sequence[int | str] | None = None,
    method: str = 'inherent',
) -> torch.Tensor:
    """Where in an image the score of each class comes from.

    Args:
        model (nn.Module): An MMPretrain classifier with a backbone and a head. It is left as it
            was found. For paths and arrays it has to know its config, as from :func:`load_model`
            or ``mmpretrain.get_model``.
        images (Tensor | Features | str | np.ndarray | Sequence): What the data preprocessor
            returns, (N, 3, H, W); or features; or paths and arrays (BGR), which are
            prepared as the test pipeline does.
        classes (Sequence[int | str], optional): Classes by index or name, in the order in which
            their maps are wanted. Defaults to all.
        method (str): ``'inherent'``, which takes no more than the forward pass, or a method of
            ``pytorch_grad_cam``, such as ``'GradCAM'``. Defaults to ``'inherent'``.

    Returns:
        Tensor: Raw, non-negative maps (N, len(classes), h, w) on the model's device. They are not
        stretched: one scale holds for all classes of an image.

    Raises:
        ValueError: If there is no such class or method, the model does not know its config, the
            features are no maps, or the images differ in size after the pipeline.
        FileNotFoundError: If there is no such file.
    """
    classifier = unwrap_classifier(model)
    indices = None if classes is None else class_indices(classifier, classes)
    with left_as_found(classifier):
        if isinstance(images, torch.Tensor | Features):
            images = images.to(next(classifier.parameters()).device)
            return class_maps_of(classifier, images, method, indices)
        maps = [
            class_maps_of(classifier, batch, method, indices)
            for batch in _prepared(classifier, images)
        ]
    sizes = {tuple(batch.shape[-2:]) for batch in maps}
    if len(sizes) > 1:
        raise ValueError(
            'Expected images of one size behind the test pipeline, but their maps '
            f'are of sizes {sorted(sizes)}: call once for each size.'
        )
    return torch.cat(maps)


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


def class_indices(model: nn.Module, classes: Sequence[int | str]) -> list[int]:
    """Turn names of classes into indices.

    Raises:
        ValueError: If a class is not one of the model's.
    """
    names = classes_of(model)
    indices = []
    for item in classes:
        if item in names:
            indices.append(names.index(item))
        elif isinstance(item, Integral) and 0 <= item < len(names):
            indices.append(int(item))
        else:
            raise ValueError(
                f'Expected argument `classes` to hold indices below {len(names)} or '
                f'names of {names}, but got {item!r}.'
            )
    return indices


def _prepared(model: nn.Module, images: Image | Sequence[Image]):
    cfg = getattr(model, '_config', None)
    if cfg is None:
        raise ValueError(
            'Expected a model that knows its config to prepare images by: load it '
            'with `mhc_plugin.apis.load_model` or `mmpretrain.get_model`, or give '
            'what the data preprocessor returns.'
        )
    for batch in batches(map(ImagePipeline(cfg), list_images(images)), _BATCH):
        yield model.data_preprocessor(batch, False)['inputs']


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
