"""Binary cross-entropy of every class by itself, over the targets that are known."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mhc_plugin.functional.checks import check_argument, check_choice
from mhc_plugin.utils.known_pairs import KnownPairs

VALUES = 'to hold 1, 0, -1 (unknown) or soft values in [0, 1]'
# Numbers that are a whole number of vectors on any processor, and those that torch leaves to one
# thread.
VECTORS, PART = 64, 1 << 15


@MODELS.register_module()
class PerHeadBCELoss(nn.Module):
    r"""Binary cross-entropy, optimised for every class independently.

    With :math:`K_c` the samples of the batch whose target for class c is known,

    .. math::
        L = \sum_c \lambda_c \frac{1}{|K_c|} \sum_{n \in K_c} \text{BCE}(x_{nc}, y_{nc})

    A class without a known target in the batch adds 0. In distributed training the batch is that
    of all processes: the counts of known targets are summed over them, and the local sum is scaled
    so that the averaging of gradients gives the gradient of the global mean.

    The loss is computed in float32 at least, under autocast too.

    Args:
        loss_weight (float | Sequence[float]): The paper's lambda, one for all classes or one per
            class. Defaults to 1.
        head_reduction (str): ``'sum'`` over classes, or ``'mean'``: the sum divided by
            ``num_classes``. For a linear head under SGD the two differ by a factor of
            ``num_classes`` on the learning rate. Defaults to ``'sum'``.
        pos_weight (float | Sequence[float], optional): Weight of the positive term, one for all
            classes or one per class. Defaults to None, which means 1.
        log_per_class (bool): In training, write every class's own mean cross-entropy (before
            ``loss_weight``) to MMEngine's message hub as ``train/bce/<class>``, from where it gets
            into log and TensorBoard. A class keeps its last value while the batch has no known
            target of it. Defaults to False.
        class_names (Sequence[str], optional): Names for ``log_per_class``. Defaults to None, which
            means the index of the class.

    Raises:
        ValueError: If an argument does not fit, or, at a call, if it does not fit the number of
            classes.

    Shape:
        - cls_score: logits ``(N, num_classes)``.
        - target: 1, 0, -1 (unknown) or soft values in [0, 1], same shape; or the known ones as
          :class:`KnownPairs`, beside which nothing of the size of ``cls_score`` is made.
        - output: a scalar.

    Examples:
        >>> loss = PerHeadBCELoss()
        >>> loss(torch.zeros(2, 3), torch.tensor([[1., 0., -1.], [0., 0.5, -1.]]))
        tensor(1.3863)
    """

    #: Targets may be integers, and :class:`KnownPairs` in the place of a matrix.
    takes_compact_targets = True

    def __init__(
        self,
        loss_weight: float | Sequence[float] = 1.0,
        head_reduction: str = 'sum',
        pos_weight: float | Sequence[float] | None = None,
        log_per_class: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_choice('head_reduction', head_reduction, ('sum', 'mean'))
        if class_names is not None:
            distinct = len(set(class_names)) == len(class_names)
            check_argument(distinct, 'class_names', 'to hold distinct names', list(class_names))
        self.head_reduction = head_reduction
        self.log_per_class = log_per_class
        self.class_names = class_names
        # Classes with a bad target in earlier batches on a GPU.
        self._bad: Tensor | None = None
        # Not persistent: a checkpoint fits a model whose loss is weighted otherwise.
        self.register_buffer(
            'loss_weight', _as_weights('loss_weight', loss_weight), persistent=False
        )
        self.register_buffer(
            'pos_weight',
            None if pos_weight is None else _as_weights('pos_weight', pos_weight),
            persistent=False,
        )

    def forward(
        self,
        cls_score: Tensor,
        target: Tensor | KnownPairs,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            cls_score (Tensor): Logits, ``(N, num_classes)``.
            target (Tensor | KnownPairs): 1, 0, -1 (unknown) or soft values in [0, 1], same shape.
            weight (Tensor, optional): Factors of the single terms, ``(N, )`` or
                ``(N, num_classes)``; the mean still divides by the number of known targets.
                Defaults to None.
            avg_factor (float, optional): Ignored: MMPretrain's heads hand over the batch size,
                and every class has its own divisor here. Defaults to None.
            **kwargs: Ignored: what else MMPretrain's heads hand over to losses of other kinds.

        Returns:
            Tensor: Scalar loss, float32 or float64.

        Raises:
            ValueError: If shapes do not fit each other or the arguments of the constructor, or a
                target has any other value. On a GPU, where a look at the values would make the
                host wait, a bad value is told at one of the next calls.
        """
        self._check_shapes(cls_score, target, weight)
        all_known = self._check_values(target)

        # float16 and bfloat16 would lose what a sum over a batch needs, under autocast too.
        dtype = torch.promote_types(cls_score.dtype, torch.float32)
        if isinstance(target, KnownPairs):
            terms = _terms_of_pairs(cls_score, target, weight, dtype)
        else:
            terms = _terms_of_matrix(cls_score.to(dtype), target.to(dtype), weight, all_known)
        # Gradients are averaged over processes, so each hands in as many times its share as there
        # are processes.
        share = get_world_size() / (cls_score.shape[1] if self.head_reduction == 'mean' else 1)
        scale = self.loss_weight.to(terms.logits)
        scale = scale if share == 1 else scale * share
        if all_known and get_world_size() == 1 and not self.log_per_class:
            factor = scale / len(cls_score)
        else:
            counts = terms.counts()
            all_reduce(counts)  # does nothing in a single process
            factor = scale / counts.clamp(min=1)
            if self.log_per_class and self.training:
                self._log(terms, counts)
        if factor.ndim:
            factor = terms.spread(factor)
        if terms.weight is not None:
            factor = factor * terms.weight
        return _weighted_sum(terms.logits, terms.targets, factor, self._pos_weight(terms))

    def _pos_weight(self, terms: '_Terms') -> Tensor | None:
        if self.pos_weight is None:
            return None
        pos_weight = self.pos_weight.to(terms.logits)
        return terms.spread(pos_weight) if pos_weight.ndim else pos_weight.expand_as(terms.logits)

    def _check_shapes(self, cls_score: Tensor, target: Tensor, weight: Tensor | None) -> None:
        if cls_score.ndim != 2 or target.shape != cls_score.shape:
            raise ValueError(
                'Expected arguments `cls_score` and `target` to have one shape, (N, num_classes), '
                f'but got {tuple(cls_score.shape)} and {tuple(target.shape)}.'
            )
        num_samples, num_classes = cls_score.shape
        if weight is not None:
            check_argument(
                weight.shape in ((num_samples,), cls_score.shape),
                'weight',
                f'to have shape ({num_samples},) or {tuple(cls_score.shape)}',
                tuple(weight.shape),
            )
        for name in ('loss_weight', 'pos_weight', 'class_names'):
            values = getattr(self, name)
            single = values is None or (isinstance(values, Tensor) and values.ndim == 0)
            if not single and len(values) != num_classes:
                expected = f'to have {num_classes} entries (num_classes)'
                check_argument(False, name, expected, len(values))

    @torch.compiler.disable  # A compiled graph holds no branch on data.
    def _check_values(self, target: Tensor | KnownPairs) -> bool:
        """Raise ValueError at a bad target; whether all are seen to be known."""
        pairs = target if isinstance(target, KnownPairs) else None
        values = target if pairs is None else pairs.values
        if not values.is_cuda and values.numel() and not torch.jit.is_tracing():
            # One look at each is enough for most batches. Comparisons with NaN are false.
            lowest, highest = map(float, values.detach().aminmax())
            if highest <= 1 and lowest >= 0:
                return pairs is None
            if highest <= 1 and lowest >= -1 and pairs is None and not values.is_floating_point():
                return False
        # Written so that NaN is bad.
        bad = ~((values >= 0) & (values <= 1))
        if pairs is None:
            # -1 is 255 to uint8.
            bad &= (values != -1) | (values > 0)
        if not values.is_cuda:
            if bad.any():
                place = tuple(bad.nonzero()[0])
                found = place if pairs is None else (pairs.images[place], pairs.classes[place])
                value = f'{values[place]:g} for sample {found[0]}, class {found[1]}'
                check_argument(False, 'target', VALUES, value)
            return False
        num_classes = target.shape[1]
        if self._bad is None or len(self._bad) != num_classes:
            self._bad = bad.new_zeros(num_classes)
            self._bad_on_host = torch.zeros(num_classes, dtype=torch.bool, pin_memory=True)
        # What has arrived of the batches before. Nothing waits for the copy, and a class that is
        # bad stays bad, so reading while it is written is safe.
        classes = self._bad_on_host.nonzero().flatten().tolist()
        if classes:
            self._bad = None
            check_argument(False, 'target', VALUES, f'others for classes {classes}')
        if pairs is None:
            self._bad |= bad.any(0)
        else:
            counts = values.new_zeros(num_classes, dtype=torch.float32)
            self._bad |= counts.index_add(0, pairs.classes.long(), bad.float()) > 0
        self._bad_on_host.copy_(self._bad, non_blocking=True)
        return False

    @torch.no_grad()
    @torch.compiler.disable
    def _log(self, terms: '_Terms', counts: Tensor) -> None:
        values = F.binary_cross_entropy_with_logits(
            terms.logits,
            terms.targets,
            terms.weight,
            pos_weight=self._pos_weight(terms),
            reduction='none',
        )
        sums = terms.sum_per_class(values)
        all_reduce(sums)
        means, seen = (sums / counts.clamp(min=1)).tolist(), counts.tolist()
        names = self.class_names or range(len(means))
        message_hub = MessageHub.get_current_instance()
        for name, mean, count in zip(names, means, seen):
            if count > 0:
                message_hub.update_scalar(f'train/bce/{name}', mean)


