"""Minimise a smooth convex function of ``A b`` on a cone, warm-started: each Newton step is a least-squares problem.

The counterpart of :class:`flowsim.solvers.active_set.ConeRegression` for functions other than squares.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from flowsim.solvers.active_set import Cone, ConeRegression, scaled_norm
from flowsim.solvers.array_kinds import Array

Key = TypeVar("Key", bound=Hashable)

_ITERATIONS = 200
_HALVINGS = 60
#: Sufficient decrease (Armijo); first and largest damping where a step fails or the curvature vanishes.
_DECREASE = 1e-4
_FIRST_DAMPING, _MOST_DAMPING = 1e-6, 1e12
#: Gradients of up to this many rounding errors are accepted where further steps no longer decrease them.
_STALLED = 1e4
_RECEDES = 1e-7
#: Above this ratio of the scaled residual to the data, the loss is nearly linear in some row.
_STRAIGHT = 1e4


@dataclass(frozen=True)
class RowwiseFunction:
    """``sum_i phi_i(f_i)``."""

    value: Callable[[Array], float]  #: callable f -> float
    #: callable f -> array (n,), first and second derivatives, row by row; the curvature is not negative
    slope: Callable[[Array], Array]
    curvature: Callable[[Array], Array]
    #: (n,), +1 (-1) where phi_i falls to an infimum as f_i goes to +inf (-inf), 0 where it has none at infinity, NaN
    #: where phi_i is constant
    flat: Array


class Recession(ArithmeticError, Generic[Key]):  # noqa: N818 - a property of the problem, not an error
    """The infimum on the cone is not attained: it is approached along a direction.

    Attributes
    ----------
    direction : dict key -> float
        Non-negative, with sum 1, of largest margin.
    margin : float
        The least ``flat_i (A v)_i`` along it; 0 where only some of the rows recede.
    """

    def __init__(self, direction: dict[Key, float], margin: float) -> None:
        super().__init__("the infimum is not attained")
        self.direction, self.margin = direction, margin


class ConeMinimiser(Cone[Key]):
    r"""``min sum_i phi_i((A b)_i) + c.b``, with the residual ``-phi'(A b)``.

    Raises Recession from `solve`, if the infimum is not attained.
    Raises ArithmeticError if rounding keeps the iteration from converging.
    """

    def __init__(self, n: int, column: Callable[[Key], Array], function: RowwiseFunction) -> None:
        self._columns: dict[Key, Array] = {}
        super().__init__(-function.slope(np.zeros(n)), self._columns.__getitem__)
        self.n, self._read, self.function, self.f = n, column, function, np.zeros(n)

    def solve(self, joining: Iterable[tuple[Key, float]]) -> None:
        for key, cost in joining:
            self._cost[key] = cost
            self._columns[key] = self._read(key)
            self.waiting.append(key)
        keys = self.members + self.waiting
        if not keys:
            return
        A = np.column_stack([self._columns[key] for key in keys])
        costs = np.array([self._cost[key] for key in keys])
        self._check_recession(keys, A, costs)
        b = self._minimise(keys, A, costs, np.append(self.b, np.zeros(len(self.waiting))))
        self.members = [key for key, value in zip(keys, b, strict=True) if value > 0]
        self.waiting = [key for key, value in zip(keys, b, strict=True) if not value > 0]
        self.b = b[b > 0]

    def noise(self, columns: Array, norms: Array, rates: Array) -> Array:
        spread = scaled_norm(self.function.curvature(self.f) * np.abs(self.f))
        return self._rounding * norms * (self._scale + spread)

    def dismiss(self, key: Key) -> None:
        super().dismiss(key)
        del self._columns[key]

    def dependent(self, waiting: list[Key]) -> bool:
        if not waiting:
            return False
        A = np.column_stack([self._columns[key] for key in [*self.members, *waiting]])
        norms = np.linalg.norm(A, axis=0)
        if not norms.all() or A.shape[1] > self.n:
            return True
        sizes = np.linalg.svd(A / norms, compute_uv=False)
        return bool(sizes.min() <= self.n * self._rounding)

    def _minimise(self, keys: list[Key], A: Array, costs: Array, b: Array) -> Array:
        norms = np.linalg.norm(A, axis=0)
        damping, least = 0.0, np.inf
        for _ in range(_ITERATIONS):
            violation = self._violation(A, costs, b, norms)
            if violation <= 1.0:
                return b
            step = self._newton(keys, A, costs, b, damping)
            taken = None if step is None else self._search(A, costs, b, *step)
            if taken is None:
                if violation <= _STALLED and not violation < least:
                    return b
                damping = max(10.0 * damping, _FIRST_DAMPING)
                if damping > _MOST_DAMPING:
                    break
            else:
                (b, f), damping = taken, damping / 100.0 if damping > _FIRST_DAMPING else 0.0
                self.f = f
                self._keep(-self.function.slope(f))
            least = min(least, violation)
        if self._violation(A, costs, b, norms) <= _STALLED:
            return b
        raise ArithmeticError("Newton's iteration does not converge")

    def _violation(self, A: Array, costs: Array, b: Array, norms: Array) -> float:
        """The largest violation of the optimality conditions, in units of its rounding bound."""
        gradient = costs - A.T @ self.residual
        noise = np.maximum(self.noise(A, norms, gradient), np.finfo(float).tiny)
        departure = np.where(b > 0, np.abs(gradient), np.maximum(-gradient, 0.0))
        return float((departure / noise).max())

    def _newton(self, keys: list[Key], A: Array, costs: Array, b: Array, damping: float) -> tuple[Array, Array] | None:
        """b and f of the minimiser of the quadratic model on the cone; None where it has none.

        f is from the model's orthogonal factor: for nearly dependent columns b is large, and A b lost to cancellation.
        """
        curvature = self.function.curvature(self.f)
        root = np.sqrt(curvature + damping * max(float(curvature.max()), self._scale / np.sqrt(self.n)))
        if not (root @ np.abs(A)).all():
            return None  # the loss is linear along a column, as robust losses are far from their targets
        place = {key: index for index, key in enumerate(keys)}
        # The loss at f + A (b' - b), to second order: half |root A b' - root f|^2 + gradient.b'; or with the residual
        # in the targets, as the gradient of nearly dependent columns is rounding; not where the loss is nearly linear.
        target, gradient = root * self.f, costs - A.T @ self.residual
        working = np.divide(self.residual, root, out=np.zeros(self.n), where=root > 0)
        if root.all() and scaled_norm(working) <= _STRAIGHT * (scaled_norm(target) + self._scale):
            target, gradient = target + working, costs
        model: ConeRegression[Key] = ConeRegression(target, lambda key: root * A[:, place[key]])
        try:
            with np.errstate(all="ignore"):
                model.solve(zip(keys, gradient.tolist(), strict=True))
        except ArithmeticError:
            return None
        if not np.isfinite(model.b).all():
            return None
        out = np.zeros(len(b))
        out[[place[key] for key in model.members]] = model.b
        # Either way the rounding error of a row is relative to these, over its root.
        by_factor = root * (np.abs(A) @ out) > scaled_norm(target)
        return out, np.where(by_factor, (target - model.residual) / np.where(by_factor, root, 1.0), A @ out)

    def _search(self, A: Array, costs: Array, b: Array, target: Array, f: Array) -> tuple[Array, Array] | None:
        """Backtracking to the first step of sufficient decrease; None where the decrease is below rounding."""
        step = target - b
        slope = float((costs - A.T @ self.residual) @ step)
        now = self.function.value(self.f) + float(costs @ b)
        weight = np.abs(self.residual) @ np.abs(A)
        share = 1.0
        for _ in range(_HALVINGS):
            b_new = target if share == 1.0 else np.maximum(b + share * step, 0.0)
            f_new = f if share == 1.0 else self.f + share * (f - self.f)
            value = self.function.value(f_new) + float(costs @ b_new)
            # With coefficients that nearly cancel, predictions have rounding errors of the size of their terms.
            terms = float(weight @ np.maximum(b, b_new))
            blur = 4 * np.finfo(float).eps * (self.n * (abs(now) + abs(float(costs @ b))) + terms)
            if value <= now + _DECREASE * share * slope + blur:
                return None if np.array_equal(b_new, b) else (b_new, f_new)
            share /= 2
        return None

    def _check_recession(self, keys: list[Key], A: Array, costs: Array) -> None:
        """Raise if along some direction of the cone no row increases and some rows decrease without end."""
        flat = self.function.flat
        rows, kept = np.abs(flat) > 0, flat == 0
        if not rows.any():
            return
        from scipy.optimize import linprog

        norms = np.linalg.norm(A, axis=0)
        free = np.flatnonzero((costs <= 0) & (norms > 0))
        if not len(free):
            return
        moved, held = flat[rows, None] * (A[rows][:, free] / norms[free]), A[kept][:, free] / norms[free]
        n, k = moved.shape
        # Maximise the number of receding rows: max sum e over v >= 0, 0 <= e <= 1, e <= moved v, held v = 0.
        found = linprog(
            np.append(np.zeros(k), -np.ones(n)),
            A_ub=np.hstack([-moved, np.eye(n)]),
            b_ub=np.zeros(n),
            A_eq=np.hstack([held, np.zeros((len(held), n))]) if len(held) else None,
            b_eq=np.zeros(len(held)) if len(held) else None,
            bounds=[(0, None)] * k + [(0, 1)] * n,
            method="highs",
        )
        if found.status != 0 or not -found.fun > _RECEDES:
            return
        best = self._largest_margin(moved, held, norms[free])
        v = found.x[:k] / norms[free] if best is None else best
        v = v / v.sum()
        margin = float((moved @ (v * norms[free])).min())
        raise Recession(
            {keys[int(place)]: float(value) for place, value in zip(free, v, strict=True) if value > 0},
            max(margin, 0.0) if best is not None else 0.0,
        )

    def _largest_margin(self, moved: Array, held: Array, norms: Array) -> Array | None:
        """v >= 0 of least sum with ``moved v >= 1``, ``held v = 0``; None where infeasible."""
        from scipy.optimize import linprog

        found = linprog(
            norms.max() / norms,
            A_ub=-moved,
            b_ub=-np.ones(len(moved)),
            A_eq=held if len(held) else None,
            b_eq=np.zeros(len(held)) if len(held) else None,
            method="highs",
        )
        return found.x / norms if found.status == 0 else None
