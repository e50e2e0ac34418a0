"""Class maps of a model for images: one call."""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import nn

from mhc_plugin.class_maps import class_maps_of, left_as_found, unwrap_classifier

from .images import Image, ImagePipeline, batches, list_images
from .model import class_names

_BATCH = 32


def class_maps(
    model: nn.Module,
    images: torch.Tensor | tuple[torch.Tensor, ...] | Image | Sequence[Image],
    classes: Sequence[int | str] | None = None,
    method: str = 'inherent',
) -> torch.Tensor:
    """Where in an image the score of each class comes from.

    Args:
        model (nn.Module): An MMPretrain classifier with a backbone and a head. It is left as it
            was found. For paths and arrays it has to know its config, as from :func:`load_model`
            or ``mmpretrain.get_model``.
        images (Tensor | tuple[Tensor] | str | np.ndarray | Sequence): What the data preprocessor
            returns, (N, 3, H, W); or, as a tuple, features; or paths and arrays (BGR), which are
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
        if isinstance(images, torch.Tensor | tuple):
            device = next(classifier.parameters()).device
            images = (
                images.to(device)
                if isinstance(images, torch.Tensor)
                else tuple(feat.to(device) for feat in images)
            )
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


def class_indices(model: nn.Module, classes: Sequence[int | str]) -> list[int]:
    """Turn names of classes into indices.

    Raises:
        ValueError: If a class is not one of the model's.
    """
    names = class_names(model)
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
