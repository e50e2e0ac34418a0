"""The frozen part of a classifier as one module: what is run to fill the store, and described."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from mhc_plugin.models import FeatureDataPreprocessor, FrozenBackboneClassifier
from mhc_plugin.models.classifiers.frozen_backbone import pools_globally, run_backbone
from mhc_plugin.models.heads import BaseMultiHeadClsHead
from mhc_plugin.models.layers import GlobalPool

# What of a classifier and of its preprocessor the extractor takes the place of.
OWNED = {
    FrozenBackboneClassifier: ('extract_feat',),
    FeatureDataPreprocessor: ('forward', 'cast_data', '__call__'),
}
# What of a head decides which features it reads.
READING = ('forward', 'pre_logits', 'loss', 'predict', 'stages', 'reduction')


class FeatureExtractor(nn.Module):
    """From images as a pipeline packs them to the features that a head reads.

    Args:
        preprocessor (nn.Module): The data preprocessor.
        backbone (nn.Module): The backbone.
        neck (nn.Module, optional): A neck without parameters.
        pool (nn.Module, optional): Pools maps ``(N, C, h, w)``; other features stay as they are.
            None stores maps.
        positions (tuple[int, ...], optional): Positions in the tuple of features that are read,
            counted from the end where negative. None means all.
    """

    def __init__(
        self,
        preprocessor: nn.Module,
        backbone: nn.Module,
        neck: nn.Module | None = None,
        pool: nn.Module | None = None,
        positions: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.backbone = backbone
        self.neck = neck
        self.pool = pool
        self.positions = positions
        self.eval()

    @classmethod
    def of(
        cls, model: nn.Module, store: str = 'auto', training: bool = False
    ) -> 'FeatureExtractor':
        """The frozen part of a model; its modules are shared, not copied.

        Vectors are enough for a head that pools first of all and for MMPretrain's
        ``GlobalAveragePooling``, by exact type: who overrides either reads maps, unless it says
        so anew by ``spatial``.

        Args:
            model (nn.Module): The model, without a distributed wrapper.
            store (str): ``'auto'``, or ``'maps'`` for maps in any case. Defaults to ``'auto'``.
            training (bool): Whether the model is to be trained. Defaults to False.

        Raises:
            ValueError: If the features would not stay the same, the model takes none, or what it
                does to images is not known exactly.
        """
        _check_model(model, training)
        head, neck = model.head, model.neck if model.with_neck else None
        pool, positions = None, None
        if isinstance(head, BaseMultiHeadClsHead) and not _overridden(
            head, BaseMultiHeadClsHead, READING
        ):
            positions = head.stages
            pool = head.reduction if _scores_vectors(head) else None
        if pools_globally(neck):
            # Runs of heads behind this neck and of heads that average share their features.
            neck, pool = None, GlobalPool('avg')
        pool = None if store == 'maps' else pool
        return cls(model.data_preprocessor, model.backbone, neck, pool, positions)

    @property
    def device(self) -> torch.device:
        return torch.device(self.preprocessor.device)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute features, as the model itself does.

        Args:
            images (Tensor): As a pipeline packs them, uint8 ``(N, 3, H, W)``, on any device.

        Returns:
            tuple[Tensor]: Float32, one per stage: maps, or vectors ``(N, C)``; those that are not
            read are ``(N, 0)``.

        Raises:
            ValueError: If the backbone gives something else than a tuple of tensors, or fewer than
                the head reads.
        """
        inputs = self.preprocessor(dict(inputs=images), training=False)['inputs']
        feats = run_backbone(self.backbone, inputs)
        if self.neck is not None:
            feats = self.neck(feats)
        if not isinstance(feats, (tuple, list)) or not all(isinstance(x, Tensor) for x in feats):
            raise ValueError(
                'Expected the backbone to give a tuple of tensors, one per stage, but got '
                f'{type(feats).__name__}. The feature cache can hold nothing else.'
            )
        return self.reduce(feats)

    @torch.no_grad()
    def reduce(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Leave of maps what is read, pooled where vectors are enough."""
        number = len(feats)
        positions = range(number) if self.positions is None else self.positions
        if any(not -number <= position < number for position in positions):
            raise ValueError(
                f'Expected the backbone to give the features at {tuple(positions)}, '
                f'which the head reads, but it gives {number}.'
            )
        read = {position % number for position in positions}
        return tuple(
            self._pooled(feat).float() if i in read else feat.new_empty(len(feat), 0).float()
            for i, feat in enumerate(feats)
        )

    def _pooled(self, feat: Tensor) -> Tensor:
        # Some backbones give tokens, which only their own heads can pool.
        return feat if self.pool is None or feat.dim() != 4 else self.pool(feat)


def _scores_vectors(head: BaseMultiHeadClsHead) -> bool:
    """Whether what a head's class says of vectors holds for the very way it scores."""
    declared = next(c for c in type(head).__mro__ if 'spatial' in vars(c))
    return type(head.global_pool) is GlobalPool and not _overridden(head, declared, ('score',))


def _overridden(value: Any, base: type, names: Sequence[str]) -> str | None:
    """The first of a base's methods that an object's class, or the object, replaces."""
    for name in names:
        if name in vars(value) or getattr(type(value), name) is not getattr(base, name):
            return name
    return None


def _check_model(model: nn.Module, training: bool) -> None:
    if isinstance(model, BaseTTAModel):
        raise ValueError('Test-time augmentation needs images; run without the feature cache.')
    if not isinstance(model, FrozenBackboneClassifier):
        raise ValueError(
            'The feature cache needs a `FrozenBackboneClassifier`, whose backbone never changes, '
            f'but the model is a `{type(model).__name__}`. Set `model.type`, or train without it.'
        )
    if not isinstance(model.data_preprocessor, FeatureDataPreprocessor):
        raise ValueError(
            'The feature cache needs the data preprocessor `FeatureDataPreprocessor`, but the '
            f'model has a `{type(model.data_preprocessor).__name__}`. Leave out its type, or train '
            'without the cache.'
        )
    for part, (base, names) in zip((model, model.data_preprocessor), OWNED.items()):
        name = _overridden(part, base, names)
        if name is not None:
            raise ValueError(
                f'`{type(part).__name__}` has a `{name}` of its own, which the feature cache would '
                'not run. Move what it does into the backbone, or train without the cache.'
            )
    trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    if trained:
        raise ValueError(
            f'The feature cache needs a frozen backbone, but {len(trained)} of its parameters are '
            f'trained, {trained[0]!r} for one. Call `model.freeze()`, or train without it.'
        )
    # As the loops will do before an epoch.
    model.train(model.training)
    if any(module.training for module in model.backbone.modules()):
        raise ValueError(
            f'The feature cache needs a backbone in evaluation mode, but `{type(model).__name__}` '
            'leaves some of its layers in training mode. Train without it.'
        )
    if model.with_neck and not model.with_frozen_neck:
        raise ValueError(
            f'The feature cache needs a neck without parameters, but `{type(model.neck).__name__}` '
            'has some, which are trained. Train without it.'
        )
    if training and model.data_preprocessor.batch_augments is not None:
        raise ValueError(
            'Batch augmentations such as mixup mix images and cannot go with the feature cache. '
            'Remove `batch_augments` from `model.data_preprocessor`, or train without the cache.'
        )
