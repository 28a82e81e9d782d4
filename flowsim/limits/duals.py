r"""The next breakpoint: dense, sparse and screened duals.

``DenseDuals`` updates all duals by one product with X^T per jump. ``SparseDuals`` stores none: one pass over the
entries gives duals and gradients together. ``ScreenedDuals``, for many dense features, uses that

.. math:: s(t) = X^\top N(t), \qquad N(t) = \tfrac1n \int_0^t (y - X\beta) \, ds \in R^n,

is known for every coordinate to within ``|x_i| |N - N_0 - a r_0|`` from two products at an earlier time (the dual
``X^T N_0`` and ``X^T r_0`` of the residual). Only coordinates whose bound lies in that ball are computed. Its radius
is convex in time between two jumps, so it is enough to check it at the end of the wait.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Integers
from flowsim.limits.columns import Columns, SparseColumns, sweep
from flowsim.limits.dual_bounds import DualBounds
from flowsim.limits.hits import BUFFER, arrivals, next_hits, tabulate

Hits = tuple[float, Integers, Integers]

#: Number of features from which on dense problems are screened: below, a full product costs less.
SCREEN_FROM = 1000
#: Fraction of coordinates computed one by one above which all are computed together.
_CROWDED = 0.2
#: Fraction of coordinates, those nearest to a bound, that are computed from the outset.
_SEED = 0.01
_LEAST_SEED = 32
#: Margin between the ball and the bound, relative to the bound, which covers rounding of the prediction.
_MARGIN = 1e-9


def follow(
    columns: Columns | SparseColumns, bounds: DualBounds, costs: tuple[Array, Array], rounding: Array
) -> DenseDuals | SparseDuals | ScreenedDuals:
    """The cheapest class for these data; `costs` are penalties in the columns' units, `rounding` may change later."""
    bounds = replace(bounds, penalties=costs)
    if isinstance(columns, SparseColumns):
        return SparseDuals(columns, bounds, rounding)
    return (ScreenedDuals if columns.is_dense and columns.d >= SCREEN_FROM else DenseDuals)(columns, bounds, rounding)


class DenseDuals:
    """All duals, updated by one product with X^T per jump."""

    def __init__(self, columns: Columns | SparseColumns, bounds: DualBounds, rounding: Array) -> None:
        self.columns, self.rounding = columns, rounding
        self.tables = tuple(tabulate(side) for side in bounds.thresholds + bounds.penalties)
        # The dual at time t - elapsed, and the gradient since: the next pass over both updates the dual.
        self.s = np.zeros(columns.d)
        self.previous = np.zeros(columns.d)
        self.elapsed = 0.0
        self.g = self.previous
        self.products = 0
        self.seconds = 0.0

    def next(self, t: float, residual: Array, flags: NDArray[np.uint8], age: float) -> Hits:
        """The wait to the next breakpoint, its coordinates, and which bound each reaches."""
        self.g = self.gradient(residual)
        stands = flags, self.rounding
        found = next_hits(self.s, self.previous, self.elapsed, self.g, self.tables, stands, (float(t), float(age)))
        self.elapsed = 0.0  # the dual is up to date if this is called again
        return found

    def gradient(self, residual: Array) -> Array:
        """``-X^T residual / n``."""
        began = time.perf_counter()
        g = self.columns.transposed(residual * (-1.0 / self.columns.n))
        self.products += 1
        self.seconds += time.perf_counter() - began
        return g

    def advance(self, wait: float) -> None:
        """Advance the duals by the time of a wait."""
        self.previous, self.elapsed = self.g, wait

    def leave(self, i: int, bound: float) -> None:
        """Let coordinate i move inwards exactly from its bound; the next pass still subtracts the last wait."""
        self.s[i] = bound + self.elapsed * self.previous[i]


class SparseDuals:
    """Only N is stored: both products with X^T are computed in one pass, column by column."""

    def __init__(self, columns: SparseColumns, bounds: DualBounds, rounding: Array) -> None:
        self.columns, self.rounding = columns, rounding
        self.tables = tuple(tabulate(side) for side in bounds.thresholds + bounds.penalties)
        self.ends = columns.block_ends()
        self.N = np.zeros(columns.n)
        self.residual = self.N
        self.products = 0
        self.seconds = 0.0

    def next(self, t: float, residual: Array, flags: NDArray[np.uint8], age: float) -> Hits:
        """As :meth:`DenseDuals.next`; the seconds are those of the whole pass."""
        began = time.perf_counter()
        self.residual = residual
        data = self.columns
        pair = np.column_stack([self.N, residual * (-1.0 / data.n)])
        buffer, kept = np.empty(BUFFER, np.int64), np.empty((2, BUFFER))
        stands, times = (flags, self.rounding), (float(t), float(age))
        wait, count = sweep(
            data.place, data.rows, data.entries, self.ends, pair, self.tables, stands, times, (buffer, kept)
        )
        self.products += 2
        self.seconds += time.perf_counter() - began
        if count > BUFFER:
            both = np.stack([data.transposed(column) for column in pair.T])
            return arrivals(wait, np.arange(data.d), both, self.tables, stands, times)
        return arrivals(wait, buffer[:count], kept[:, :count], self.tables, stands, times)

    def advance(self, wait: float) -> None:
        """As :meth:`DenseDuals.advance`."""
        self.N = self.N + (wait / self.columns.n) * self.residual

    def leave(self, i: int, bound: float) -> None:
        """Nothing to do: duals are computed from N."""


