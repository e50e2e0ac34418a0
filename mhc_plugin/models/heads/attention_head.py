"""A head in which every class attends with its own score."""

from collections.abc import Sequence

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mhc_plugin.functional.checks import check_int

from ..layers import (
    FusedLinear,
    mean_over_positions,
    normalize_maps,
    resize_to_largest,
    signed_root,
    view_of,
)
from .base import BaseMultiHeadClsHead


class FusedAttention(FusedLinear):
    """A score at every position, and its mean under the softmax of itself, for many heads.

    With z the score of a class at every position and t its sharpness, ``sum_p a_p z_p`` where
    ``a = softmax_p(t z)``; of several attentions of a class the one with the largest sum counts.

    Args:
        channels (Sequence[Sequence[int]]): The input channels of every head.
        total (int): Number of channels of the input.
        group_sizes (Sequence[int]): Number of classes of every head.
        num_attentions (int): Attentions per class.

    Shapes:
        - weight: ``(num_heads, widest group * num_attentions, max(in_sizes))``
        - sharpness: ``(num_heads, widest group * num_attentions)``
    """

    def __init__(
        self,
        channels: Sequence[Sequence[int]],
        total: int,
        group_sizes: Sequence[int],
        num_attentions: int,
    ) -> None:
        self.num_attentions = num_attentions
        sizes = [num_attentions * size for size in group_sizes]
        super().__init__(channels, total, sizes, bias=False)
        self.sharpness = nn.Parameter(torch.full(self.weight.shape[:2], 0.6))

    def reset_parameters(self) -> None:
        """Draw one set of weights, normal with 0.001, with which every class starts."""
        first = torch.randn(self.num_attentions, max(self.in_sizes)).mul_(0.001)
        for head, (rows, width) in enumerate(zip(self.out_sizes, self.in_sizes)):
            start = first[:, :width].repeat(rows // self.num_attentions, 1)
            self.weight.detach()[head, :rows, :width] = start
        if hasattr(self, 'sharpness'):
            nn.init.constant_(self.sharpness, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        """From maps ``(N, total, h, w)`` to what every position adds.

        That is ``(N, num_heads * widest group, h * w)``: memory grows with classes times positions,
        never with classes times channels.
        """
        z = self.pointwise(x).flatten(2)
        added = z * torch.softmax(self.sharpness.reshape(-1, 1) * z, 2)
        if self.num_attentions == 1:
            return added
        added = added.unflatten(1, (-1, self.num_attentions))
        winner = added.sum(3, keepdim=True).argmax(2, keepdim=True)
        return added.gather(2, winner.expand(-1, -1, -1, added.shape[3])).squeeze(2)


@MODELS.register_module()
class AttentionMultiHeadClsHead(BaseMultiHeadClsHead):
    """An attention and a linear term for every class, over maps that are normalised.

    With ``x_p`` the feature at position p, normalised (:func:`normalize_maps`), class c gives

    .. math::
        z_p = w_c \\cdot x_p \\qquad a = \\text{softmax}_p(t_c z) \\qquad
        g = \\sqrt{\\text{mean}_p x_p} \\qquad
        \\text{logit}_c = \\sum_p a_p z_p + v_c \\cdot g + b_c

    where of two attentions, with a ``w_c`` and a ``t_c`` each, the one with the larger sum counts.
    Its parameters ``w_c, t_c, v_c, b_c`` are read by no other class. Its class map is what adds up
    to the logit: ``h w a_p z_p + v_c . (x_p g / mean_p x_p)``, whose mean is ``logit_c - b_c``.

    With ``'root'``, the default of ``normalize``, the largest channels count less. The root keeps
    the sign of features that may be negative, such as those of Swin; then positions of both signs
    may cancel in ``mean_p x_p``, and a map of the linear term be large at both. ``'position'``
    fits such features as well.

    Args:
        num_classes (int): Number of classes.
        in_channels (int | Sequence[int]): Channels of the last feature, or of every feature.
        num_attentions (int): Attentions per class, of which the one with the largest sum counts.
            Defaults to 2.
        normalize (str, optional): See :class:`BaseMultiHeadClsHead`. Defaults to ``'root'``.
        connection, head_stages, head_groups: See :class:`BaseMultiHeadClsHead`. Every class has
            attentions of its own, also inside a group, and for every stage that it reads.
        dropout (float): Share of the channels of an image set to 0 in training, the same at all
            positions and for all classes. Defaults to 0.3.
        separate, loss, thr, topk, init_cfg: See :class:`BaseMultiHeadClsHead`.

    Raises:
        ValueError: If an argument does not fit, or at the first forward if features are pooled.

    Examples:
        >>> head = AttentionMultiHeadClsHead(num_classes=10, in_channels=1280)
        >>> head((torch.rand(2, 1280, 7, 7), )).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int],
        num_attentions: int = 2,
        normalize: str | None = 'root',
        connection: str = 'all',
        head_stages: Sequence | None = None,
        head_groups: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.3,
        separate: bool = False,
        loss: dict = dict(type='PerHeadBCELoss'),
        thr: float | None = None,
        topk: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            in_channels,
            normalize=normalize,
            connection=connection,
            head_stages=head_stages,
            head_groups=head_groups,
            dropout=dropout,
            separate=separate,
            loss=loss,
            thr=thr,
            topk=topk,
            init_cfg=init_cfg,
        )
        check_int('num_attentions', num_attentions)
        self.num_attentions = num_attentions
        width = max(self.group_sizes)
        self.bias = nn.Parameter(torch.zeros(self.num_heads, width))
        self.attentions, self.linears = nn.ModuleList(), nn.ModuleList()
        # For every stage the heads that read it, and their places there.
        readers_of = [self.feeds.readers(stage) for stage in self.stages]
        self.places = [{head: i for i, head in enumerate(readers)} for readers in readers_of]
        for i, (readers, total) in enumerate(zip(readers_of, self.feeds.channels)):
            channels = list(readers.values())
            sizes = [self.group_sizes[head] for head in readers]
            self.attentions.append(FusedAttention(channels, total, sizes, num_attentions))
            self.linears.append(FusedLinear(channels, total, sizes, bias=False, std=0.0))
            widest = range(max(sizes))
            slots = [head * width + i for head in readers for i in widest]
            self.register_buffer(f'slots_{i}', torch.tensor(slots), persistent=False)

    @property
    def class_bias(self) -> Tensor:
        """The bias of every class, ``(num_classes,)``."""
        return self.to_class_order(self.bias.reshape(1, -1))[0]

    per_stage = ('attentions', 'linears')

    @property
    def block_size(self) -> int:
        """A product with fewer columns than these have together is slower."""
        return max(1, 16 // self.num_attentions)

    def shared_inputs(self, feats: list[Tensor]) -> list[Tensor]:
        # What has been normalised is this head's own.
        inplace = self.normalize is not None
        return [self.drop_shared(x, [i], inplace) for i, x in enumerate(feats)]

    def score(self, feats: list[Tensor], with_maps: bool = False) -> tuple[Tensor, Tensor | None]:
        logits, maps = self.bias.flatten(), []
        for i, (x, attention, linear) in enumerate(zip(feats, self.attentions, self.linears)):
            mean = mean_over_positions(x)
            added = attention(x)
            logits = logits + self._spread(added.sum(2) + linear(signed_root(mean)), i)
            if with_maps:
                added = added.shape[2] * added.unflatten(2, x.shape[2:])
                share = torch.where(mean == 0, 0, mean.abs().rsqrt())[..., None, None]
                maps.append(self._spread(added + linear.pointwise(x * share), i))
        return logits, sum(resize_to_largest(maps)) if with_maps else None

    def _spread(self, values: Tensor, i: int) -> Tensor:
        """From the heads that read stage i, ``(N, readers * widest group, ...)``, to all."""
        if len(self.places[i]) == self.num_heads:
            return values
        shape = (values.shape[0], self.bias.numel(), *values.shape[2:])
        return values.new_zeros(shape).index_copy(1, getattr(self, f'slots_{i}'), values)

    def head_view(self, head: int) -> 'SplitAttentionHead':
        size = self.group_sizes[head]
        scores, sharpness, linears = [], [], []
        for places, attention, linear in zip(self.places, self.attentions, self.linears):
            if head in places:
                place = places[head]
                scores.append(attention.head_view(place))
                part = (place, slice(size * self.num_attentions))
                sharpness.append(view_of(attention.sharpness, part))
                linears.append(linear.head_view(place))
        return SplitAttentionHead(
            self.feeds.heads[head],
            self.normalize,
            self.dropout,
            scores,
            sharpness,
            linears,
            view_of(self.bias, (head, slice(size))),
        )


class SplitAttentionHead(nn.Module):
    """One head with attentions as ordinary layers: the definition of the fused ones.

    Args:
        inputs (Sequence[tuple[int, range]]): The (stage, channels) pairs it reads.
        normalize (str, optional): How their maps are normalised.
        dropout (float): Share of the channels dropped in training.
        scores (Sequence[nn.Linear]): For each of them ``w``, one row per class and attention.
        sharpness (Sequence[nn.Parameter]): For each of them ``t``.
        linears (Sequence[nn.Linear]): For each of them ``v``, one row per class.
        bias (nn.Parameter): ``b``, one per class.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, range]],
        normalize: str | None,
        dropout: float,
        scores: Sequence[nn.Linear],
        sharpness: Sequence[nn.Parameter],
        linears: Sequence[nn.Linear],
        bias: nn.Parameter,
    ) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.normalize = normalize
        self.drop = nn.Dropout2d(dropout)
        self.scores = nn.ModuleList(scores)
        self.sharpness = nn.ParameterList(sharpness)
        self.linears = nn.ModuleList(linears)
        self.bias = bias

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Give the logits ``(N, len(group))`` for a tuple of features."""
        logits = self.bias
        for (stage, channels), score, t, linear in zip(
            self.inputs, self.scores, self.sharpness, self.linears
        ):
            x = normalize_maps(feats[stage], self.normalize)
            x = self.drop(x[:, channels.start : channels.stop])
            z = score(x.flatten(2).transpose(1, 2))  # (N, positions, classes * attentions)
            sums = (torch.softmax(t * z, 1) * z).sum(1)
            attended = sums.unflatten(1, (len(self.bias), -1)).amax(2)
            logits = logits + attended + linear(signed_root(x.mean((2, 3))))
        return logits
