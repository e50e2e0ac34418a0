"""Predictions that carry class maps, whoever asks the model for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from mhc_plugin.utils.batch import Features

from .inherent import inherent_maps
from .posthoc import find_method, posthoc_maps
from .state import unwrap_classifier


@contextmanager
def predictions_with_maps(
    model: nn.Module, method: str = 'inherent', classes: Sequence[int] | None = None
) -> Iterator[nn.Module]:
    """Let a model put ``pred_cam`` on the data samples that it predicts.

    Inside, whatever calls the model in mode ``predict`` (a loop, an inferencer, a test step in a
    distributed wrapper) gets data samples whose ``pred_cam`` is a float tensor
    (len(classes), h, w) of raw, non-negative class maps. Inherent maps use the features of the
    same forward pass, or those that the model was given.

    Args:
        model (nn.Module): A classifier, maybe in a distributed wrapper.
        method (str): ``'inherent'`` or a method of :func:`posthoc_methods`.
        classes (Sequence[int], optional): Classes to map, in this order. Defaults to all.

    Raises:
        ValueError: If the model is no classifier with a backbone and a head, there is no such
            method, or, later, if a post-hoc method is asked for maps of features.
    """
    classifier = unwrap_classifier(model)
    if method != 'inherent':
        find_method(method)
    # Features of the forward pass that is under way; None outside, where the backbone may be run,
    # too (to fill a feature cache, say), and nobody would take them away.
    parts: list[tuple[torch.Tensor, ...]] | None = None

    def begin(module, args):
        nonlocal parts
        parts = []

    def keep(module, args, output):
        if parts is not None:
            parts.append(output if isinstance(output, tuple) else (output,))

    def attach(module, args, kwargs, output):
        nonlocal parts
        # A backbone may have been run on a batch in parts.
        feats = tuple(torch.cat(stage) for stage in zip(*parts)) if parts else None
        parts = None
        if kwargs.get('mode', args[2] if len(args) > 2 else 'tensor') != 'predict':
            return
        inputs = kwargs['inputs'] if 'inputs' in kwargs else args[0]
        maps = class_maps_of(classifier, inputs, method, classes, feats)
        for sample, sample_maps in zip(output, maps):
            sample.set_field(sample_maps, 'pred_cam', dtype=torch.Tensor)

    handles = [
        classifier.register_forward_pre_hook(begin),
        classifier.backbone.register_forward_hook(keep),
        classifier.register_forward_hook(attach, with_kwargs=True),
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def class_maps_of(
    model: nn.Module,
    inputs: torch.Tensor | Features,
    method: str = 'inherent',
    classes: Sequence[int] | None = None,
    feats: tuple[torch.Tensor, ...] | None = None,
) -> torch.Tensor:
    """Class maps of one batch by any method.

    Args:
        model (nn.Module): A classifier in evaluation mode.
        inputs (Tensor | Features): Preprocessed images (N, 3, H, W), or features.
        method (str): ``'inherent'`` or a method of :func:`posthoc_methods`.
        classes (Sequence[int], optional): Classes to map, in this order. Defaults to all.
        feats (tuple[Tensor], optional): Features of the backbone for these images, if they are
            at hand.

    Returns:
        Tensor: Raw, non-negative maps (N, len(classes), h, w).

    Raises:
        ValueError: If a post-hoc method is asked for maps of features.
    """
    is_feats = isinstance(inputs, Features)
    if method != 'inherent':
        if is_feats:
            raise ValueError(
                f"Expected images for class maps by '{method}', but got features: use method "
                "'inherent', or run without the feature cache."
            )
        return posthoc_maps(model, inputs, method, classes)
    if is_feats:
        return inherent_maps(model, inputs.stages, classes, given=True)
    if feats is None:
        with torch.no_grad():
            feats = model.extract_feat(inputs, stage='backbone')
    return inherent_maps(model, feats, classes)
