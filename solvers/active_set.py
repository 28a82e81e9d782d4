"""Least squares on a cone, warm-started: the linear algebra of an active set.

``ColumnFactor`` keeps ``A = Q R`` (R is the Cholesky factor of A^T A) while columns of A come and go.
``ConeRegression`` minimises on top of it. Neither knows where its columns come from.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import numpy as np
from scipy.linalg import lapack, qr_delete

from flowsim.solvers.array_kinds import Array

Key = TypeVar("Key", bound=Hashable)

#: The rounding error of an inner product of n terms is below this many ulps times sqrt(n); generous, since the terms
#: are results of such products themselves.
_ULPS = 32.0
_FIRST_CAPACITY = 16


def relative_rounding(n: int) -> float:
    """Size of ``a.b / (|a| |b|)`` in R^n below which it cannot be told from rounding."""
    return _ULPS * float(np.finfo(float).eps) * math.sqrt(n)


def scaled_norm(vector: Array) -> float:
    """The Euclidean norm, without overflow or underflow of the squares."""
    size = float(np.abs(vector).max(initial=0.0))
    return size * float(np.linalg.norm(vector / size)) if size > 0 else 0.0


class ColumnFactor:
    """``A = Q R`` with orthonormal Q (n, k) and upper triangular R (k, k).

    Columns are appended by Gram-Schmidt done twice and removed by Givens rotations: O(nk) each.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.k = 0
        # Transposes, in C order: a column of Q or R is a contiguous row.
        self._qt = np.empty((_FIRST_CAPACITY, n))
        self._rt = np.zeros((_FIRST_CAPACITY, _FIRST_CAPACITY))

    @property
    def Q(self) -> Array:
        return self._qt[: self.k].T

    @property
    def R(self) -> Array:
        return self._rt[: self.k, : self.k].T

    def append(self, column: Array, tolerance: float) -> bool:
        """Append a column and return True, unless its distance to the span is at most `tolerance` times its norm."""
        norm = float(np.linalg.norm(column))
        if self.k == self.n or norm == 0.0:
            return False
        coefficients = self.Q.T @ column
        rest = column - self.Q @ coefficients
        again = self.Q.T @ rest
        rest -= self.Q @ again
        length = float(np.linalg.norm(rest))
        if not length > tolerance * norm:
            return False
        if self.k == len(self._qt):
            self._grow()
        self._qt[self.k] = rest / length
        if length < 1e-3 * norm:  # a short remainder has lost digits of its orthogonality
            fresh = self._qt[self.k]
            fresh -= self.Q @ (self.Q.T @ fresh)
            fresh /= np.linalg.norm(fresh)
        self._rt[self.k, : self.k] = coefficients + again
        self._rt[self.k, self.k] = length
        self.k += 1
        return True

    def remove(self, position: int) -> None:
        """Remove the column at a position; later columns move up."""
        self.k -= 1
        if self.k:
            Q, R = self._qt[: self.k + 1].T, self._rt[: self.k + 1, : self.k + 1].T
            Q, R = qr_delete(Q, R.copy("F"), position, which="col", overwrite_qr=True, check_finite=False)
            self._qt[: self.k], self._rt[: self.k, : self.k] = Q.T[: self.k], R.T[:, : self.k]

    def outside(self, vector: Array) -> Array:
        """The component of a vector orthogonal to all columns."""
        rest = vector - self.Q @ (self.Q.T @ vector)
        return rest - self.Q @ (self.Q.T @ rest)

    def solve(self, vector: Array) -> Array:
        """``R^-1 vector``."""
        return self._solve(vector, 0)

    def solve_transposed(self, vector: Array) -> Array:
        """``R^-T vector``."""
        return self._solve(vector, 1)

    def _solve(self, vector: Array, transposed: int) -> Array:
        if self.k == 0:
            return np.empty(0)
        found, zero = lapack.dtrtrs(self._rt[: self.k].T, vector, trans=transposed)
        if zero:
            raise ZeroDivisionError(f"R is singular: its diagonal is 0 at {zero - 1}.")
        return np.asarray(found)

    def _grow(self) -> None:
        capacity = min(2 * len(self._qt), self.n)
        qt, rt = np.empty((capacity, self.n)), np.zeros((capacity, capacity))
        qt[: self.k] = self._qt[: self.k]
        rt[: self.k, : self.k] = self._rt[: self.k, : self.k]
        self._qt, self._rt = qt, rt


