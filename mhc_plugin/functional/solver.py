r"""The weights at which a linear layer's binary cross-entropy with weight decay is smallest.

With a fixed feature :math:`x_n` per row, the loss of a class by itself is

.. math::
    f_c(w, b) = \frac{\lambda_c}{|K_c|} \sum_{n \in K_c} \text{BCE}(w \cdot x_n + b, y_{nc})
        + \frac{\delta_c}{2} (w \cdot w + \beta b^2)

with :math:`K_c` the rows whose target is known, :math:`\lambda` the loss weight, :math:`\delta`
the weight decay and :math:`\beta` the share of it that acts on the bias. Weight decay is that of
SGD: its gradient is :math:`\delta w`. The function is strictly convex in :math:`w`, so that there
is one answer, whatever the start, the order of the rows or the other classes.

It is found by Newton's method with conjugate gradients (Nocedal and Wright, "Numerical
Optimization", 2nd ed., algorithm 7.1; Lin, Weng and Keerthi, "Trust Region Newton Method for
Large-Scale Logistic Regression", 2008). All classes of a block share every pass over the
features, and as preconditioner the Cholesky factor of :math:`X^T X / N + r`, of
which there is one for every power of 4 that the ratio r of weight decay to curvature comes to.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

ROWS_AT_ONCE = 4096
# Of margins, curvatures and targets, kept for all rows of a block of classes.
BLOCK_BYTES = 1 << 30
# Fewer factors than these are needed unless weight decays differ by many powers of ten.
KEPT_FACTORS = 8


class Rows(Protocol):
    """Rows of features, read as ``rows[start:stop]``: a tensor, or what reads them from a disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Tensor: ...


