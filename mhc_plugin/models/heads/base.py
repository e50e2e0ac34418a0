"""What all multi-head heads share: groups, connection, class order, maps, split and stack."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from mmengine.model import initialize
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mhc_plugin.functional.checks import check_argument, check_choice, check_int, check_number

from ..layers import NORMALIZATIONS, POOLS, GlobalPool, NormalizeMaps, normalize_maps
from .connection import Connection, make_groups
from .separate import Blocks, Dropout, draw_heads, name_seed


class BaseMultiHeadClsHead(MultiLabelClsHead):
    """Base of the heads that give each class, or group of classes, a head of its own.

    The parameters of all heads are stacked and run as one; :meth:`split_heads` gives them back as
    ordinary modules. A head of another kind is a subclass with two methods: :meth:`score`, from
    features to logits and to where they come from, and :meth:`head_view`, one of its heads as an
    ordinary module. It keeps its arguments as attributes of the same names, and draws first weights
    in layers that have ``reset_parameters``, as those of :mod:`mhc_plugin.models.layers` do.

    A head is a function of its own labels: trained with others or alone it is the same but for
    rounding, and with ``separate`` to the bit. That is not so with ``head_groups`` of several
    classes, and not with ``connection='channels'``, whose slices depend on the number of heads. See
    :mod:`mhc_plugin.models.heads.separate`.

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the feature, or of every feature in the
            tuple. An int means the last feature.
        pool (str): ``'avg'``, ``'max'`` or ``'lse'`` (log-sum-exp). Defaults to ``'avg'``.
        lse_r (float): Sharpness of ``'lse'``. Defaults to 10.
        normalize (str, optional): Bring the maps to one scale before anything else, see
            :func:`~mhc_plugin.models.layers.normalize_maps`: ``'image'``, ``'position'``,
            ``'root'`` or None. Always over all channels of a stage, whatever the connection.
        connection (str): What of the backbone a head is fed. ``'all'``: all channels of the last
            feature; ``'channels'``: head c of H its slice ``[c * C // H, (c + 1) * C // H)``;
            ``'stages'``: the stages that ``head_stages`` gives for it. Defaults to ``'all'``.
        head_stages (Sequence, optional): With ``'stages'``, for every head the stage or stages
            that feed it, as positions in the tuple of features and in ``in_channels``.
        head_groups (Sequence[Sequence[int]], optional): The classes of every head. Defaults to
            one class each.
        dropout (float): Share of the channels that the heads read in their last layer set to 0 in
            training. One draw per image serves all heads that read the same channels of the
            backbone; of layers of its own every head draws for itself.
        separate (bool): Train every head, on a CPU, to the same bits in any company: in blocks,
            with which an epoch on stored features takes longer. Defaults to False.
        loss (dict): Config of the loss. Defaults to ``dict(type='PerHeadBCELoss')``.
        thr (float, optional): Scores from here on are predicted positive.
        topk (int, optional): The k highest scores are predicted positive, ties broken by the
            lower index. If neither is set, ``thr`` is 0.5; if both are, ``thr`` counts.
        init_cfg (dict | list, optional): MMEngine's initialisation, applied to the split heads,
            whose layers are ``nn.Linear`` and ``nn.Conv2d``. Defaults to None: convolutions
            Kaiming with fan-in; linear layers behind layers of the head's own as ``nn.Linear``, on
            features of the backbone normal with std 0.01; bias 0.

    Raises:
        ValueError: If an argument does not fit; at the first forward if the features do not fit
            ``in_channels``.
    """

    #: Whether the head looks at positions before it pools, so that pooled vectors are not enough.
    spatial = True
    #: Lists of modules of which there is one for every stage in use.
    per_stage: tuple[str, ...] = ()

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        pool: str = 'avg',
        lse_r: float = 10.0,
        normalize: str | None = None,
        connection: str = 'all',
        head_stages: Sequence | None = None,
        head_groups: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.0,
        separate: bool = False,
        loss: dict = dict(type='PerHeadBCELoss'),
        thr: float | None = None,
        topk: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        check_int('num_classes', num_classes)
        check_choice('pool', pool, POOLS)
        check_number('lse_r', lse_r, 0, ends='(]')
        check_choice('normalize', normalize, (None, *NORMALIZATIONS))
        check_number('dropout', dropout, 0, 1, ends='[)')
        if thr is not None:
            check_number('thr', thr, 0, 1)
        if topk is not None:
            check_int('topk', topk, 1, num_classes)
        groups = make_groups(num_classes, head_groups)
        feeds = Connection.make(in_channels, connection, head_stages, len(groups))
        check_argument(
            not separate or (connection != 'channels' and len(groups) == num_classes),
            'separate',
            "to be False with `connection='channels'` and with heads of several classes, which "
            'depend on other classes',
            separate,
        )
        super().__init__(loss=loss, thr=thr, topk=topk, init_cfg=init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.connection = connection
        self.head_groups = groups
        self.feeds = feeds
        self.pool = pool
        self.lse_r = lse_r
        self.normalize = normalize
        self.dropout = dropout
        self.separate = separate
        self.drop_shared, self.drop = Dropout(dropout), Dropout(dropout)
        # What blocks of heads draw from; `drop` of all heads in one draws from torch.
        self.own_draws = Dropout(dropout)
        self.entropy: list[tuple[int, ...]] | None = None
        self.global_pool = GlobalPool(pool, lse_r)
        self.group_sizes = [len(group) for group in groups]
        width = max(self.group_sizes)
        slots = [h * width + i for h, group in enumerate(groups) for i in range(len(group))]
        order = torch.tensor([c for group in groups for c in group])
        # Where a group is narrower than the widest there are slots of no class.
        self.in_class_order = slots == list(range(len(groups) * width)) == order.tolist()
        self.register_buffer('class_slots', torch.tensor(slots)[order.argsort()], persistent=False)

    # ---- what a head of its own kind says

    @abstractmethod
    def score(self, feats: list[Tensor], with_maps: bool = False) -> tuple[Tensor, Tensor | None]:
        """Give the logits of all heads and, on request, what every position adds to them.

        Args:
            feats (list[Tensor]): Features in use, checked and normalised: maps ``(N, C, h, w)``,
                or vectors ``(N, C)`` where the head is not :attr:`spatial` and wants no maps.
            with_maps (bool): Whether maps are wanted.

        Returns:
            tuple[Tensor, Tensor | None]: Logits ``(N, num_heads * widest group)``, and maps
            ``(N, num_heads * widest group, h, w)``, not clamped, as :meth:`class_maps` means them.
        """

    def shared_inputs(self, feats: list[Tensor]) -> list[Tensor]:
        """What all heads do alike to their inputs in training, before :meth:`score`.

        That is, dropout of channels that several heads read, and formats; by default nothing.
        """
        return feats

    @property
    def block_size(self) -> int:
        """How many heads are trained in one go on a CPU: enough for a product of matrices."""
        return 1

    @abstractmethod
    def head_view(self, head: int) -> nn.Module:
        """One head as an ordinary module, whose tensors are views of the stacked ones.

        It is called with the same tuple of features as the fused head and gives logits
        ``(N, len(group))``.
        """

    # ---- what the rest of the project asks of a head

    @property
    def num_heads(self) -> int:
        return len(self.head_groups)

    @property
    def stages(self) -> tuple[int, ...]:
        """Positions in the tuple of features that some head reads; ``(-1,)`` is the last."""
        return self.feeds.stages

    @property
    def reduction(self) -> nn.Module | None:
        """What makes of maps ``(N, C, h, w)`` the vectors ``(N, C)`` that give the same logits.

        A store of features holds no more than these; None if the head looks at positions.
        """
        if self.spatial:
            return None
        if self.normalize is None:
            return self.global_pool
        return nn.Sequential(NormalizeMaps(self.normalize), self.global_pool)

    def check_num_features(self, num_features: int) -> None:
        """Raise ValueError if a backbone with so many outputs cannot feed the heads."""
        self.feeds.check_num_features(num_features)

    # ---- from features to logits and maps

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Give the logits of all classes.

        Args:
            feats (tuple[Tensor]): Features of the backbone's stages, ``(N, C, h, w)``, or pooled
                by :attr:`reduction`, ``(N, C)``, where the head is not :attr:`spatial`.

        Returns:
            Tensor: Logits ``(N, num_classes)`` in class order.
        """
        feats = self.pre_logits(feats)
        if not self.training:
            return self.to_class_order(self.score(feats)[0])
        feats = self.shared_inputs(feats)
        if feats[0].is_cuda or not self.separate or torch.compiler.is_compiling():
            return self.to_class_order(self.score(feats)[0])
        return self.to_class_order(self._blocks.score(self, feats))

    def pre_logits(self, feats: tuple[Tensor, ...]) -> list[Tensor]:
        """The features in use, checked and normalised.

        Raises:
            ValueError: If number, shape or channels do not fit.
        """
        check_argument(
            isinstance(feats, (tuple, list)),
            'feats',
            'to be a tuple of features, one per stage',
            type(feats).__name__,
        )
        self.check_num_features(len(feats))
        selected = [feats[stage] for stage in self.stages]
        for stage, channels, x in zip(self.stages, self.feeds.channels, selected):
            if x.dim() != 4 and (self.spatial or x.dim() != 2):
                raise ValueError(
                    'Expected features as maps (N, C, h, w)'
                    + (' for a head that looks at positions' if self.spatial else ' or (N, C)')
                    + f', but feature {stage} has shape {tuple(x.shape)}.'
                    + (' Take out the pooling neck.' if self.spatial else '')
                )
            if x.shape[1] != channels:
                raise ValueError(
                    f'Expected feature {stage} to have {channels} channels (argument '
                    f'`in_channels`), but got {x.shape[1]}.'
                )
        # What is pooled already was normalised before.
        return [x if x.dim() == 2 else normalize_maps(x, self.normalize) for x in selected]

    def class_maps(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Where each logit comes from, at the map that the heads pool.

        With m the maps of :meth:`logits_and_maps`, this is ``clamp(m, 0)``.

        Args:
            feats (tuple[Tensor]): Features as maps ``(N, C, h, w)``.

        Returns:
            Tensor: Non-negative maps ``(N, num_classes, h, w)``, h and w of the largest stage in
            use; maps of others are resized bilinearly.

        Raises:
            ValueError: If a feature is pooled.
        """
        return self.logits_and_maps(feats)[1].clamp(min=0)

    def logits_and_maps(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Logits, and maps of what adds up to them, in one pass.

        The maps are ``h w`` times what each position adds to the logit. For a head that pools
        that is ``h w sum_k x_k d logit_c / d x_k`` at the map x that it pools: with average
        pooling and one linear layer ``w_c . x``, the class activation map of Zhou et al., CVPR
        2016. A head with an attention of its own says what it adds. A map is complete where its
        mean and the class's bias make the logit; see :attr:`complete`.

        Args:
            feats (tuple[Tensor]): Features as maps ``(N, C, h, w)``.

        Returns:
            tuple[Tensor, Tensor]: Logits ``(N, num_classes)`` and maps
            ``(N, num_classes, h, w)``, with both signs.

        Raises:
            ValueError: If a feature is pooled.
        """
        selected = self.pre_logits(feats)
        if any(x.dim() != 4 for x in selected):
            raise ValueError(
                'Expected features as maps (N, C, h, w) for class maps, but got shapes '
                f'{[tuple(x.shape) for x in feats]}. Pooled features have lost the positions.'
            )
        logits, maps = self.score(selected, with_maps=True)
        return self.to_class_order(logits), self.to_class_order(maps)

    @property
    def complete(self) -> bool:
        """Whether the mean of every map and its class's bias make the logit, to rounding.

        With several stages, if the largest is a whole number of times as high and wide as each:
        other maps lose some of their mean when they are resized.
        """
        return self.pool != 'lse'

    @property
    def class_bias(self) -> Tensor:
        """The bias of every class, ``(num_classes,)``."""
        return self.to_class_order(self.fc.bias.reshape(1, -1))[0]

    def to_class_order(self, slots: Tensor) -> Tensor:
        """Head by head ``(N, num_heads * widest group, ...)`` to ``(N, num_classes, ...)``."""
        return slots if self.in_class_order else slots.index_select(1, self.class_slots)

    def _get_predictions(
        self, cls_score: Tensor, data_samples: list[DataSample] | None
    ) -> list[DataSample]:
        if self.thr is not None:
            return super()._get_predictions(cls_score, data_samples)
        # Not MMPretrain's own: torch.topk promises no order among equal scores.
        if data_samples is None:
            data_samples = [DataSample() for _ in cls_score]
        scores = cls_score.sigmoid()
        labels = scores.argsort(dim=1, descending=True, stable=True)[:, : self.topk]
        for sample, score, label in zip(data_samples, scores, labels):
            sample.set_pred_score(score).set_pred_label(label)
        return data_samples

    # ---- split, stack, initialise

    def split_heads(self) -> list[nn.Module]:
        """The definition of this module: one plain module per head.

        Returns:
            list[nn.Module]: Deep copies with dtype, device, memory format and mode kept. Each is
            called with the same tuple of features and gives logits ``(N, len(group))`` in the
            order of its group.
        """
        heads = [self.head_view(head).train(self.training) for head in range(self.num_heads)]
        for head in heads:
            for tensor in (*head.parameters(), *head.buffers()):
                tensor.data = tensor.data.clone()
        return heads

    def stack_heads(self, heads: Sequence[nn.Module]) -> None:
        """Take over the parameters of split heads; the inverse of :meth:`split_heads`."""
        check_argument(
            len(heads) == self.num_heads,
            'heads',
            f'to have {self.num_heads} heads',
            str(len(heads)),
        )
        for index, head in enumerate(heads):
            self.head_view(index).load_state_dict(head.state_dict())

    # ---- apart from each other

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self, self.block_size)

    def name_classes(self, names: Sequence[str], seed: int) -> None:
        """Let what is drawn from now on follow from the seed and each class's name.

        That is first weights, where :meth:`init_weights` is still to come, and dropout.

        Args:
            names (Sequence[str]): One per class.
            seed (int): The run's.
        """
        of_one_class = self.connection != 'channels' and max(self.group_sizes) == 1
        if of_one_class and len(names) == self.num_classes:
            self.entropy = [(seed, name_seed(names[group[0]])) for group in self.head_groups]
            self.seed_dropout()

    def seed_dropout(self, *entropy: int) -> None:
        """Begin the draws of dropout anew, with the number of an epoch, say."""
        if self.entropy is not None:
            self.own_draws.seed([(*own, *entropy) for own in self.entropy])
            seed = self.entropy[0][0]
            self.drop_shared.seed([(seed, stage, *entropy) for stage in self.stages])

    def init_weights(self) -> None:
        """Draw every head as its class is named, apply ``init_cfg`` to it, a checkpoint to all."""
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else list(cfgs)
        # A checkpoint holds the stacked parameters.
        whole = [cfg for cfg in cfgs if cfg['type'] == 'Pretrained']
        per_head = [cfg for cfg in cfgs if cfg['type'] != 'Pretrained']
        if self.entropy is not None:
            draw_heads(self, self.entropy, per_head)
        elif per_head:
            for head in range(self.num_heads):
                initialize(self.head_view(head), per_head)
        if whole:
            initialize(self, whole)
        self._is_init = True