class Cone(ABC, Generic[Key]):
    """Minimisation of a convex function of ``A b``, plus c.b, over b >= 0; columns of A are added from time to time.

    After a solve `members` have the coefficients b > 0 and `waiting` have b = 0; `residual` is minus the derivative by
    ``A b``, and `size` its norm. `column` maps a key to its column, an array (n,) of its own.
    """

    def __init__(self, residual: Array, column: Callable[[Key], Array]) -> None:
        self._column = column
        self._rounding = relative_rounding(len(residual))
        self.members: list[Key] = []
        self.waiting: list[Key] = []
        self.b = np.zeros(0)
        self.residual = residual
        self.size = self._scale = scaled_norm(residual)
        self._cost: dict[Key, float] = {}

    @abstractmethod
    def solve(self, joining: Iterable[tuple[Key, float]]) -> None:
        """Add columns to the cone, each with its cost, and move to the new minimiser."""

    @abstractmethod
    def noise(self, columns: Array, norms: Array, rates: Array) -> Array:
        """A bound on the rounding error of the rate ``a.residual - c`` of each of some columns (n, m)."""

    @abstractmethod
    def dependent(self, waiting: list[Key]) -> bool:
        """Whether these waiting columns depend on each other or on the members: then b may not be unique."""

    def excess(self, key: Key) -> float:
        """Rate ``a.residual - c`` of a waiting column relative to rounding; <= 1 at the minimiser."""
        column = self._column(key)
        rate = float(column @ self.residual) - self._cost[key]
        size = float(self.noise(column[:, None], np.array([np.linalg.norm(column)]), np.array([rate]))[0])
        return rate / size if size > 0 else 0.0

    def dismiss(self, key: Key) -> None:
        """Remove a waiting column from the cone."""
        self.waiting.remove(key)

    def _keep(self, residual: Array) -> None:
        """Set the residual; to 0 where it is rounding of that at b = 0."""
        self.residual, self.size = residual, scaled_norm(residual)
        if self.size <= self._rounding * self._scale:
            self.residual, self.size = np.zeros_like(residual), 0.0


