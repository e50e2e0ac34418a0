"""Class maps that a model gives by itself: feature times gradient of the logit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmpretrain.models import GlobalAveragePooling, LinearClsHead, MultiLabelLinearClsHead
from torch import nn

from .state import check_maps

# Heads that are one linear layer over the last feature. Exact types: a subclass may do more.
_LINEAR_HEADS = (MultiLabelLinearClsHead, LinearClsHead)


def inherent_maps(
    model: nn.Module,
    feats: tuple[torch.Tensor, ...],
    classes: Sequence[int] | None = None,
    given: bool = False,
) -> torch.Tensor:
    """Class maps of a classifier from its features, without another pass through the backbone.

    For every class ``c`` this is ``clamp(h w sum_k x_k d logit_c / d x_k, 0)`` at the map ``x``
    that the head pools: for a head that pools itself, the map the head says (its own
    ``class_maps``), else the backbone's, before the neck. It is feature times gradient, place by
    place, as in HiResCAM (Draelos and Carin, 2020); with average pooling and one linear layer it
    is the class activation map ``clamp(w_c . x, 0)`` of Zhou et al. (CVPR 2016).

    Args:
        model (nn.Module): A classifier with a backbone, maybe a neck, and a head; in evaluation
            mode.
        feats (tuple[Tensor]): What the backbone gives for a batch: maps (N, C, h, w), one per
            stage.
        classes (Sequence[int], optional): Classes to map, in this order. Defaults to all.
        given (bool): Whether the features were given to the model instead of images. Such
            features have been through a neck that keeps maps. Defaults to False.

    Returns:
        Tensor: Non-negative maps (N, len(classes), h, w), in units of the logit; ``h`` and ``w``
        are those of the largest stage that feeds the head, other stages are resized bilinearly.

    Raises:
        ValueError: If the features are no maps, or the head gives no logits (N, num_classes).
    """
    with _in_dtype_of_head(model, feats) as feats:
        found = closed_form(model, feats, given)
        if found is None:
            return _by_gradient(model, check_maps(feats, 'features'), classes)[1].clamp_(min=0)
        maps = found[1].clamp(min=0)
        return maps if classes is None else maps[:, list(classes)]


def logits_and_maps(
    model: nn.Module, feats: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and inherent maps of all classes before they are clamped, from one run of the head.

    Args:
        model (nn.Module): See :func:`inherent_maps`.
        feats (tuple[Tensor]): What the backbone gives for a batch.

    Returns:
        tuple[Tensor, Tensor]: Logits (N, num_classes), and maps (N, num_classes, h, w) with both
        signs, which :func:`inherent_maps` clamps.

    Raises:
        ValueError: See :func:`inherent_maps`.
    """
    with _in_dtype_of_head(model, feats) as feats:
        return closed_form(model, feats) or _by_gradient(model, check_maps(feats, 'features'), None)


@contextmanager
def _in_dtype_of_head(
    model: nn.Module, feats: tuple[torch.Tensor, ...]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Without autocast: maps are compared between classes, and the heads are small."""
    dtype = next((p.dtype for p in model.head.parameters()), feats[-1].dtype)
    with torch.no_grad(), torch.autocast(feats[-1].device.type, enabled=False):
        yield tuple(feat.to(dtype) for feat in feats)


def closed_form(
    model: nn.Module, feats: tuple[torch.Tensor, ...], given: bool = False
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Logits and inherent maps of all classes by tensor operations alone, or None.

    Arguments are those of :func:`inherent_maps`, which says more; maps have both signs.
    """
    neck, head = getattr(model, 'neck', None), model.head
    own = _feats_with_own_maps(model, feats, given)
    if own is not None:
        if not hasattr(head, 'logits_and_maps'):
            return head(own), head.class_maps(own)
        return head.logits_and_maps(own)
    if type(neck) is not GlobalAveragePooling or type(head) not in _LINEAR_HEADS:
        return None
    x = check_maps(feats, 'features')[-1]
    maps = F.conv2d(x, head.fc.weight[:, :, None, None])
    return head(_apply_neck(model, feats)), maps


def _apply_neck(model: nn.Module, feats: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return feats if getattr(model, 'neck', None) is None else model.neck(feats)


def _feats_with_own_maps(
    model: nn.Module, feats: tuple[torch.Tensor, ...], given: bool = False
) -> tuple[torch.Tensor, ...] | None:
    """Give what reaches a head that has maps of its own, or None: a neck may have pooled it."""
    if not hasattr(model.head, 'class_maps'):
        return None
    if given or getattr(model, 'neck', None) is None:
        return feats
    necked = model.neck(check_maps(feats, 'features'))
    return necked if all(feat.dim() == 4 for feat in necked) else None


def _by_gradient(
    model: nn.Module, feats: tuple[torch.Tensor, ...], classes: Sequence[int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run neck and head once, and their gradient once per class."""
    leaves = [feat.detach().requires_grad_() for feat in feats]
    with torch.enable_grad():
        # Clones: a neck may begin with an operation in place, which a leaf forbids.
        logits = model.head(_apply_neck(model, tuple(leaf.clone() for leaf in leaves)))
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
            raise ValueError(
                'Expected the head to return logits of shape (N, num_classes), but '
                f'`{type(model.head).__name__}` did not: its class maps are not defined.'
            )
        used = _leaves_in_use(logits, leaves)
        size = max((leaf.shape[-2:] for leaf in used), key=lambda hw: hw[0] * hw[1])
        classes = range(logits.size(1)) if classes is None else classes
        maps = [_gradient_map(logits[:, c].sum(), used, size) for c in classes]
    return logits.detach(), torch.stack(maps, 1)


def _leaves_in_use(logits: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    grads = torch.autograd.grad(logits.sum(), leaves, retain_graph=True, allow_unused=True)
    return [leaf for leaf, grad in zip(leaves, grads) if grad is not None]


def _gradient_map(
    logit: torch.Tensor, leaves: list[torch.Tensor], size: torch.Size
) -> torch.Tensor:
    """Map (N, h, w) of one class, summed over stages."""
    grads = torch.autograd.grad(logit, leaves, retain_graph=True)
    total = 0
    for leaf, grad in zip(leaves, grads):
        places = leaf.shape[-2] * leaf.shape[-1]
        stage = places * (leaf.detach() * grad).sum(1, keepdim=True)
        if stage.shape[-2:] != size:
            stage = F.interpolate(stage, size=size, mode='bilinear', align_corners=False)
        total = total + stage
    return total.squeeze(1)