class ScreenedDuals:
    """The duals of those coordinates that may reach a bound."""

    def __init__(self, columns: Columns, bounds: DualBounds, rounding: Array) -> None:
        self.problem, self.rounding = columns.problem, rounding
        problem = columns.problem
        self.sides = bounds.thresholds + bounds.penalties
        self.norms = columns.norms
        self.N = np.zeros(problem.n)
        self.residual = self.N
        self.products = 0
        self.seconds = 0.0
        self.columns_computed = 0
        self.near: Integers | None = None
        self._mask = np.zeros(problem.d, dtype=bool)
        self._rows = np.empty((0, problem.n))
        self._s = np.empty(0)
        self._g = np.empty(0)
        self._count = 0

    def next(self, t: float, residual: Array, flags: NDArray[np.uint8], age: float) -> Hits:
        """As :meth:`DenseDuals.next`."""
        self.residual = residual
        self._g = self._g[:0]
        times = float(t), float(age)
        found = None if self.near is None else self._near_only(self.near, flags, times)
        return self._all(flags, times) if found is None else found

    def advance(self, wait: float) -> None:
        """As :meth:`DenseDuals.advance`."""
        self.N = self.N + (wait / self.problem.n) * self.residual
        self._s[: len(self._g)] -= wait * self._g
        rest = slice(len(self._g), self._count)  # included, but without a gradient yet
        self._s[rest] = self._rows[rest] @ self.N
        self._g = self._g[:0]

    def leave(self, i: int, bound: float) -> None:
        """Compute the dual of coordinate i from now on, since it may return to its bound."""
        if self.near is not None and not self._mask[i]:
            self._include(np.array([i]))

    def _all(self, flags: NDArray[np.uint8], times: tuple[float, float]) -> Hits:
        began = time.perf_counter()
        both = self.problem.X.T @ np.column_stack([self.N, self.residual])
        self.seconds += time.perf_counter() - began
        self.products += 2
        self.s0, self.slope0 = np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])
        self.N0, self.r0 = self.N, self.residual
        found = self._hits(self.s0, self.slope0 / -self.problem.n, slice(None), flags, times)
        self._seed(times[0])
        return found

    def _near_only(self, near: Integers, flags: NDArray[np.uint8], times: tuple[float, float]) -> Hits | None:
        """The next breakpoint, if the ball determines it; None if all duals must be computed."""
        began = time.perf_counter()
        s = self._s[: self._count]
        fresh = self._rows[len(self._g) : self._count]
        g = self._g = np.append(self._g, fresh @ (self.residual * (-1.0 / self.problem.n)))
        self.columns_computed += len(fresh)
        self.seconds += time.perf_counter() - began
        wait, found, signs = self._hits(s, g, near, flags, times)
        if math.isinf(wait):
            return None
        more = self._reachable(times[0] + wait, self.N + (wait / self.problem.n) * self.residual, flags)
        if len(near) + len(more) > _CROWDED * self.problem.d:
            return None
        if len(more):
            return self._near_only(self._include(more), flags, times)
        return wait, found, signs

    def _hits(
        self, s: Array, g: Array, chosen: Integers | slice, flags: NDArray[np.uint8], times: tuple[float, float]
    ) -> Hits:
        bounds = tuple(tabulate(side[chosen]) for side in self.sides)
        stands = np.ascontiguousarray(flags[chosen]), np.ascontiguousarray(self.rounding[chosen])
        wait, found, signs = next_hits(s, np.zeros(len(s)), 0.0, g, bounds, stands, times)
        return wait, found if isinstance(chosen, slice) else chosen[found], signs

    def _reachable(self, t: float, N: Array, flags: NDArray[np.uint8]) -> Integers:
        """Coordinates not computed yet whose ball around the prediction meets a bound by time t."""
        shift = N - self.N0
        square = float(self.r0 @ self.r0)
        along = float(shift @ self.r0) / square if square > 0 else 0.0
        radius = self.norms * float(np.linalg.norm(shift - along * self.r0))
        predicted = self.s0 + along * self.slope0
        upper, lower, up_cost, low_cost = self.sides
        near = (predicted + radius >= (upper + up_cost * t) * (1 - _MARGIN)) | (
            predicted - radius <= -(lower + low_cost * t) * (1 - _MARGIN)
        )
        return np.flatnonzero(near & ~self._mask & (flags == 0))

    def _seed(self, t: float) -> None:
        """Restart with the coordinates that would arrive first at the present rates."""
        self._mask[:] = False
        self._count = 0
        self._g = self._g[:0]
        self.near = np.empty(0, np.int64)
        upper, lower, up_cost, low_cost = self.sides
        rise = self.slope0 / self.problem.n
        with np.errstate(divide="ignore", invalid="ignore"):
            waits = np.minimum(
                np.where(rise > up_cost, (upper + up_cost * t - self.s0) / (rise - up_cost), np.inf),
                np.where(-rise > low_cost, (lower + low_cost * t + self.s0) / (-rise - low_cost), np.inf),
            )
        size = min(max(int(_SEED * self.problem.d), _LEAST_SEED), self.problem.d)
        self._include(np.sort(np.argpartition(waits, size - 1)[:size]))

    def _include(self, coordinates: Integers) -> Integers:
        """Compute the duals of further coordinates; returns all that are computed now."""
        assert self.near is not None
        needed = self._count + len(coordinates)
        if needed > len(self._rows):
            rows = np.empty((max(needed, 2 * len(self._rows)), self.problem.n))
            rows[: self._count] = self._rows[: self._count]
            self._rows = rows
            self._s = np.append(self._s, np.empty(len(rows) - len(self._s)))
        self._rows[self._count : needed] = self.problem.X[:, coordinates].T
        self._s[self._count : needed] = self._rows[self._count : needed] @ self.N
        self._count = needed
        self._mask[coordinates] = True
        self.near = np.append(self.near, coordinates)
        return self.near