class _Terms(NamedTuple):
    """The terms of a batch in a row, ``(terms,)`` each."""

    logits: Tensor
    targets: Tensor
    #: 0 where the target is unknown; None if all are 1.
    weight: Tensor | None
    #: How many targets of every class are known.
    counts: Callable[[], Tensor]
    #: From values ``(num_classes,)`` to the terms, and back.
    spread: Callable[[Tensor], Tensor]
    sum_per_class: Callable[[Tensor], Tensor]


def _terms_of_matrix(
    logits: Tensor, target: Tensor, weight: Tensor | None, all_known: bool
) -> _Terms:
    """All terms of a matrix; those that are unknown have weight 0, whatever the logit."""
    shape = logits.shape
    if weight is not None:
        weight = (weight[:, None] if weight.ndim == 1 else weight).to(logits).expand(shape)
    if not all_known:
        known = target >= 0
        logits = logits.masked_fill(~known, 0)
        weight = known.to(logits.dtype) if weight is None else weight.masked_fill(~known, 0)
    # What a slice leaves out would lie between the numbers of a vector.
    return _Terms(
        logits.contiguous().view(-1),
        target.reshape(-1),
        None if weight is None else weight.reshape(-1),
        lambda: (target >= 0).sum(0).to(logits.dtype),
        lambda values: values.expand(shape).reshape(-1),
        lambda terms: terms.reshape(shape).sum(0),
    )


