"""The problem reduced to min(n, d) rows, for SciPy's methods in growth coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from flowsim.arrays import Array, Bools
from flowsim.problem import Problem, Regression
from flowsim.problem.entries import dense

#: Losses with a safe prediction up to this grow exponentially.
EXPONENTIAL = 1e4
#: Step of the search for bounds on the predictions of a sublevel set, its end, and bisections to rounding.
_FURTHER, _FURTHEST, _BISECTIONS = 1e3, 1e150, 40
#: Weights that decay raise the loss towards that of a predictor of 0; by so much more for formulas with linear terms.
_RAISED = 1e3


@dataclass(frozen=True, eq=False)
class Reduced:
    """The problem in r = min(n, d) rows with columns of length at most 1: ``z = B^T y``, ``y' = scale (b - B m)``.

    With `sizes` (d,) unknowns are ``y = sizes z``, for z of sizes so different that ``B^T y`` would round some away.
    """

    B: Array
    b: Array
    scale: float
    sizes: Array | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, problem: Problem, start: Array, is_damped: bool) -> Reduced:
        # For other losses the negative slopes at a predictor of 0 replace the target.
        X, y = dense(problem), problem.y if isinstance(problem, Regression) else -problem.slopes(np.zeros(problem.n))
        largest = float(np.sqrt(problem.feature_variances.max())) or 1.0
        Q = None
        if problem.n > problem.d:
            # An orthogonal factor of X changes neither z nor g.
            Q, X = np.linalg.qr(X)
            y = Q.T @ y
        unit = np.sqrt(problem.n) * largest
        reduced = cls(np.ascontiguousarray(X) / unit, y / unit, largest**2)
        return (
            reduced
            if isinstance(problem, Regression)
            else ReducedLoss(**vars(reduced), problem=problem, Q=Q, start=start, is_damped=is_damped)
        )

    @property
    def count(self) -> int:
        """The number of unknowns."""
        return len(self.b) if self.sizes is None else len(self.sizes)

    def dual(self, y: Array) -> Array:
        """z at unknowns (..., N)."""
        return y @ self.B if self.sizes is None else y / self.sizes

    def moved(self, y: Array) -> Array:
        """The largest terms of which z is a sum."""
        return np.abs(y) @ np.abs(self.B) if self.sizes is None else np.abs(y) / self.sizes

    def unknowns(self, rows: Array) -> Array:
        """Rates of change of the unknowns, (N, ...), from those of the r rows, (r, ...)."""
        return rows if self.sizes is None else (self.sizes * (self.B.T @ rows).T).T

    def by_unknowns(self, by_dual: Array, active: Bools) -> Array:
        """Derivatives by the unknowns, (..., N), from those by z of the active coordinates."""
        if self.sizes is None:
            return by_dual @ self.B[:, active].T
        out = np.zeros((*by_dual.shape[:-1], len(active)))
        out[..., active] = by_dual / self.sizes[active]
        return out

    def rate(self, mean: Array) -> Array:
        """``dy/dt`` at a predictor."""
        return self.unknowns(self.scale * (self.b - self.B @ mean))

    def jacobian(self, mean: Array, slope: Array) -> Array:
        """Its derivative in y; slope = dm/dz."""
        active = slope > 0
        return self.by_unknowns(self.unknowns(-self.scale * self.B[:, active] * slope[active]), active)

    def check(self, mean: Array) -> str | None:
        """The reason why an accepted state is invalid, or None."""
        return None


@dataclass(frozen=True, eq=False)
class ReducedLoss(Reduced):
    """The same with any loss: ``y' = -scale Q^T (w loss'(f)) / unit``, ``f = X m = unit Q B m``."""

    problem: Problem
    Q: Array | None
    start: Array
    is_damped: bool

    @cached_property
    def unit(self) -> float:
        return float(np.sqrt(self.problem.n * self.scale))

    def projected(self, of_samples: Array) -> Array:
        """Rates of change of the unknowns from those of the n rows of X."""
        return self.unknowns(of_samples if self.Q is None else self.Q.T @ of_samples)

    def predict(self, mean: Array) -> Array:
        """``X m`` of predictors (..., d)."""
        inside = self.B @ mean.T
        return self.unit * (inside if self.Q is None else self.Q @ inside).T

    @cached_property
    def reach(self) -> tuple[Array, Array]:
        """Bounds on predictions along a flow; infinite unless the loss is exponential."""
        if self.problem.loss_function.safe_prediction > EXPONENTIAL:
            return np.array(-np.inf), np.array(np.inf)
        return level_set(self.problem, self.start, self.is_damped)

    def rate(self, mean: Array) -> Array:
        f = self.predict(mean)
        near = np.clip(f, *self.reach)
        slopes = self.problem.slopes(near)
        if (f != near).any():
            # Beyond them the loss is continued by a finite convex function, for predictors that overshoot.
            slopes = slopes + self.problem.curvatures(near) * (f - near)
        return -self.scale / self.unit * self.projected(slopes)

    def check(self, mean: Array) -> str | None:
        f = self.predict(mean)
        if (f != np.clip(f, *self.reach)).any():
            return "the loss grew beyond its value at the start; tighten `rtol`"
        return None

    def jacobian(self, mean: Array, slope: Array) -> Array:
        active = slope > 0
        B = self.B[:, active]
        rows = B if self.Q is None else self.Q @ B
        curvature = self.problem.curvatures(np.clip(self.predict(mean), *self.reach))
        weighted = curvature[:, None] * rows
        return self.by_unknowns(-self.scale * self.projected(weighted) * slope[active], active)


def level_set(problem: Problem, beta: Array, is_damped: bool) -> tuple[Array, Array]:
    """Bounds on each f_i, of the shape of y, along a flow from beta: where the loss is at most L(beta).

    For weights that decay at any rates lambda(t) the loss of a homogeneous formula of degree k stays below
    ``max(L(beta), L(0))``, as ``dL/dt <= -lambda k g^T beta <= lambda k (L(0) - L)``. A margin of 1 is added; bounds
    beyond +-1e150 are infinite.
    """
    least = problem.loss_function.infimum(problem.y)
    total = problem.n * float(problem.loss(beta))
    if is_damped:
        total = max(total, problem.n * float(problem.loss(np.zeros(beta.shape))))
    excess = (_RAISED if is_damped else 1.0) * (total - float(np.sum(problem._weighted(least))))
    with np.errstate(divide="ignore", over="ignore"):
        bound = least + excess / problem.entry_weights

        def is_inside(f: Array) -> Bools:
            return np.asarray(problem.loss_function.value(f, problem.y) <= bound)

        center, ends = problem.predict(beta), []
        for side in (-1.0, 1.0):
            inner, outer = center, center + side * _FURTHER
            while (far := is_inside(outer) & (np.abs(outer) < _FURTHEST)).any():
                inner, outer = (np.where(far, outer, inner), np.where(far, outer + _FURTHER * (outer - center), outer))
            for _ in range(_BISECTIONS):
                middle = (inner + outer) / 2
                inside = is_inside(middle)
                inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
            ends.append(np.where(np.abs(outer) < _FURTHEST, outer + side, side * np.inf))
    return ends[0], ends[1]
