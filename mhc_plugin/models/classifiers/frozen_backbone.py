"""A classifier whose backbone stays as it is, whatever backbone it is given."""

from collections.abc import Sequence

import torch
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, MultiLabelClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mhc_plugin.utils.batch import DataSamples, Features
from mhc_plugin.utils.known_pairs import KnownPairs

from ..backbone_weights import BACKBONE, BackboneRecord
from .data_preprocessor import FeatureDataPreprocessor

# Images that the backbone is given at a time on CPU.
CPU_CHUNK = 8


@MODELS.register_module()
class FrozenBackboneClassifier(ImageClassifier):
    """Image classifier that trains its head alone.

    MMPretrain's ``frozen_stages`` leaves out some parameters (Swin's last norm; wrapped timm
    models have no such option), and batch statistics move under ``train()`` where ``norm_eval``
    is off. Here no parameter of the backbone needs a gradient, the backbone is in ``eval()``
    always, and it runs without autograd in training. The same holds for a neck without
    parameters; one with parameters is trained.

    Given :class:`Features` as ``inputs``, it uses them in the place of what backbone and neck give;
    only maps that MMPretrain's ``GlobalAveragePooling`` has not seen yet are pooled by it.

    Args:
        backbone (dict): Config of the backbone.
        neck (dict, optional): Config of the neck.
        head (dict, optional): Config of the head.
        data_preprocessor (dict, optional): Where it names no type, or MMPretrain's
            ``ClsDataPreprocessor``, :class:`FeatureDataPreprocessor` is used, which does the same
            for images and lets features pass.
        **kwargs: See MMPretrain's ``ImageClassifier``: ``pretrained``, ``train_cfg``,
            ``init_cfg``.

    Raises:
        ValueError: If the head is to be fed from stages that the backbone does not give.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        data_preprocessor: dict | None = None,
        **kwargs,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = dict(data_preprocessor or {})
            if data_preprocessor.get('type', '').split('.')[-1] in ('', 'ClsDataPreprocessor'):
                data_preprocessor['type'] = FeatureDataPreprocessor
        super().__init__(
            backbone=backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, **kwargs
        )
        out_indices = getattr(self.backbone, 'out_indices', None)
        if out_indices is not None and hasattr(self.head, 'check_num_features'):
            self.head.check_num_features(len(out_indices))
        self.freeze()

    @property
    def with_frozen_neck(self) -> bool:
        """Whether there is a neck, and it has no parameters to train."""
        return self.with_neck and next(self.neck.parameters(), None) is None

    @property
    def takes_targets(self) -> bool:
        """Whether the head's loss is MMPretrain's of several labels: of logits and targets."""
        kind, base = type(self.head), MultiLabelClsHead
        return issubclass(kind, base) and (
            (kind.loss, kind._get_loss) == (base.loss, base._get_loss)
        )

    def freeze(self) -> None:
        """Take the backbone's parameters out of training and put it into ``eval()``."""
        for module in [self.backbone, self.neck] if self.with_frozen_neck else [self.backbone]:
            module.requires_grad_(False)
            # BaseBackbone.train returns None, so this does not chain.
            module.eval()

    def train(self, mode: bool = True) -> 'FrozenBackboneClassifier':
        """Set the mode of the head, and of a neck with parameters."""
        super().train(mode)
        self.freeze()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        """Take the model's own backbone where a checkpoint holds none but says which it was."""
        record = BackboneRecord.pop_from(state_dict, prefix)
        if record is not None:
            record.restore(self)
            state_dict.update(
                {f'{prefix}{BACKBONE}{name}': x for name, x in self.backbone.state_dict().items()}
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extract_feat(
        self, inputs: Tensor | Features, stage: str = 'neck'
    ) -> tuple[Tensor, ...] | Tensor:
        """Extract features.

        Args:
            inputs (Tensor | Features): Images ``(N, 3, H, W)``, or features of the neck, which are
                handed through (maps are pooled if :func:`pools_globally` says so of the neck).
            stage (str): ``'backbone'``, ``'neck'`` or ``'pre_logits'``. Defaults to ``'neck'``.

        Returns:
            tuple[Tensor] | Tensor: Features ``(N, C, h, w)`` or ``(N, C)`` per stage; for
            ``'pre_logits'`` what the head makes of them before its last layer.

        Raises:
            ValueError: If features are given and ``'backbone'`` is asked for.
        """
        if isinstance(inputs, Features):
            if stage == 'backbone':
                raise ValueError(
                    'Expected images to extract features of stage "backbone", but got '
                    'features of the neck.'
                )
            feats = inputs.stages
            if pools_globally(self.neck if self.with_neck else None):
                # Stages that no head reads are stored as (N, 0).
                feats = tuple(self.neck(feat) if feat.dim() > 2 else feat for feat in feats)
            return feats if stage == 'neck' else self.head.pre_logits(feats)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            feats = run_backbone(self.backbone, inputs)
            if stage == 'backbone':
                return feats
            if self.with_frozen_neck:
                feats = self.neck(feats)
        if self.with_neck and not self.with_frozen_neck:
            feats = self.neck(feats)
        return feats if stage == 'neck' else self.head.pre_logits(feats)

    def loss(self, inputs: Tensor | Features, data_samples: Sequence[DataSample]) -> dict:
        """Compute the losses of a batch.

        Args:
            inputs (Tensor | Features): Images ``(N, 3, H, W)`` or features.
            data_samples (Sequence[DataSample]): The labels. From :class:`DataSamples` a
                multi-label head takes the ``targets``, so that no data sample has to be made.

        Returns:
            dict[str, Tensor]: What the head's ``loss`` gives.
        """
        feats = self.extract_feat(inputs)
        targets = data_samples.targets if isinstance(data_samples, DataSamples) else None
        if targets is None or not self.takes_targets:
            return self.head.loss(feats, data_samples)
        # As the head does once it has put targets together.
        cls_score, loss_module = self.head(feats), self.head.loss_module
        if not getattr(loss_module, 'takes_compact_targets', False):
            targets = (targets.dense() if isinstance(targets, KnownPairs) else targets).float()
        return dict(loss=loss_module(cls_score, targets, avg_factor=len(cls_score)))


def pools_globally(neck: nn.Module | None) -> bool:
    """Whether a neck averages maps ``(N, C, h, w)`` to vectors ``(N, C)`` and does nothing else.

    Exact types: a subclass may do more.
    """
    return type(neck) is GlobalAveragePooling and type(neck.gap) is nn.AdaptiveAvgPool2d


def run_backbone(backbone: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Run a backbone in eval mode as fast as it can.

    Args:
        backbone (nn.Module): The backbone.
        images (Tensor): Preprocessed, ``(N, 3, H, W)``.
    """
    # Convolutional backbones are much faster in this format on CPU and under AMP; others do
    # not mind.
    images = images.contiguous(memory_format=torch.channels_last)
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if images.is_cuda or torch.is_grad_enabled() or traced:
        return backbone(images)
    # In eval mode images do not see one another. A CPU is two to three times as fast on few of
    # them at a time, whose activations stay in its cache and need no fresh memory.
    parts = [backbone(part) for part in images.split(CPU_CHUNK)]
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(stage) for stage in zip(*parts))
