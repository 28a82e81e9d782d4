"""The saddle-to-saddle process of diagonal networks: breakpoints of the dual, and minimisers on cones in between."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flowsim.arrays import Array, Integers, is_uniform
from flowsim.errors import IntegrationError
from flowsim.limits.columns import Columns, SparseColumns
from flowsim.limits.convex import Escape, cone_minimiser
from flowsim.limits.dual_bounds import DualBounds
from flowsim.limits.duals import follow
from flowsim.limits.path import SaddlePath
from flowsim.limits.selection import NEGLIGIBLE, check_reach, selected
from flowsim.limits.start_state import StartState
from flowsim.limits.units import LATEST, in_units, stopped_by_time
from flowsim.problem import Problem, Regression

if TYPE_CHECKING:
    from flowsim.solvers.active_set import Cone
    from flowsim.solvers.cone_newton import Recession

Key = tuple[int, int]  # (coordinate, sign)

#: Rounding error of the dual, relative to the thresholds, from which on the message mentions it.
_UNCERTAIN = 1e-6
#: Factor by which the residual decreases before the rounding bound of the rates is updated, at a pass over all columns.
_FINER = 4.0


class DiagonalProcess:
    """State of one run: time, dual, active bounds, and the constrained minimisation problem."""

    def __init__(self, problem: Problem, bounds: DualBounds, state: StartState | None) -> None:
        from flowsim.solvers.active_set import ConeRegression, relative_rounding

        self.began = time.perf_counter()
        self.problem, self.state, self.all_bounds = problem, state, bounds
        y, n = problem.y, problem.n
        if np.any(bounds.offset) and isinstance(problem, Regression):
            y = y - problem.predict(np.broadcast_to(bounds.offset, (problem.d,)))
        data, y, self.units = in_units(problem, y)
        # From here on coordinates are indices among the columns that are read: without the empty ones of sparse data.
        is_sparse = hasattr(data.X, "tocsr")
        self.columns = SparseColumns.of(data.X, _standing(bounds)[0]) if is_sparse else Columns(data)
        self.bounds = bounds.of(self.columns.which) if isinstance(self.columns, SparseColumns) else bounds
        plus, minus = self.bounds.penalties
        self.costs = self.units.cost(plus), self.units.cost(minus)
        self.cone: Cone[Key] = (
            ConeRegression(y, self._signed_column)
            if isinstance(problem, Regression)
            else cone_minimiser(data, self._signed_column)
        )
        # Rates up to `rounding` are rounding of x_i . r / n. It is for a residual of norm `rounded_at`, and higher for
        # coordinates that turned out not to move since then (`has_raised`).
        self.size = self.cone.size
        self.rounding_per_residual = relative_rounding(n) * self.columns.norms / n
        self.rounding = self.rounding_per_residual * self.size
        self.rounded_at, self.has_raised = self.size, False
        vanished = self.size > 0 and (self.rounding == 0).any()
        if not np.isfinite(self.rounding).all() or (vanished and self.columns.underflow(self.rounding == 0)):
            raise ValueError(
                "`problem` has columns of X whose squares, relative to those of its largest entry, leave the range of "
                "floats."
            )
        self.t = 0.0
        # |r| integrated over the plateaus so far: the rounding error of the duals, up to a factor of each column.
        self.spread = 0.0
        # Of every coordinate: 1 where it stands at its upper bound, 2 at the lower, 3 at both.
        self.flags = np.zeros(self.columns.d, dtype=np.uint8)
        self.duals = follow(self.columns, self.bounds, self.costs, self.rounding)
        self.dual_rounding = 0.0  # the largest at a breakpoint so far, relative to the thresholds
        self.times: list[float] = []
        self.hits: list[Integers] = []
        self.supports: list[Integers] = []
        self.values: list[Array] = []

    def run(self, max_jumps: int | None, t_end: float, progress: bool) -> SaddlePath:
        from tqdm import tqdm

        from flowsim.solvers.cone_newton import Recession

        horizon, complete, message = math.inf, True, "reached the minimiser to rounding"
        reaching = np.empty(0, np.int64)
        with tqdm(total=max_jumps, desc="saddles", unit="jump", disable=not progress) as bar:
            try:
                self._resolve_directions(*_standing(self.bounds))
                while True:
                    wait, found, signs = self._next()
                    after = self.units.time(self.t + wait)
                    if math.isinf(wait):
                        break
                    if not after < t_end:
                        horizon, complete, message = min(t_end, LATEST), False, stopped_by_time(t_end)
                        break
                    if max_jumps is not None and len(self.times) >= max_jumps:
                        horizon, complete, message = after, False, f"stopped after max_jumps={max_jumps}"
                        break
                    self.t += wait
                    self.spread += wait * self.cone.size
                    self.duals.advance(wait)
                    reaching = found
                    self._resolve_directions(found, signs)
                    self.times.append(after)
                    self.hits.append(np.sort(found))
                    bar.update()
            except Recession as end:
                return self._escaped(end, reaching)
            except IntegrationError as error:
                if self.supports:
                    reached = self.units.time(self.t)
                    known = len(self.times) + 1
                    self.supports, self.values = self.supports[:known], self.values[:known]
                    error.path = self._path(reached, False, f"stopped at t={reached:.6g}, where the process failed")
                raise
        return self._path(horizon, complete, message)

    def _escaped(self, end: Recession[Key], hits: Integers) -> SaddlePath:
        """The path up to the escape."""
        now, direction = self.units.time(self.t), np.zeros(self.problem.d)
        for (i, sign), share in end.direction.items():
            direction[self.columns.number(np.array([i]))] += sign * share
        if not self.supports:
            self.supports, self.values = [np.empty(0, np.int64)], [np.empty(0)]
        margin = math.ldexp(end.margin, self.units.p)
        message = f"beta escapes to infinity at t={now:.6g}, along `escape.direction` with margin {margin:.6g}"
        escape = Escape(now, self.columns.number(np.sort(hits)), direction, margin)
        return replace(self._path(now, False, message), escape=escape)

    def _path(self, horizon: float, complete: bool, message: str) -> SaddlePath:
        bounds = self.all_bounds
        if self.dual_rounding > _UNCERTAIN:
            remedy = ", exact=True resolves them" if isinstance(self.problem, Regression) else ""
            message += f"; late jumps are uncertain (rounding error of the dual {self.dual_rounding:.0e}){remedy}"
        return SaddlePath(
            problem=self.problem,
            jump_times=np.array(self.times),
            supports=tuple(self.columns.number(support) for support in self.supports),
            values=tuple(self.values),
            hits=tuple(self.columns.number(hit) for hit in self.hits),
            horizon=horizon,
            complete=complete,
            message=message,
            start_beta=None if self.state is None else self.state.beta,
            stats={
                "jumps": len(self.times),
                "gradients": self.duals.products,
                "columns": getattr(self.duals, "columns_computed", 0),
                "seconds": time.perf_counter() - self.began,
                "product_seconds": self.duals.seconds,
                "dual_rounding": self.dual_rounding,
            },
            **bounds.of_path(),
        )

    def _next(self) -> tuple[float, Integers, Integers]:
        """The next breakpoint, excluding coordinates whose rate is rounding of y."""
        size = self.cone.size
        if size == 0.0:
            return math.inf, np.empty(0, np.int64), np.empty(0, np.int64)
        level = min(2.0 ** math.ceil(math.log2(size)), self.size)
        if not level * _FINER >= self.rounded_at or self.has_raised:
            np.multiply(self.rounding_per_residual, level, out=self.rounding)
            self.rounded_at, self.has_raised = level, False
        while True:
            wait, found, signs = self.duals.next(self.t, self.cone.residual, self.flags, self.spread / self.rounded_at)
            if math.isinf(wait):
                return wait, found, signs
            rates, noise = self._rates(found, signs)
            unsure = rates <= noise
            error = noise * wait + self.rounding_per_residual[found] * self.spread
            if not unsure.any():
                thresholds = np.concatenate([side[found] for side in self.bounds.thresholds])
                least = float(thresholds[(thresholds > 0) & np.isfinite(thresholds)].min(initial=np.inf))
                self.dual_rounding = max(self.dual_rounding, float(error.max()) / least)
                return wait, found, signs
            self.rounding[found[unsure]] = noise[unsure]
            self.has_raised = True

    def _rates(self, found: Integers, signs: Integers) -> tuple[Array, Array]:
        """The rates at which coordinates approach their bounds, and their rounding errors."""
        n = self.columns.n
        columns = np.column_stack([self.columns.column(i) for i in found.tolist()])
        cost = np.where(signs > 0, self.costs[0][found], self.costs[1][found])
        rates = signs * (columns.T @ self.cone.residual) - n * cost
        return rates / n, self.cone.noise(columns, self.columns.norms[found], rates) / n

    def _resolve_directions(self, coordinates: Integers, signs: Integers) -> None:
        self._move(coordinates, signs)
        support, values = self._support()
        self.supports.append(support)
        self.values.append(values)

    def _move(self, coordinates: Integers, signs: Integers) -> None:
        """Activate the bounds reached, solve, and deactivate those whose multiplier has the wrong sign."""
        from flowsim.solvers.cone_newton import Recession

        joining: list[tuple[Key, float]] = []
        for i, sign in zip(coordinates.tolist(), signs.tolist(), strict=True):
            joining.append(((i, sign), self.columns.n * float(self.costs[0 if sign > 0 else 1][i])))
            self.flags[i] |= 1 if sign > 0 else 2
        try:
            self.cone.solve(joining)
        except Recession:
            raise
        except ArithmeticError as error:
            raise IntegrationError(
                f"the saddle at accelerated time {self.units.time(self.t):.6g} cannot be found: {error}."
            ) from error
        for key in list(self.cone.waiting):
            if self.cone.excess(key) < -1.0:
                self.cone.dismiss(key)
                i, sign = key
                self.flags[i] &= 2 if sign > 0 else 1
                side = 0 if sign > 0 else 1
                bound = self.bounds.thresholds[side][i] + self.costs[side][i] * self.t
                self.duals.leave(i, sign * bound)

    def _support(self) -> tuple[Integers, Array]:
        inside = {i for i, _ in self.cone.members}
        waiting = list({i: (i, sign) for i, sign in self.cone.waiting if i not in inside}.values())
        keys = list(self.cone.members)
        values = self.units.beta(self.cone.b * np.array([float(sign) for _, sign in keys]))
        coordinates = np.array([i for i, _ in keys], dtype=np.int64)
        if self.cone.dependent(waiting):
            coordinates = np.append(coordinates, np.array([i for i, _ in waiting], dtype=np.int64))
            values = np.append(values, np.zeros(len(waiting)))
            columns = np.column_stack([self.columns.column(i) for i in coordinates.tolist()])
            values = selected(
                columns, values, coordinates, self.flags[coordinates], self.bounds, self.units.time(self.t)
            )
            keep = np.abs(values) > NEGLIGIBLE * np.abs(values).max(initial=0.0)
            coordinates, values = coordinates[keep], values[keep]
        check_reach(self.bounds, coordinates, values, self.units.time(self.t))
        order = np.argsort(coordinates)
        return coordinates[order], values[order]

    def _signed_column(self, key: Key) -> Array:
        i, sign = key
        column = self.columns.column(i)
        return column if sign > 0 else -column


def _standing(bounds: DualBounds) -> tuple[Integers, Integers]:
    """Coordinates whose dual starts at a bound, and the sign of that bound."""
    up, low = (
        np.empty(0, np.int64) if is_uniform(bound) and bound[0] != 0 else np.flatnonzero(bound == 0)
        for bound in bounds.thresholds
    )
    return np.concatenate([up, low]), np.concatenate([np.ones_like(up), -np.ones_like(low)])
