"""Looking into a model without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from torch import nn


def unwrap_classifier(model: nn.Module) -> nn.Module:
    """Give the classifier inside distributed wrappers, and refuse what has no maps.

    Args:
        model (nn.Module): An MMPretrain classifier, maybe in a wrapper of MMEngine.

    Raises:
        ValueError: If the model has no backbone or no head.
    """
    while is_model_wrapper(model):
        model = model.module
    if getattr(model, 'backbone', None) is None or getattr(model, 'head', None) is None:
        raise ValueError(
            'Expected argument `model` to be a classifier with a backbone and a head, such as '
            f'`ImageClassifier`, but got `{type(model).__name__}`.'
        )
    return model


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` into evaluation mode, and give back what it was, also after an error.

    What is given back is the mode of every module, and ``requires_grad`` and the gradient of
    every parameter. Modes are written directly: ``train()`` of MMPretrain's backbones would
    freeze stages again. Inside, gradients are ``None``, so that nothing is added to them.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    for parameter, _, _ in parameters:
        parameter.grad = None
    try:
        model.eval()
        yield model
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def check_maps(feats: object, origin: str) -> tuple[torch.Tensor, ...]:
    """Give features as a tuple of maps.

    Args:
        feats (object): What a backbone, a neck or a feature store gave.
        origin (str): Who gave them, for the sentence of the error.

    Returns:
        tuple[Tensor]: Maps of shape (N, C, h, w), one per stage.

    Raises:
        ValueError: If a feature is no map: where it came from does not matter to the head, but
            it has lost its places.
    """
    if isinstance(feats, torch.Tensor):
        feats = (feats,)
    shapes = [
        tuple(feat.shape) if isinstance(feat, torch.Tensor) else type(feat).__name__
        for feat in feats
    ]
    if any(not isinstance(shape, tuple) or len(shape) != 4 for shape in shapes):
        raise ValueError(
            f'Expected {origin} to be maps of shape (N, C, h, w), but got {shapes}. Class maps '
            'need features that still have places: store maps (`store="maps"`) where they come '
            'from a feature cache, or let the backbone return maps.'
        )
    return tuple(feats)
