"""Several classifiers over one data set, each distinct backbone run once."""

from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mhc_plugin.class_maps import logits_and_maps, unwrap_classifier
from mhc_plugin.datasets.images import batches
from mhc_plugin.utils.logs import progress
from mhc_plugin.utils.tensor_hash import hash_weights


class Outputs(NamedTuple):
    """What one model makes of a batch.

    Attributes:
        inputs (Tensor): Preprocessed images (N, 3, H, W).
        feats (tuple[Tensor]): Features of the backbone.
        logits (Tensor): (N, num_classes).
        maps (Tensor, optional): Inherent class maps (N, num_classes, h, w) before they are clamped,
            if they were asked for.
    """

    inputs: Tensor
    feats: tuple[Tensor, ...]
    logits: Tensor
    maps: Tensor | None


def run_models(
    models: Mapping[Hashable, nn.Module],
    dataset: Dataset,
    batch_size: int = 32,
    num_workers: int = 0,
    description: str = 'Images',
    with_maps: bool = False,
) -> Iterator[tuple[list[DataSample], dict[Hashable, Outputs]]]:
    """Run models on a data set, side by side.

    Models whose backbones and preprocessors agree in every weight and setting share the features
    of a batch, so that many heads cost little more than one. Every head runs once per batch;
    what is made of its logits and features is the caller's.

    Args:
        models (Mapping[Hashable, nn.Module]): Classifiers in evaluation mode, by name.
        dataset (Dataset): Images with data samples, as a test pipeline packs them.
        batch_size (int): Defaults to 32.
        num_workers (int): Processes that load images. Defaults to 0.
        description (str): What the bar of progress says. Defaults to 'Images'.
        with_maps (bool): Whether to give inherent class maps, too. Defaults to False.

    Yields:
        tuple: The data samples of a batch, and the outputs of every model.
    """
    models = {name: unwrap_classifier(model) for name, model in models.items()}
    backbones = {name: _identity(model) for name, model in models.items()}
    # Items one by one, since a batch ends where the size of images changes.
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    for batch in batches(progress(loader, description, len(dataset)), batch_size):
        shared: dict[tuple, tuple[Tensor, tuple[Tensor, ...]]] = {}
        outputs = {}
        for name, model in models.items():
            key = backbones[name]
            with torch.no_grad():
                if key not in shared:
                    inputs = model.data_preprocessor(dict(inputs=batch['inputs']))['inputs']
                    shared[key] = inputs, model.extract_feat(inputs, stage='backbone')
                inputs, feats = shared[key]
                if with_maps:
                    outputs[name] = Outputs(inputs, feats, *logits_and_maps(model, feats))
                    continue
                neck = getattr(model, 'neck', None)
                logits = model.head(feats if neck is None else neck(feats))
                outputs[name] = Outputs(inputs, feats, logits, None)
        yield batch['data_samples'], outputs


def _identity(model: nn.Module) -> tuple:
    """What has to be the same for two models to have the same features."""
    preprocessor = model.data_preprocessor
    return (
        str(model.backbone),
        hash_weights(model.backbone),
        hash_weights(preprocessor),
        getattr(preprocessor, 'to_rgb', False),
        preprocessor.pad_size_divisor,
        str(next(model.parameters()).device),
    )