class ConeRegression(Cone[Key]):
    r"""``min 1/2 ||A b - y||^2 + c.b``, with the residual ``y - A b``.

    A solve starts from the last solution (Lawson-Hanson): a violated column enters, the step to the new
    least-squares solution is cut where a coefficient reaches zero, that column becomes inactive, and so on.
    The objective decreases at every step, so the method terminates.
    """

    def __init__(self, y: Array, column: Callable[[Key], Array]) -> None:
        super().__init__(y.copy(), column)
        self.y = y
        self._factor = ColumnFactor(len(y))
        # Of every key of the cone the norm of its column; and costs and norms of the members, in order.
        self._norm: dict[Key, float] = {}
        self._costs = np.zeros(0)
        self._norms = np.zeros(0)

    def solve(self, joining: Iterable[tuple[Key, float]]) -> None:
        for key, cost in joining:
            self._cost[key] = cost
            self.waiting.append(key)
        keys = list(self.waiting)
        columns = np.empty((len(self.y), len(keys)), order="F")
        for place, key in enumerate(keys):
            columns[:, place] = self._column(key)
            self._norm[key] = float(np.linalg.norm(columns[:, place]))
        inside = np.zeros(len(keys), dtype=bool)
        refused = np.zeros(len(keys), dtype=bool)
        costs = np.array([self._cost[key] for key in keys])
        norms = np.array([self._norm[key] for key in keys])
        budget = 10 * (len(keys) + len(self.members)) + 100
        for _ in range(budget):
            if inside.all():
                break
            excess = columns.T @ self.residual - costs
            excess[inside | refused | (excess <= self.noise(columns, norms, excess))] = -np.inf
            if np.all(excess == -np.inf):
                break
            # Steepest descent over normalised columns: the choice does not depend on their scale or order.
            with np.errstate(invalid="ignore"):
                place = int(np.argmax(excess / norms))
            key = keys[place]
            dropped = self._enter(key, columns[:, place])
            inside[place] = True
            for other in dropped:
                if other == key:
                    refused[place] = True  # its coefficient is zero up to rounding
                if other in keys:
                    inside[keys.index(other)] = False
                else:
                    keys.append(other)
                    columns = np.column_stack([columns, self._column(other)])
                    inside, refused = np.append(inside, False), np.append(refused, False)
                    costs, norms = np.append(costs, self._cost[other]), np.append(norms, self._norm[other])
        else:
            raise ArithmeticError(f"the active set still changes after {budget} steps")
        self.waiting = [key for key, is_in in zip(keys, inside, strict=True) if not is_in]

    def noise(self, columns: Array, norms: Array, rates: Array) -> Array:
        r"""A bound on the rounding error of ``a.r - c`` for each of some columns (n, m).

        .. math:: u \, ( |a| |r| + |a_\perp| |y| ),

        a_perp the part of a column orthogonal to the members: r is orthogonal to them to rounding relative to |r|, and
        has errors of size u |y| elsewhere. Columns nearly dependent on the members can have significant rates far below
        ``u |a| |y|``. The projection is computed only where it decides.
        """
        least = self._rounding * norms * self.size
        out = least + self._rounding * norms * self._scale
        unsure = np.flatnonzero((np.abs(rates) > least) & (np.abs(rates) <= out))
        if unsure.size:
            rest = columns[:, unsure] - self._factor.Q @ (self._factor.Q.T @ columns[:, unsure])
            rest -= self._factor.Q @ (self._factor.Q.T @ rest)
            out[unsure] = least[unsure] + self._rounding * self._scale * np.linalg.norm(rest, axis=0)
        return out

    def dependent(self, waiting: list[Key]) -> bool:
        if not waiting:
            return False
        extra = np.column_stack([self._column(key) for key in waiting])
        norms = np.linalg.norm(extra, axis=0)
        if not norms.all():
            return True
        extra /= norms
        rest = extra - self._factor.Q @ (self._factor.Q.T @ extra)
        rest -= self._factor.Q @ (self._factor.Q.T @ rest)
        sizes = np.linalg.svd(rest, compute_uv=False)
        return len(sizes) < extra.shape[1] or sizes.min() <= len(self.y) * self._rounding

    def _enter(self, key: Key, column: Array) -> list[Key]:
        """Activate a violated column and descend; returns the keys that became inactive on the way."""
        dropped: list[Key] = []
        height = 0.0
        # Half the rounding bound of the excess: without costs no violated column can count as dependent.
        while not self._factor.append(column, 0.5 * self._rounding):
            # Dependent: A b is unchanged and the cost falls along b_key += s, b -= s h, until one b is zero.
            h = self._factor.solve(self._factor.Q.T @ column)
            falling = h > self._rounding * np.abs(h).max(initial=0.0)
            if not falling.any():
                raise ArithmeticError("the objective has no minimum: a column is not bounded by its cost")
            ratios = np.full(len(h), np.inf)
            ratios[falling] = self.b[falling] / h[falling]
            first = int(np.argmin(ratios))
            self.b -= ratios[first] * h
            height += float(ratios[first])
            dropped.append(self._drop(first))
        self.members.append(key)
        self.b = np.append(self.b, height)
        self._costs = np.append(self._costs, self._cost[key])
        self._norms = np.append(self._norms, self._norm[key])
        return dropped + self._descend()

    def _descend(self) -> list[Key]:
        dropped: list[Key] = []
        while True:
            pull = self._factor.solve_transposed(self._costs)
            inner = self._factor.Q.T @ self.y
            target = self._factor.solve(inner - pull)
            zero = self._rounding * self._scale / self._norms
            low = target <= zero
            if not low.any():
                self.b = target
                self._keep(self._factor.outside(self.y) + self._factor.Q @ pull)
                return dropped
            gap = self.b - target
            with np.errstate(divide="ignore", invalid="ignore"):
                steps = np.where(low, np.where(gap > 0, np.clip(self.b / gap, 0.0, 1.0), 0.0), np.inf)
            step = float(steps.min())
            self.b += step * (target - self.b)
            stopping = np.flatnonzero(steps == step)
            for position in stopping[::-1]:
                dropped.append(self._drop(int(position)))

    def _drop(self, position: int) -> Key:
        self._factor.remove(position)
        self.b = np.delete(self.b, position)
        self._costs = np.delete(self._costs, position)
        self._norms = np.delete(self._norms, position)
        return self.members.pop(position)
