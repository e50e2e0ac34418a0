"""Linear layers fitted to their optimum, and the weight decay chosen by cross-validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .solver import ROWS_AT_ONCE, BlockFit, LinearProblem, Rows


@dataclass(frozen=True)
class LinearOptimum:
    """The best linear layer.

    Attributes:
        weight (Tensor): float64 ``(C, D)``.
        bias (Tensor): float64 ``(C,)``.
        relative_gradient (Tensor): float64 ``(C,)``, the norm of the gradient over that at weight
            0. It is 0 for a class set to its prior.
        at_prior (Tensor): bool ``(C,)``, classes without a positive or without a negative.
        newton_steps (int): The most that a class took.
        products (int): Passes over features times vectors, in units of one class.
    """

    weight: Tensor
    bias: Tensor
    relative_gradient: Tensor
    at_prior: Tensor
    newton_steps: int
    products: int


def fit_linear(
    features: Rows | LinearProblem,
    targets: Tensor,
    weight_decay: float | Sequence[float] | Tensor,
    loss_weight: float | Sequence[float] | Tensor = 1.0,
    pos_weight: float | Sequence[float] | Tensor = 1.0,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    progress: Callable[[int], None] | None = None,
) -> LinearOptimum:
    """Fit one linear layer per class.

    A class without a positive or without a negative among its known targets has no finite optimum:
    its weight is 0 and its bias the logit of (positives + 1/2) / (known + 1).

    Args:
        features (Rows | LinearProblem): ``(N, D)``; a problem where several fits share one.
        targets (Tensor): ``(N, C)`` of 1, 0, -1 (unknown) or soft values in [0, 1], of any dtype;
            int8 takes a quarter of the memory. It is read by columns, so that it may be a view of
            a file.
        weight_decay (float | Sequence[float] | Tensor): Above 0; one, or one per class.
        loss_weight (float | Sequence[float] | Tensor): Of the data term; one, or one per class.
            Defaults to 1.
        pos_weight (float | Sequence[float] | Tensor): Weight of positive terms; one, or one per
            class. Defaults to 1.
        tolerance (float): Of the norm of a class's gradient, relative to that at weight 0. Weights
            are off by up to that over the weight decay. Defaults to 1e-8.
        max_steps (int): Most Newton steps. Defaults to 100.
        progress (Callable, optional): Called with the number of classes that are done.

    Raises:
        ValueError: If an argument does not fit.
        RuntimeError: If a class takes more than ``max_steps`` steps.
    """
    problem = features if isinstance(features, LinearProblem) else LinearProblem(features)
    check_targets(targets, problem.num_rows)
    num_classes = targets.shape[1]
    decay = per_class('weight_decay', weight_decay, num_classes, problem.device, above=True)
    loss_weights = per_class('loss_weight', loss_weight, num_classes, problem.device)
    pos_weights = per_class('pos_weight', pos_weight, num_classes, problem.device)
    fits = []
    for columns in problem.blocks(num_classes, targets.element_size()):
        own = targets[:, columns].to(problem.device).contiguous()
        fit = BlockFit(problem, own, loss_weights[columns], pos_weights[columns])
        fit.solve(decay[columns], tolerance, max_steps)
        # What is kept for all rows must not pile up.
        del own, fit.margins, fit.curvature, fit.targets
        fits.append(fit)
        if progress is not None:
            progress(columns.stop)
    weight = torch.cat([fit.weight for fit in fits])
    return LinearOptimum(
        weight=weight[:, :-1].clone(),
        bias=weight[:, -1].clone(),
        relative_gradient=torch.cat([fit.relative_gradient for fit in fits]),
        at_prior=torch.cat([fit.at_prior for fit in fits]),
        newton_steps=max(fit.newton_steps for fit in fits),
        products=sum(fit.products for fit in fits),
    )


def cross_validate(
    problem: LinearProblem,
    targets: Tensor,
    folds: Tensor,
    path: Sequence[float],
    score: Callable[[Tensor, Tensor], Tensor],
    loss_weight: float | Sequence[float] | Tensor = 1.0,
    pos_weight: float | Sequence[float] | Tensor = 1.0,
    tolerance: float = 1e-3,
    max_steps: int = 100,
) -> Tensor:
    """Score held-out rows for every weight decay of a path.

    All folds are fitted at once, as so many classes more, and every weight decay starts at the
    optimum of the one before. A class's held-out logits of all folds are scored together.

    Args:
        problem (LinearProblem): The features.
        targets (Tensor): ``(N, C)``, as for :func:`fit_linear`.
        folds (Tensor): int ``(N,)``, the fold in which a row is held out, from 0.
        path (Sequence[float]): Weight decays, the largest first.
        score (Callable): Of logits and targets, ``(N, C)``, a score per class ``(C,)``.
        loss_weight, pos_weight: See :func:`fit_linear`.
        tolerance (float): Defaults to 1e-3: scores do not change any more.
        max_steps (int): Most Newton steps per weight decay. Defaults to 100.

    Returns:
        Tensor: Scores, float64 ``(len(path), C)``.
    """
    check_targets(targets, problem.num_rows)
    num_classes, num_folds = targets.shape[1], int(folds.max()) + 1
    loss_weights = per_class('loss_weight', loss_weight, num_classes, problem.device)
    pos_weights = per_class('pos_weight', pos_weight, num_classes, problem.device)
    folds = folds.to(problem.device)
    held_out = folds[:, None] == torch.arange(num_folds, device=problem.device)
    scores = torch.empty(len(path), num_classes, dtype=torch.float64)
    for columns in problem.blocks(num_classes, num_folds * (20 + targets.element_size())):
        own = targets[:, columns].to(problem.device)
        size = own.shape[1]
        # Fold after fold, the held-out rows of each unknown.
        split = own[:, None].expand(-1, num_folds, -1).masked_fill(held_out[..., None], -1)
        fit = BlockFit(
            problem,
            split.reshape(len(own), -1),
            loss_weights[columns].repeat(num_folds),
            pos_weights[columns].repeat(num_folds),
        )
        for index, decay in enumerate(path):
            fit.solve(torch.full_like(fit.row_weight, decay), tolerance, max_steps)
            logits = fit.margins.view(len(own), num_folds, size)
            scores[index, columns] = score(
                logits[torch.arange(len(own), device=folds.device), folds], own
            ).to(scores)
    return scores


def check_targets(targets: Tensor, num_rows: int) -> None:
    """Raise ValueError unless targets are ``(num_rows, C)`` of 1, 0, -1 or soft values."""
    if targets.ndim != 2 or len(targets) != num_rows or targets.shape[1] == 0:
        raise ValueError(
            f'Expected argument `targets` to have shape ({num_rows}, num_classes), but got '
            f'{tuple(targets.shape)}.'
        )
    for start in range(0, num_rows, ROWS_AT_ONCE):
        part = targets[start : start + ROWS_AT_ONCE]
        if not ((part == -1) | ((part >= 0) & (part <= 1))).all():
            raise ValueError(
                'Expected argument `targets` to hold 1, 0, -1 (unknown) or soft values in [0, 1].'
            )


def per_class(
    name: str,
    value: float | Sequence[float] | Tensor,
    num_classes: int,
    device: torch.device,
    above: bool = False,
) -> Tensor:
    """A number, or one per class, as float64 ``(num_classes,)``.

    Args:
        above (bool): Whether 0 does not fit. Defaults to False.

    Raises:
        ValueError: If a number does not fit.
    """
    values = torch.as_tensor(value, dtype=torch.float64, device=device)
    fits = values.ndim == 0 or values.shape == (num_classes,)
    in_range = (values > 0 if above else values >= 0) & values.isfinite()
    if not fits or not in_range.all():
        raise ValueError(
            f'Expected argument `{name}` to be a finite number '
            f'{"above 0" if above else "of 0 or more"}, or a list with one for each of '
            f'{num_classes} classes, but got {value!r}.'
        )
    return values.expand(num_classes).clone()