class LinearProblem:
    """Rows of features, of which one or many linear layers are to be fitted.

    Features are held in float32 where that takes no more than ``max_bytes``, and else read again
    and again. Besides them, a fit takes about ``max_bytes`` for a block of classes and
    8 (D + 1)^2 bytes for the second moments and each of at most 8 factors of the preconditioner.

    Args:
        features (Rows): ``(N, D)``, finite.
        bias_decay (float): Share of the weight decay that acts on the bias. Defaults to 0.
        max_bytes (int): See above. Defaults to 1 GiB.
    """

    def __init__(
        self, features: Rows, bias_decay: float = 0.0, max_bytes: int = BLOCK_BYTES
    ) -> None:
        self.num_rows = len(features)
        if self.num_rows == 0:
            raise ValueError('Expected argument `features` to have rows, but got none.')
        first = features[0:1]
        self.num_features, self.device = first.shape[1], first.device
        self.max_bytes = max_bytes
        self._features = features
        if not isinstance(features, Tensor) and 4 * self.num_rows * self.num_features <= max_bytes:
            self._features = torch.cat([part for _, part in self.parts()])
        penalty = torch.ones(self.num_features + 1, dtype=torch.float64, device=self.device)
        penalty[-1] = bias_decay
        self.penalty = penalty
        self._moments: Tensor | None = None
        self._factor = lru_cache(maxsize=KEPT_FACTORS)(self._make_factor)

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Features, float32 or float64, some thousand rows at a time."""
        for start in range(0, self.num_rows, ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, self.num_rows))
            part = self._features[rows]
            yield rows, part if part.dtype == torch.float64 else part.float()

    def moments(self) -> Tensor:
        """Mean products of features and 1, float64 ``(D + 1, D + 1)``, to the digits of float32.

        Raises:
            ValueError: If features are not finite.
        """
        if self._moments is None:
            size = self.num_features
            moments = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=self.device)
            for _, part in self.parts():
                # A preconditioner need not be exact: float32 takes half the time.
                moments[:size, :size] += part.T @ part
                moments[size, :size] += part.sum(0, dtype=torch.float64)
            moments[:size, size] = moments[size, :size]
            moments[size, size] = self.num_rows
            if not torch.isfinite(moments).all():
                raise ValueError('Expected argument `features` to be finite, but they are not.')
            self._moments = moments / self.num_rows
        return self._moments

    def precondition(self, gradient: Tensor, ratio: Tensor) -> Tensor:
        """Solve with the shared factors.

        Args:
            gradient (Tensor): ``(C, D + 1)``.
            ratio (Tensor): ``(C,)``, weight decay over curvature.
        """
        powers = ratio.log2().div(2).round().long()
        result = torch.empty_like(gradient)
        for power in powers.unique().tolist():
            chosen = powers == power
            result[chosen] = torch.cholesky_solve(gradient[chosen].T, self._factor(power)).T
        return result

    def _make_factor(self, power: int) -> Tensor:
        matrix = self.moments().clone()
        matrix.diagonal().add_(4.0**power * self.penalty)
        # The bias need not be decayed, a feature may be constant, and sums are of float32.
        own, jitter = matrix.diagonal().clone(), 1e-6
        matrix[-1, -1] = own[-1] * (1 + jitter)
        while True:
            factor, failed = torch.linalg.cholesky_ex(matrix)
            if not failed:
                return factor
            matrix.diagonal().copy_(own * (1 + jitter))
            jitter *= 10

    def blocks(self, num_columns: int, target_bytes: int) -> Iterator[slice]:
        """Columns that may be fitted at a time."""
        size = max(1, self.max_bytes // (self.num_rows * (20 + target_bytes)))
        # Even blocks: a last one of few columns would cost as many reads as a full one.
        number = math.ceil(num_columns / size)
        size = math.ceil(num_columns / number)
        for start in range(0, num_columns, size):
            yield slice(start, min(start + size, num_columns))


class BlockFit:
    """Some classes of a problem, fitted together; a second :meth:`solve` starts where one ended.

    Args:
        problem (LinearProblem): The features.
        targets (Tensor): ``(N, C)`` of 1, 0, -1 (unknown) or soft values.
        loss_weight (Tensor): float64 ``(C,)``.
        pos_weight (Tensor): float64 ``(C,)``.
    """

    def __init__(
        self, problem: LinearProblem, targets: Tensor, loss_weight: Tensor, pos_weight: Tensor
    ) -> None:
        problem.moments()  # Raises where features are not finite.
        self.problem = problem
        self.targets = targets
        self.pos_weight = pos_weight
        size = targets.shape[1]
        self.weight = torch.zeros(
            size, problem.num_features + 1, dtype=torch.float64, device=problem.device
        )
        known, positive, mass = torch.zeros(3, size, dtype=torch.float64, device=problem.device)
        for start in range(0, problem.num_rows, ROWS_AT_ONCE):
            part = targets[start : start + ROWS_AT_ONCE].double()
            known += (part >= 0).sum(0)
            part = part.clamp(min=0)
            positive += part.sum(0)
        mass = positive * pos_weight
        total = known - positive + mass
        #: Of a known row's loss, besides what `pos_weight` makes of it.
        self.row_weight = loss_weight / known.clamp(min=1)
        self.at_prior = ~((mass > 0) & (positive < known))
        prior = torch.where(self.at_prior, (positive + 0.5) / (known + 1), mass / total)
        self.weight[:, -1] = prior.logit()
        self.margins = self.weight[:, -1].expand(problem.num_rows, size).clone()
        self.curvature = torch.empty(problem.num_rows, size, device=problem.device)
        self.first_norm: Tensor | None = None
        # A gradient that is no more than rounding of sums over rows says that nothing is left.
        size_of_row = problem.moments().diagonal().sum().sqrt()
        self.rounding = 1e-13 * self.row_weight * total * size_of_row
        self.relative_gradient = torch.ones(size, dtype=torch.float64, device=problem.device)
        self.newton_steps = self.products = 0

    def solve(self, weight_decay: Tensor, tolerance: float, max_steps: int) -> None:
        """Go on until every class's gradient is at most ``tolerance`` of that at weight 0.

        Raises:
            RuntimeError: If that takes more than ``max_steps`` Newton steps.
        """
        everything = torch.arange(len(self.weight), device=self.weight.device)
        active, exact = everything, False
        for step in range(max_steps + 1):
            # Early on float32 has digits enough.
            begun = self.first_norm is not None
            rough = begun and bool((self.relative_gradient[active] > 1e-2).all()) and not exact
            columns = slice(None) if len(active) == len(everything) else active
            gradient, scale = self._gradient(weight_decay[active], columns, rough)
            norm = gradient.norm(dim=1)
            if not begun:
                self.first_norm = norm.clamp(min=torch.finfo(norm.dtype).tiny)
            done = self.at_prior[active] | (norm <= self.rounding[active])
            relative = (norm / self.first_norm[active]).masked_fill(done, 0)
            self.relative_gradient[active] = relative
            # Margins are sums of float32 steps; the last word is that of the weights.
            going = ~(relative <= (tolerance if exact else 0.5 * tolerance))
            active, gradient, scale = active[going], gradient[going], scale[going]
            if len(active) == 0:
                if exact:
                    return
                self._compute_margins()
                active, exact = everything, True
                continue
            exact = False
            self.newton_steps = max(self.newton_steps, step + 1)
            decay = weight_decay[active]
            direction, shift = self._conjugate_gradients(
                gradient, decay, decay / scale.clamp(min=1e-12), active, tolerance
            )
            length = self._line_search(gradient, direction, shift, decay, active)
            self.weight[active] += length[:, None] * direction
            for start in range(0, self.problem.num_rows, ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                self.margins[rows, active] += shift[rows] * length
        raise RuntimeError(
            f'{len(active)} classes have a relative gradient of up to '
            f'{self.relative_gradient.max():.1e} after {max_steps} Newton steps, where '
            f'{tolerance:.0e} was asked for. A larger weight decay makes the problem easier.'
        )

    def _terms(self, rows: slice, columns: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Weight of every row's loss, and the target that a weighted BCE has then."""
        target = self.targets[rows, columns].double()
        known = target >= 0
        target = target.clamp(min=0)
        mass = target * self.pos_weight[columns]
        total = 1 - target + mass
        weight = torch.where(known, total, 0.0) * self.row_weight[columns]
        return weight, torch.where(total > 0, mass / total, 0.0)

    def _gradient(
        self, weight_decay: Tensor, columns: slice | Tensor, rough: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradient ``(A, D + 1)`` of some classes, and the sums of their curvatures ``(A,)``."""
        gradient = weight_decay[:, None] * self.problem.penalty * self.weight[columns]
        dtype = torch.float32 if rough else torch.float64
        product = torch.zeros_like(gradient, dtype=dtype)[:, :-1].contiguous()
        scale = torch.zeros_like(weight_decay)
        for rows, part in self.problem.parts():
            weight, target = self._terms(rows, columns)
            score = self.margins[rows, columns].sigmoid()
            error = weight * (score - target)
            curvature = weight * score * (1 - score)
            self.curvature[rows, columns] = curvature.float()
            scale += curvature.sum(0)
            product.addmm_(error.to(dtype).T, part.to(dtype))
            gradient[:, -1] += error.sum(0)
        gradient[:, :-1] += product
        self.products += len(gradient)
        return gradient, scale

    def _compute_margins(self) -> None:
        for rows, part in self.problem.parts():
            torch.addmm(
                self.weight[:, -1], part.double(), self.weight[:, :-1].T, out=self.margins[rows]
            )
        self.products += len(self.weight)

    def _conjugate_gradients(
        self,
        gradient: Tensor,
        weight_decay: Tensor,
        ratio: Tensor,
        columns: Tensor,
        tolerance: float,
    ) -> tuple[Tensor, Tensor]:
        """The Newton direction of some classes, ever better, but no better than is asked for.

        Products with features are float32's: a direction need not be exact.

        Returns:
            tuple[Tensor, Tensor]: Direction ``(A, D + 1)``, and what it adds to margins, float32
            ``(N, A)``.
        """
        direction = torch.zeros_like(gradient)
        shift = torch.zeros(self.problem.num_rows, len(columns), device=gradient.device)
        residual = -gradient
        solved = self.problem.precondition(residual, ratio)
        search = solved
        energy = (residual * solved).sum(1)
        relative = self.relative_gradient[columns]
        forcing = torch.maximum(relative.sqrt().clamp(max=0.1), 0.15 * tolerance / relative)
        target = forcing**2 * energy
        going = torch.arange(len(columns), device=gradient.device)
        for _ in range(self.problem.num_features):
            product, steps = self._hessian_product(search, weight_decay[going], columns[going])
            length = energy[going] / (search * product).sum(1)
            direction[going] += length[:, None] * search
            for start in range(0, self.problem.num_rows, ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                shift[rows].index_add_(1, going, steps[rows] * length.float())
            residual = residual - length[:, None] * product
            solved = self.problem.precondition(residual, ratio[going])
            new_energy = (residual * solved).sum(1)
            keep = new_energy > target[going]
            factor = new_energy / energy[going]
            energy[going] = new_energy
            search = solved + factor[:, None] * search
            residual, search, going = residual[keep], search[keep], going[keep]
            if len(going) == 0:
                break
        return direction, shift

    def _hessian_product(
        self, vectors: Tensor, weight_decay: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        single = vectors.float()
        product = torch.zeros_like(single)
        steps = single.new_empty(self.problem.num_rows, len(columns))
        whole = len(columns) == self.curvature.shape[1]
        for rows, part in self.problem.parts():
            step = torch.addmm(single[:, -1], part.float(), single[:, :-1].T, out=steps[rows])
            curvature = self.curvature[rows]
            weighted = step * (curvature if whole else curvature[:, columns])
            product[:, :-1].addmm_(weighted.T, part.float())
            product[:, -1] += weighted.sum(0)
        self.products += 2 * len(columns)
        penalty = weight_decay[:, None] * self.problem.penalty
        return product.double() + penalty * vectors, steps

    def _line_search(
        self,
        gradient: Tensor,
        direction: Tensor,
        shift: Tensor,
        weight_decay: Tensor,
        columns: Tensor,
    ) -> Tensor:
        """Steps ``(A,)`` behind which the loss rises by at most half as steeply as it fell before.

        Along a line the loss is convex: where it still falls the step was not too long. Slopes are
        followed by what they change, which keeps its digits near the optimum.
        """
        penalty = weight_decay[:, None] * self.problem.penalty
        quadratic = (penalty * direction * direction).sum(1)
        slope = (gradient * direction).sum(1)
        length = torch.ones_like(slope)
        open_ = torch.arange(len(columns), device=slope.device)
        while len(open_):
            new = slope[open_] + length[open_] * quadratic[open_]
            for start in range(0, self.problem.num_rows, ROWS_AT_ONCE):
                rows = slice(start, min(start + ROWS_AT_ONCE, self.problem.num_rows))
                weight, _ = self._terms(rows, columns[open_])
                step = shift[rows, open_].double()
                before = self.margins[rows, columns[open_]]
                after = before + length[open_] * step
                new += (weight * (after.sigmoid() - before.sigmoid()) * step).sum(0)
            too_long = new > -0.1 * slope[open_]
            secant = slope[open_] / (slope[open_] - new)
            length[open_[too_long]] *= secant[too_long].clamp(0.1, 0.7)
            open_ = open_[too_long & (length[open_] > 1e-10)]
        return length
