"""Binary cross-entropy of every class by itself, over the targets that are known."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mhc_plugin.functional.checks import check_argument, check_choice
from mhc_plugin.utils.known_pairs import KnownPairs

VALUES = 'to hold 1, 0, -1 (unknown) or soft values in [0, 1]'
# Four of the longest vectors: what sums over rows take at a time.
COLUMNS = 64


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
        self._check_values(target)

        # float16 and bfloat16 would lose what a sum over a batch needs, under autocast too.
        dtype = torch.promote_types(cls_score.dtype, torch.float32)
        if isinstance(target, KnownPairs):
            sums, counts = self._sums_of_pairs(cls_score, target, weight, dtype)
        else:
            sums, counts = self._sums(cls_score.to(dtype), target.to(dtype), weight)

        # Both do nothing in a single process. Gradients are averaged over processes, so each hands
        # in as many times its share as there are processes.
        all_reduce(counts)
        per_class = sums * get_world_size() / counts.clamp(min=1)
        if self.log_per_class and self.training:
            self._log(sums, counts)

        loss = (per_class * self._per_class(self.loss_weight, per_class)).sum()
        return loss / cls_score.shape[1] if self.head_reduction == 'mean' else loss

    def _sums(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum over the known targets of every class, and their number, ``(num_classes,)`` each."""
        num_classes = logits.shape[1]
        # Processors take numbers in vectors and those that are left over one by one, with other
        # last bits. In columns of whole vectors a class is the same in any company.
        width = num_classes if logits.is_cuda else COLUMNS

        def columns(x: Tensor, value: float) -> list[Tensor]:
            filled = F.pad(x, (0, -num_classes % width), value=value)
            return [part.contiguous() for part in filled.split(width, -1)]

        counts = (target >= 0).sum(0).to(logits.dtype)
        if weight is not None:
            weight = weight.to(logits).reshape(len(logits), -1).expand_as(logits)
        parts, targets = columns(logits, 0.0), columns(target, -1.0)
        pos_weights = [self._per_class(self.pos_weight, logits)] * len(parts)
        if self.pos_weight is not None and self.pos_weight.ndim == 1:
            pos_weights = columns(pos_weights[0], 1.0)
        weights = [None] * len(parts) if weight is None else columns(weight, 0.0)
        sums = []
        for logits, target, pos_weight, weight in zip(parts, targets, pos_weights, weights):
            terms = F.binary_cross_entropy_with_logits(
                logits, target.clamp(min=0), pos_weight=pos_weight, reduction='none'
            )
            if weight is not None:
                terms = terms * weight
            sums.append(torch.where(target >= 0, terms, 0.0).sum(0))
        return torch.cat(sums)[:num_classes], counts

    def _sums_of_pairs(
        self, cls_score: Tensor, target: KnownPairs, weight: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The same of known pairs, without a matrix of terms."""
        images, classes = target.images, target.classes.long()
        # One by one, since the gradient of two indices is made twice.
        places = images * target.num_classes + classes
        logits = cls_score.reshape(-1).index_select(0, places).to(dtype)
        pos_weight = self._per_class(self.pos_weight, logits)
        if pos_weight is not None and pos_weight.ndim:
            pos_weight = pos_weight[classes]
        number, filled = len(places), [logits, target.values.to(dtype), pos_weight]
        if not logits.is_cuda:
            # As of columns: vectors are whole.
            missing = -number % COLUMNS
            filled = [x if x is None or x.ndim == 0 else F.pad(x, (0, missing)) for x in filled]
        logits, values, pos_weight = filled
        terms = F.binary_cross_entropy_with_logits(
            logits, values, pos_weight=pos_weight, reduction='none'
        )[:number]
        if weight is not None:
            factors = weight[images] if weight.ndim == 1 else weight[images, classes]
            terms = terms * factors.to(terms)
        zeros = terms.new_zeros(target.num_classes)
        counts = zeros.index_add(0, classes, torch.ones_like(terms))
        return zeros.index_add(0, classes, terms), counts

    @staticmethod
    def _per_class(weights: Tensor | None, like: Tensor) -> Tensor | None:
        return None if weights is None else weights.to(like)

    def _check_shapes(self, cls_score: Tensor, target: Tensor, weight: Tensor | None) -> None:
        if cls_score.ndim != 2 or target.shape != cls_score.shape:
            raise ValueError(
                'Expected arguments `cls_score` and `target` to have one shape, (N, num_classes), '
                f'but got {tuple(cls_score.shape)} and {tuple(target.shape)}.'
            )
        num_samples, num_classes = cls_score.shape
        check_argument(
            weight is None or weight.shape in ((num_samples,), cls_score.shape),
            'weight',
            f'to have shape ({num_samples},) or {tuple(cls_score.shape)}',
            None if weight is None else tuple(weight.shape),
        )
        for name in ('loss_weight', 'pos_weight', 'class_names'):
            values = getattr(self, name)
            single = values is None or (isinstance(values, Tensor) and values.ndim == 0)
            if not single:
                expected = f'to have {num_classes} entries (num_classes)'
                check_argument(len(values) == num_classes, name, expected, len(values))

    @torch.compiler.disable  # A compiled graph holds no branch on data.
    def _check_values(self, target: Tensor | KnownPairs) -> None:
        pairs = target if isinstance(target, KnownPairs) else None
        values = target if pairs is None else pairs.values
        if pairs is None and values.dtype == torch.int8 and not values.is_cuda and values.numel():
            # As our tables give them: one look at each is enough.
            lowest, highest = values.aminmax()
            if lowest >= -1 and highest <= 1:
                return
        # Written so that NaN is bad.
        bad = ~((values >= 0) & (values <= 1))
        if pairs is None:
            bad &= values != -1
        if not values.is_cuda:
            if bad.any():
                place = tuple(bad.nonzero()[0])
                found = place if pairs is None else (pairs.images[place], pairs.classes[place])
                value = f'{values[place]:g} for sample {found[0]}, class {found[1]}'
                check_argument(False, 'target', VALUES, value)
            return
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

    @torch.compiler.disable
    def _log(self, sums: Tensor, counts: Tensor) -> None:
        sums = sums.detach().clone()
        all_reduce(sums)
        means, seen = (sums / counts.clamp(min=1)).tolist(), counts.tolist()
        names = self.class_names or range(len(means))
        message_hub = MessageHub.get_current_instance()
        for name, mean, count in zip(names, means, seen):
            if count > 0:
                message_hub.update_scalar(f'train/bce/{name}', mean)


def _as_weights(name: str, value: float | Sequence[float]) -> Tensor:
    weights = torch.as_tensor(value, dtype=torch.float32)
    check_argument(
        weights.ndim <= 1 and bool((torch.isfinite(weights) & (weights >= 0)).all()),
        name,
        'to be a finite number of 0 or more, or a list with one per class',
        repr(value),
    )
    return weights
