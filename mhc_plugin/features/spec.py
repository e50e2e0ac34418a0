"""Which features a model's head needs, and how they come from images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.model import BaseTTAModel
from mmpretrain.models import GlobalAveragePooling
from torch import Tensor, nn

from mhc_plugin.features.versions import code_version
from mhc_plugin.models import FrozenBackboneClassifier
from mhc_plugin.models.layers import GlobalPool


@dataclass(frozen=True)
class FeatureSpec:
    """What of the backbone's output is stored.

    Args:
        stage (str): ``'backbone'``, or ``'neck'`` for a neck without parameters.
        positions (tuple[int, ...], optional): Positions in the tuple of features; negative ones
            count from the end. None means all.
        pool (tuple[str, float], optional): Mode and sharpness of :class:`GlobalPool`; None stores
            features as they are.
    """

    stage: str
    positions: tuple[int, ...] | None
    pool: tuple[str, float] | None

    @classmethod
    def of(cls, model: FrozenBackboneClassifier, store: str) -> 'FeatureSpec':
        """What a model needs.

        Args:
            model (FrozenBackboneClassifier): The model.
            store (str): ``'auto'`` or ``'maps'``.
        """
        pools_in_neck = pools_globally(model.neck) if model.with_neck else False
        stage = 'neck' if model.with_neck and not pools_in_neck else 'backbone'
        head, pool = model.head, None
        if pools_in_neck:
            pool = ('avg', 0.0)
        elif getattr(head, 'needs_maps', True) is False:
            pool = (head.pool, head.lse_r if head.pool == 'lse' else 0.0)
        spec = cls(stage, getattr(head, 'stages', None), pool)
        return replace(spec, pool=None) if store == 'maps' else spec

    def resolve(self, num_features: int) -> 'FeatureSpec':
        """The same with positions counted from the start.

        Raises:
            ValueError: If the backbone gives fewer features than the head reads.
        """
        positions = range(num_features) if self.positions is None else self.positions
        if any(not -num_features <= position < num_features for position in positions):
            raise ValueError(
                f'Expected the backbone to give the features at {tuple(positions)}, '
                f'which the head reads, but it gives {num_features}.'
            )
        return replace(self, positions=tuple(sorted({p % num_features for p in positions})))

    def select(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Take what is stored.

        Args:
            feats (Sequence[Tensor]): Features of the stage, ``(N, C, h, w)`` or ``(N, C)``.

        Returns:
            tuple[Tensor]: As many, float32; those not stored are ``(N, 0)``.
        """
        spec = self.resolve(len(feats))
        return tuple(
            spec._pooled(feat.float()) if i in spec.positions else feat.new_empty(len(feat), 0)
            for i, feat in enumerate(feats)
        )

    def describe(self) -> dict:
        """The part of the key."""
        pool = (
            None
            if self.pool is None
            else dict(mode=self.pool[0], r=self.pool[1], **code_version(GlobalPool))
        )
        return dict(stage=self.stage, positions=list(self.positions), pool=pool)

    def _pooled(self, feat: Tensor) -> Tensor:
        # Some backbones give tokens, which only their own heads can pool.
        if self.pool is None or feat.dim() != 4:
            return feat
        return GlobalPool(*self.pool)(feat)


def pools_globally(neck: nn.Module) -> bool:
    """Whether a neck averages maps ``(N, C, h, w)`` to vectors ``(N, C)``."""
    return isinstance(neck, GlobalAveragePooling) and isinstance(neck.gap, nn.AdaptiveAvgPool2d)


def check_model(model: nn.Module, training: bool) -> None:
    """Make sure that stored features can take the place of images.

    Args:
        model (nn.Module): The model, without a distributed wrapper.
        training (bool): Whether it is to be trained.

    Raises:
        ValueError: If the features would not stay the same, or the model takes none.
    """
    if isinstance(model, BaseTTAModel):
        raise ValueError('Test-time augmentation needs images; run without the feature cache.')
    if not isinstance(model, FrozenBackboneClassifier):
        raise ValueError(
            'The feature cache needs a `FrozenBackboneClassifier`, whose backbone never changes, '
            f'but the model is a `{type(model).__name__}`. Set `model.type`, or train without it.'
        )
    trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    if trained:
        raise ValueError(
            f'The feature cache needs a frozen backbone, but {len(trained)} of its parameters are '
            f'trained, {trained[0]!r} for one. Call `model.freeze()`, or train without it.'
        )
    if model.with_neck and not model.with_frozen_neck:
        raise ValueError(
            f'The feature cache needs a neck without parameters, but `{type(model.neck).__name__}` '
            'has some, which are trained. Train without it.'
        )
    if training and getattr(model.data_preprocessor, 'batch_augments', None) is not None:
        raise ValueError(
            'Batch augmentations such as mixup mix images and cannot go with the feature cache. '
            'Remove `batch_augments` from `model.data_preprocessor`, or train without the cache.'
        )


@torch.no_grad()
def backbone_features(
    model: FrozenBackboneClassifier, images: Tensor, stage: str
) -> tuple[Tensor, ...]:
    """Features of images, as a tuple.

    Args:
        model (FrozenBackboneClassifier): The model.
        images (Tensor): As a pipeline packs them, uint8 ``(N, 3, H, W)``.
        stage (str): ``'backbone'`` or ``'neck'``.

    Raises:
        ValueError: If the backbone gives something else than a tuple of tensors.
    """
    inputs = model.data_preprocessor(dict(inputs=images), training=False)['inputs']
    feats = model.extract_feat(inputs, stage=stage)
    if not isinstance(feats, (tuple, list)) or not all(isinstance(x, Tensor) for x in feats):
        raise ValueError(
            'Expected the backbone to give a tuple of tensors, one per stage, but got '
            f'{type(feats).__name__}. The feature cache can hold nothing else.'
        )
    return tuple(feats)
