"""Class maps by the methods of ``pytorch_grad_cam``, which are called and never rewritten."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mhc_plugin.utils.missing import needs_extra

from .state import check_maps, left_as_found


def posthoc_methods() -> dict[str, type]:
    """Give the methods of ``pytorch_grad_cam`` that make one image per class and layer, by name.

    These are the ``BaseCAM`` classes that go through ``get_cam_image``; ``FullGrad``, which adds
    up the biases of a whole network, and the methods that wrap another one do not.

    Raises:
        ImportError: If grad-cam is not installed.
    """
    with needs_extra('cam', 'A post-hoc class map'):
        import pytorch_grad_cam
        from pytorch_grad_cam.base_cam import BaseCAM
    return {
        name: cls
        for name, cls in sorted(vars(pytorch_grad_cam).items())
        if inspect.isclass(cls)
        and issubclass(cls, BaseCAM)
        and cls.compute_cam_per_layer is BaseCAM.compute_cam_per_layer
    }


def find_method(name: str) -> type:
    """Give the class of a method by its name, in any case, ``++`` or ``PlusPlus``.

    Raises:
        ValueError: If no method has this name.
    """
    methods = posthoc_methods()
    wanted = name.lower().replace('+', 'plus')
    for known, cls in methods.items():
        if known.lower() == wanted:
            return cls
    raise ValueError(
        f"Expected argument `method` to be 'inherent' or one of {', '.join(methods)}, but got "
        f"'{name}'."
    )


def posthoc_maps(
    model: nn.Module, inputs: torch.Tensor, method: str, classes: Sequence[int] | None = None
) -> torch.Tensor:
    """Class maps of a classifier by a method of ``pytorch_grad_cam``.

    The target layer is what the backbone hands to neck or head: in a ResNet with gates the sum
    after gate and residual, in VGG the last pooling, in Swin the last norm. The backbone
    runs once for all classes, and the gradient runs through neck and head alone, unless the
    method itself changes the input over and over (``ScoreCAM``, ``AblationCAM``). The maps are
    the library's ``get_cam_image``, clipped at 0 and not stretched; those of several stages are
    resized bilinearly to the largest one and added.

    Args:
        model (nn.Module): A classifier with a backbone, maybe a neck, and a head. It is left as
            it was found.
        inputs (Tensor): Preprocessed images (N, 3, H, W).
        method (str): Name of the method; see :func:`posthoc_methods`.
        classes (Sequence[int], optional): Classes to map, in this order. Defaults to all.

    Returns:
        Tensor: Non-negative float32 maps (N, len(classes), h, w).

    Raises:
        ValueError: If there is no such method, or the backbone gives no maps.
    """
    cam_class = find_method(method)
    with (
        left_as_found(model),
        torch.enable_grad(),
        torch.autocast(inputs.device.type, enabled=False),
    ):
        tapped = TappedClassifier(model, inputs)
        cam = cam_class(tapped, list(tapped.taps))
        # The library's hooks would keep every pass; features and gradients come from here.
        cam.activations_and_grads.release()
        return _maps_of_classes(cam, tapped, inputs, classes)


class TappedClassifier(nn.Module):
    """A classifier from images to logits, with an identity at every feature that feeds the head.

    The identities are the target layers, whatever the backbone is: nothing has to be found in it,
    hooked or replaced, and frozen features can still be asked for their gradients.

    Args:
        model (nn.Module): A classifier.
        inputs (Tensor): Images (N, 3, H, W) to find the features that feed the head with.
    """

    def __init__(self, model: nn.Module, inputs: torch.Tensor) -> None:
        super().__init__()
        self.classifier = model
        self.stages = self._stages_in_use(inputs[:1])
        self.taps = nn.ModuleList(nn.Identity() for _ in self.stages)

    def features(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Maps (N, C, h, w) of the backbone, one per stage, as leaves that want gradients."""
        with torch.no_grad():
            feats = self.classifier.extract_feat(inputs, stage='backbone')
        return [feat.requires_grad_() for feat in check_maps(feats, 'features of the backbone')]

    def logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits (N, num_classes) of features, through neck and head."""
        # Clones: a neck may begin with an operation in place, which a leaf forbids.
        feats = tuple(feat.clone() for feat in feats)
        neck = getattr(self.classifier, 'neck', None)
        return self.classifier.head(feats if neck is None else neck(feats))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        feats = self.features(inputs)
        for stage, tap in zip(self.stages, self.taps):
            feats[stage] = tap(feats[stage])
        return self.logits(feats)

    def _stages_in_use(self, inputs: torch.Tensor) -> list[int]:
        feats = self.features(inputs)
        grads = torch.autograd.grad(self.logits(feats).sum(), feats, allow_unused=True)
        return [stage for stage, grad in enumerate(grads) if grad is not None]


def _maps_of_classes(
    cam, tapped: TappedClassifier, inputs: torch.Tensor, classes: Sequence[int] | None
) -> torch.Tensor:
    """Maps (N, len(classes), h, w): the images of every stage, resized and added up."""
    feats = tapped.features(inputs)
    logits = tapped.logits(feats)
    size = max((feats[stage].shape[-2:] for stage in tapped.stages), key=lambda hw: hw[0] * hw[1])
    maps = []
    for index in range(logits.size(1)) if classes is None else classes:
        total = 0
        for layer, stage in zip(cam.target_layers, tapped.stages):
            gradient = _gradient(cam, tapped, feats, logits, index, stage)
            image = _cam_image(cam, layer, inputs, feats[stage], gradient, index)
            if image.shape[-2:] != size:
                image = F.interpolate(image, size=size, mode='bilinear', align_corners=False)
            total = total + image
        maps.append(total)
    return torch.cat(maps, 1).to(inputs.device)


def _gradient(
    cam,
    tapped: TappedClassifier,
    feats: list[torch.Tensor],
    logits: torch.Tensor,
    index: int,
    stage: int,
) -> torch.Tensor | np.ndarray | None:
    """Gradient of a class's logit at a stage, in the form in which the method expects it."""
    if not cam.uses_gradients:
        return None
    if cam.detach:
        return (
            torch.autograd.grad(logits[:, index].sum(), feats[stage], retain_graph=True)[0]
            .cpu()
            .numpy()
        )
    # ShapleyCAM differentiates once more and frees the graph, so it gets one of its own. The
    # gradient of a linear head does not depend on the features: a second derivative of 0 is added.
    logit = tapped.logits(feats)[:, index].sum()
    gradient = torch.autograd.grad(logit, feats[stage], create_graph=True)[0]
    return gradient + 0 * feats[stage]


def _cam_image(
    cam,
    layer: nn.Module,
    inputs: torch.Tensor,
    feat: torch.Tensor,
    gradient: torch.Tensor | np.ndarray | None,
    index: int,
) -> torch.Tensor:
    """The library's image of one class at one stage, (N, 1, h, w), clipped at 0."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(index)] * len(inputs)
    activations = feat.detach().cpu().numpy() if cam.detach else feat
    image = cam.get_cam_image(inputs, layer, targets, activations, gradient, eigen_smooth=False)
    return torch.from_numpy(np.maximum(image, 0)).float()[:, None]
