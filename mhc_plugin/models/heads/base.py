"""What all multi-head heads share: groups, connection, pool, class order, split and stack."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import initialize
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..layers import GlobalPool
from .connection import Connection, check_arguments, make_groups
from .split import SplitHead


class BaseMultiHeadClsHead(MultiLabelClsHead):
    """Base of the heads that give each class, or group of classes, a head of its own.

    The parameters of all heads are stacked and run as one; :meth:`split_heads` gives them back as
    ordinary modules. A subclass says how pooled features come about (:meth:`pre_pool`), how they
    turn into logits (:meth:`classify`), and how both are split and stacked.

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the feature, or of every feature in the
            tuple. An int means the last feature.
        pool (str): ``'avg'``, ``'max'`` or ``'lse'`` (log-sum-exp). Defaults to ``'avg'``.
        lse_r (float): Sharpness of ``'lse'``. Defaults to 10.
        connection (str): What of the backbone a head is fed. ``'all'``: all channels of the last
            feature; ``'channels'``: head c of H its slice ``[c * C // H, (c + 1) * C // H)``;
            ``'stages'``: the stages that ``head_stages`` gives for it. Defaults to ``'all'``.
        head_stages (Sequence, optional): With ``'stages'``, for every head the stage or stages
            that feed it, as positions in the tuple of features and in ``in_channels``.
        head_groups (Sequence[Sequence[int]], optional): The classes of every head. Defaults to
            one class each.
        dropout (float): Share of the inputs of the last layer set to 0 in training. One draw
            serves all heads that read the same vector. Defaults to 0.
        loss (dict): Config of the loss. Defaults to ``dict(type='PerHeadBCELoss')``.
        thr (float, optional): Scores from here on are predicted positive.
        topk (int, optional): The k highest scores are predicted positive, ties broken by the
            lower index. If neither is set, ``thr`` is 0.5; if both are, ``thr`` counts.
        init_cfg (dict | list, optional): MMEngine's initialisation, applied to the split heads,
            whose layers are ``nn.Linear`` and ``nn.Conv2d``, and stacked back. Defaults to
            None: convolutions Kaiming with fan-in; linear layers behind layers of the head's own as
            ``nn.Linear``, on features of the backbone normal with std 0.01; bias 0.

    Raises:
        ValueError: If an argument does not fit; at the first forward if the features do not fit
            ``in_channels``.
    """

    #: Whether a spatial layer comes before the pool, so that pooled vectors are not enough.
    needs_maps = False

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        pool: str = 'avg',
        lse_r: float = 10.0,
        connection: str = 'all',
        head_stages: Sequence | None = None,
        head_groups: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.0,
        loss: dict = dict(type='PerHeadBCELoss'),
        thr: float | None = None,
        topk: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        check_arguments(num_classes, pool, lse_r, dropout, thr, topk)
        groups = make_groups(num_classes, head_groups)
        feeds = Connection.make(in_channels, connection, head_stages, len(groups))
        super().__init__(loss=loss, thr=thr, topk=topk, init_cfg=init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.connection = connection
        self.head_groups = groups
        self.feeds = feeds
        self.pool = pool
        self.lse_r = lse_r
        self.dropout = dropout
        self.global_pool = GlobalPool(pool, lse_r)
        width = max(len(g) for g in groups)
        slots = torch.empty(num_classes, dtype=torch.long)
        for head, group in enumerate(groups):
            slots[group] = head * width + torch.arange(len(group))
        self.register_buffer('class_slots', slots, persistent=False)
        self.in_class_order = slots.tolist() == list(range(len(groups) * width))

    # ---- what the rest of the project asks of a head

    @property
    def num_heads(self) -> int:
        return len(self.head_groups)

    @property
    def stages(self) -> tuple[int, ...]:
        """Positions in the tuple of features that some head reads; ``(-1,)`` is the last."""
        return self.feeds.stages

    def check_num_features(self, num_features: int) -> None:
        """Raise ValueError if a backbone with so many outputs cannot feed the heads."""
        self.feeds.check_num_features(num_features)

    # ---- forward

    def pre_pool(self, feats: tuple[Tensor, ...]) -> list[Tensor]:
        """The maps, or vectors, that are pooled: one per stage in use."""
        return self.feeds.select(feats)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The pooled features, concatenated over stages, ``(N, D)``."""
        return concatenate([self.global_pool(x) for x in self.pre_pool(feats)])

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Give the logits of all classes.

        Args:
            feats (tuple[Tensor]): Features of the backbone's stages, ``(N, C, h, w)``, or
                ``(N, C)`` where no spatial layer needs the map.

        Returns:
            Tensor: Logits ``(N, num_classes)`` in class order.
        """
        logits = self.classify(self.gather_pooled(self.pre_logits(feats)))
        return self.to_class_order(logits.flatten(1))

    def gather_pooled(self, pooled: Tensor) -> Tensor:
        """``(N, D)`` to ``(N, num_heads, K)``, or unchanged where all heads read all of it."""
        gathered = self.gather(pooled)
        return gathered if self.gather.shared else gathered.unflatten(1, (self.num_heads, -1))

    def classify(self, inputs: Tensor) -> Tensor:
        """Pooled features of the heads to logits ``(N, num_heads, widest group)``."""
        return self.fc(F.dropout(inputs, self.dropout, self.training))

    def to_class_order(self, slots: Tensor) -> Tensor:
        """Head by head ``(N, num_heads * widest group, ...)`` to ``(N, num_classes, ...)``."""
        return slots if self.in_class_order else slots.index_select(1, self.class_slots)

    def _get_predictions(
        self, cls_score: Tensor, data_samples: list[DataSample] | None
    ) -> list[DataSample]:
        data_samples = super()._get_predictions(cls_score, data_samples)
        if self.thr is None:
            # torch.topk, which MMPretrain calls, promises no order among equal scores.
            for sample in data_samples:
                order = sample.pred_score.argsort(descending=True, stable=True)
                sample.set_pred_label(order[: self.topk])
        return data_samples

    # ---- class maps

    def class_maps(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Where each logit comes from, at the map that the heads pool.

        ``clamp(h w sum_k x_k d logit_c / d x_k, 0)``: with average pooling and one linear layer
        ``clamp(w_c . x, 0)``, the class activation map of Zhou et al., CVPR 2016.

        Args:
            feats (tuple[Tensor]): Features as maps ``(N, C, h, w)``.

        Returns:
            Tensor: Non-negative maps ``(N, num_classes, h, w)``, h and w of the largest stage in
            use; maps of others are resized bilinearly.

        Raises:
            ValueError: If a feature is pooled.
        """
        maps = self.pre_pool(feats)
        if any(x.dim() != 4 for x in maps):
            raise ValueError(
                'Expected features as maps (N, C, h, w) for class maps, but got shapes '
                f'{[tuple(x.shape) for x in feats]}. Pooled features have lost the positions.'
            )
        contributions = [self.global_pool.contributions(x) for x in maps]
        size = max((x.shape[2:] for x in maps), key=lambda s: s[0] * s[1])
        contributions = concatenate(
            [
                x
                if x.shape[2:] == size
                else F.interpolate(x, size, mode='bilinear', align_corners=False)
                for x in contributions
            ]
        )
        return self.to_class_order(self.spread_logits(maps, contributions)).clamp(min=0)

    def spread_logits(self, maps: list[Tensor], contributions: Tensor) -> Tensor:
        """Weigh contributions ``(N, D, h, w)`` by the gradient of every logit.

        Returns:
            Tensor: ``(N, num_heads * widest group, h, w)``.
        """
        return self.fc.pointwise(self.gather(contributions))

    # ---- split, stack, initialise

    def split_heads(self) -> list[SplitHead]:
        """The definition of this module: one plain module per head.

        Returns:
            list[nn.Module]: Deep copies with dtype, device, memory format and mode kept. Each is
            called with the same tuple of features and gives logits ``(N, len(group))`` in the
            order of its group.
        """
        return [self._split_head(head).train(self.training) for head in range(self.num_heads)]

    def stack_heads(self, heads: Sequence[SplitHead]) -> None:
        """Take over the parameters of split heads; the inverse of :meth:`split_heads`."""
        if len(heads) != self.num_heads:
            raise ValueError(
                f'Expected argument `heads` to have {self.num_heads} heads, but got {len(heads)}.'
            )
        for index, head in enumerate(heads):
            self._stack_head(index, head)

    def init_weights(self) -> None:
        """Apply ``init_cfg`` to the split heads and stack them back."""
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else list(cfgs)
        # A checkpoint holds the stacked parameters.
        whole = [cfg for cfg in cfgs if cfg['type'] == 'Pretrained']
        per_head = [cfg for cfg in cfgs if cfg['type'] != 'Pretrained']
        if per_head:
            heads = self.split_heads()
            for head in heads:
                initialize(head, per_head)
            self.stack_heads(heads)
        if whole:
            initialize(self, whole)
        self._is_init = True

    def _split_head(self, head: int) -> SplitHead:
        return SplitHead(
            self.feeds.heads[head],
            self._split_convs(head),
            GlobalPool(self.pool, self.lse_r),
            self._split_fc(head),
        )

    def _split_convs(self, head: int) -> list[nn.Module]:
        return [nn.Identity() for _ in self.feeds.heads[head]]

    def _split_fc(self, head: int) -> nn.Sequential:
        return nn.Sequential(nn.Dropout(self.dropout), self.fc.split(head))

    def _stack_head(self, index: int, head: SplitHead) -> None:
        self.fc.load(index, head.fc[-1])


def concatenate(parts: list[Tensor]) -> Tensor:
    """Concatenate along channels, without a copy of a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