def _terms_of_pairs(
    cls_score: Tensor, target: KnownPairs, weight: Tensor | None, dtype: torch.dtype
) -> _Terms:
    """The same of known pairs, without a matrix of terms."""
    images, classes = target.images, target.classes.long()
    # One by one, since the gradient of two indices is made twice.
    places = images * target.num_classes + classes
    logits = cls_score.reshape(-1).index_select(0, places).to(dtype)
    if weight is not None:
        weight = (weight[images] if weight.ndim == 1 else weight[images, classes]).to(dtype)

    def sum_per_class(terms: Tensor) -> Tensor:
        return terms.new_zeros(target.num_classes).index_add(0, classes, terms)

    return _Terms(
        logits,
        target.values.to(dtype),
        weight,
        lambda: sum_per_class(torch.ones_like(logits)),
        lambda values: values[classes],
        sum_per_class,
    )


def _weighted_sum(
    logits: Tensor, targets: Tensor, factor: Tensor, pos_weight: Tensor | None
) -> Tensor:
    """Cross-entropies, ``(terms,)``, times one factor or as many, summed.

    A term's gradient is the same to the bit in any company: processors take numbers in vectors and
    those that are left over one by one, with other last bits, so on a CPU all vectors are whole,
    and no part is so long that threads would cut it elsewhere.
    """
    number = logits.numel()
    missing = 0 if logits.is_cuda else -number % VECTORS
    parts = [logits, targets, factor]
    parts += [] if pos_weight is None else [pos_weight]
    if missing:
        parts = [F.pad(x.expand(number), (0, missing)) for x in parts]
    if logits.is_cuda or number <= PART:
        return _bce(*parts)
    parts = [x.expand(number + missing).split(PART) for x in parts]
    return torch.stack([_bce(*part) for part in zip(*parts)]).sum()


def _bce(
    logits: Tensor, targets: Tensor, factor: Tensor, pos_weight: Tensor | None = None
) -> Tensor:
    bce = partial(F.binary_cross_entropy_with_logits, logits, targets, pos_weight=pos_weight)
    # Torch's loss has no gradient for a weight, which may be a learned one.
    learned = factor.requires_grad
    return (factor * bce(reduction='none')).sum() if learned else bce(factor, reduction='sum')


def _as_weights(name: str, value: float | Sequence[float]) -> Tensor:
    weights = torch.as_tensor(value, dtype=torch.float32)
    check_argument(
        weights.ndim <= 1 and bool((torch.isfinite(weights) & (weights >= 0)).all()),
        name,
        'to be a finite number of 0 or more, or a list with one per class',
        repr(value),
    )
    return weights
