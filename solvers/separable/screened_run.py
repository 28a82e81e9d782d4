"""Integration with many coordinates: active and next ones are loaded, and all others are bounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.multistep.constants import TIME
from flowsim.solvers.separable.base import LOAD_ALL
from flowsim.solvers.separable.distance_steps import address_of
from flowsim.solvers.separable.multistep_run import FromNodes, Layout
from flowsim.solvers.separable.row_factor import with_rows
from flowsim.solvers.separable.solution import NodeSteps

#: Least number of coordinates that are loaded beyond the active ones.
_LOAD_AHEAD = 128
#: Columns processed at once in a pass over A.
_COLUMNS = 1 << 14
#: A coordinate is active once its effect on log weights over a step exceeds this part of the tolerance.
_NEGLIGIBLE = 0.05


class ScreenedRun(FromNodes):
    r"""A run of some coordinates, and of the rows of A as coordinates without exponentials.

    With A of the loaded coordinates extended by n I, the loop integrates both; z of the rows is nu, whose
    history gives that of any coordinate loaded later: :math:`z_j = A_j^\top \nu / n`, and likewise f and f'.
    """

    #: of one load, which a few steps follow
    records = 128
    numbers = np.zeros(0)

    def begin(self) -> None:
        from flowsim.solvers.multistep.screening import address

        self.screen = address()
        self.filled, self.index = self.flow.filled
        #: a coordinate's reach is this times the norm of its column
        self.most = float(self.filled.norms.max()) / self.filled.n
        self.loaded = np.zeros(0, dtype=np.int64)
        self._load(np.zeros(self.flow.rows), self._rate_at_start())

    def refresh(self) -> None:
        """Load the coordinates that are active or next at the present nu, with their history."""
        past = self._past()
        w = len(self.loaded)
        self._load(past["z"][0, w:], past["f"][0, w:], past)

    def steps(self, t: Array, h: Array, order: Array, nodes: Array) -> Any:
        loaded = self.loaded if self.index is None else self.index[self.loaded]
        return NodeSteps(t, h, order, nodes, self.exponential, loaded=loaded)

    def _rate_at_start(self) -> Array:
        """``b - A beta``."""
        flow = self.filled
        beta = np.empty(flow.d)
        for part in self._blocks():
            beta[part] = np.sum(flow.sign[:, part] * np.exp(flow.log_coefficient[:, part]), axis=0)
        self.passes += 1
        return np.asarray(flow.b - np.asarray(flow.A @ beta))

    def _blocks(self) -> list[slice]:
        """Slices of columns, so that temporaries are small."""
        return [slice(first, min(first + _COLUMNS, self.filled.d)) for first in range(0, self.filled.d, _COLUMNS)]

    def _load(self, nu: Array, rate: Array, past: dict[str, Array] | None = None) -> None:
        """Pass over A: compute z and z' of every coordinate, and load those that are active or next."""
        flow, t = self.filled, float(self.clock[TIME])
        both = np.asarray(flow.A.T @ np.stack([nu, rate], axis=1))
        both /= flow.n
        self.passes += 1
        if past is not None:
            both[self.loaded, 0] = past["z"][0, : len(self.loaded)]
        level = np.maximum(self.filled.norms * self.most, 1e-300)
        np.log(level, out=level)
        np.subtract(math.log(_NEGLIGIBLE * self.tol), level, out=level)
        index = self._chosen(both, level, t)
        self._lay_out(index)
        if past is not None:
            self._continue(index, both[index, 0], past)
        self.loaded = index
        self._watch(both, level, nu, rate, t)

    def _chosen(self, both: Array, level: Array, t: float) -> NDArray[np.int64]:
        """The coordinates that become active within the rest of the run, and the next ones."""
        flow, left = self.filled, max(self.t_end - float(self.clock[TIME]), np.finfo(np.float64).tiny)
        wait, count = np.empty(flow.d), 0
        for part in self._blocks():
            exponent = flow.log_coefficient[:, part] + flow.slope[:, part] * both[part, 0] - flow.decay[:, part] * t
            growth = flow.slope[:, part] * both[part, 1] - flow.decay[:, part]
            goal = level[part] - math.log(left)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                until = np.where(growth > 0, (goal - exponent) / growth, np.inf)
            # Not growing: after all active coordinates, before all that never activate.
            until = np.where(np.isnan(until), np.inf, np.maximum(until, 0.0)).min(axis=0)
            active = (exponent > goal).any(axis=0)
            until[active] = -1.0
            wait[part] = until
            count += int(active.sum())
        wanted = count + max(_LOAD_AHEAD, count)
        if wanted >= flow.d:
            return np.arange(flow.d)
        return np.sort(np.argpartition(wait, wanted)[:wanted])

    def _lay_out(self, index: NDArray[np.int64]) -> None:
        """Set up a workspace of these coordinates and the rows."""
        from flowsim.solvers.multistep.workspace import Scales

        flow, w, r = self.filled, len(index), self.flow.rows
        self.columns = flow.columns(index)
        A = np.hstack([self.columns.T, flow.n * np.eye(r)])
        self.exponential = with_rows(tuple(part[:, index] for part in flow.exponential), r)
        reach, gram = np.append(flow.norms[index] * self.most, np.ones(r)), None
        if w <= max(LOAD_ALL, 2 * r):
            gram = np.hstack([self.columns @ self.columns.T, flow.n * self.columns])
        self.work = Layout(A, flow.b, flow.n, self.exponential, reach=reach, gram=gram).workspace(self.tol)
        self.width = w + r
        self.work.floats(Scales, "gain", w + r)[w:] = 0.5 * float(np.abs(flow.slope).max(initial=0.0)) * self.most

    def _past(self) -> dict[str, Any]:
        """The state of the run by coordinate: z with its rounding error, f', differences of f."""
        from flowsim.solvers.multistep.constants import HISTORY
        from flowsim.solvers.multistep.workspace import History, Index, Problem, State

        work, total = self.work, self.width
        order = work.indices(Index, "coordinate", total)
        past: dict[str, Any] = {}
        for name, rows in (("z", 1), ("z_low", 1), ("df", 1), ("f", HISTORY)):
            values = self._matrix(name, rows)[:, :total]
            past[name] = np.empty_like(values)
            past[name][:, order] = values
        past["spans"] = work.floats(History, "spans", HISTORY + 2).copy()
        past["count"] = work.floats(Problem, "count", 4).copy()
        past["state"] = {name: work.table[work.entry(State, name)] for name in ("order", "depth")}
        return past

    def _matrix(self, name: str, rows: int) -> Array:
        """An array of the history, (rows, padded)."""
        from flowsim.solvers.multistep.workspace import History, Sizes

        stride = int(self.work.table[self.work.entry(Sizes, "padded")])
        return self.work.floats(History, name, rows * stride).reshape(rows, stride)

    def _continue(self, index: NDArray[np.int64], z: Array, past: dict[str, Any]) -> None:
        """Set the history of the loaded coordinates: their own, or that of the rows."""
        from flowsim.solvers.multistep.workspace import History, Problem, State

        w, before = len(index), len(self.loaded)
        _, here, there = np.intersect1d(index, self.loaded, assume_unique=True, return_indices=True)
        fresh = np.setdiff1d(np.arange(w), here, assume_unique=True)
        columns = self.columns[fresh] / self.flow.n
        for name in ("z", "z_low", "df", "f"):
            old = past[name]
            values = self._matrix(name, len(old))
            values[:, here], values[:, w : w + self.flow.rows] = old[:, there], old[:, before:]
            if name == "z":
                values[0, fresh] = z[fresh]
            elif name != "z_low":
                values[:, fresh] = old[:, before:] @ columns.T
        log_coefficient, _, slope, decay = self.exponential
        exponents = self._matrix("exponents", len(slope))
        exponents[:, :w] = log_coefficient[:, :w] + slope[:, :w] * z - decay[:, :w] * float(self.clock[TIME])
        exponents[:, w:] = -np.inf
        self.work.floats(History, "spans", len(past["spans"]))[:] = past["spans"]
        self.work.floats(Problem, "count", 4)[:] = past["count"]
        self.work.write(State, **past["state"], has_matrix=0)

    def _watch(self, both: Array, level: Array, nu: Array, rate: Array, t: float) -> None:
        """Set up the bound on coordinates that are not loaded."""
        from flowsim.solvers.multistep.buffers import Memory, table_of
        from flowsim.solvers.multistep.screening import BLOCK, Unloaded
        from flowsim.solvers.multistep.workspace import Sizes

        flow = self.filled
        outside = np.ones(flow.d, dtype=bool)
        outside[self.loaded] = False
        count, r = len(flow.sign) * (flow.d - len(self.loaded)), flow.rows
        sizes = {"count": count, "first": len(self.loaded), "rows": r, "since": 1, "nu": r, "rate": r}
        sizes |= {"exponent": count, "growth": count, "reach": count, "largest": 3 * -(-count // BLOCK)}
        integers, size = table_of(Unloaded, sizes)
        if size > len(self.numbers):
            self.numbers = np.empty(size)  # once: it is larger than all else
        self.bound = bound = Memory(self.numbers, integers)
        bound.floats(Unloaded, "since", 1)[:] = 0.0
        bound.floats(Unloaded, "nu", r)[:], bound.floats(Unloaded, "rate", r)[:] = nu, rate
        exponents, growths, reaches = (
            bound.floats(Unloaded, name, count).reshape(len(flow.sign), -1) for name in ("exponent", "growth", "reach")
        )
        done = 0
        for part in self._blocks():
            which = np.flatnonzero(outside[part]) + part.start
            into = slice(done, done + len(which))
            slope, decay = flow.slope[:, which], flow.decay[:, which]
            exponents[:, into] = flow.log_coefficient[:, which] + slope * both[which, 0] - decay * t - level[which]
            growths[:, into] = slope * both[which, 1] - decay
            reaches[:, into] = np.abs(slope) * (flow.norms[which] / flow.n)
            done += len(which)
        if count:
            starts = np.arange(0, count, BLOCK)
            largest = [np.maximum.reduceat(values.ravel(), starts) for values in (exponents, growths, reaches)]
            bound.floats(Unloaded, "largest", sizes["largest"])[:] = np.stack(largest, axis=1).ravel()
        self.work.write(
            Sizes,
            screen=self.screen if count else 0,
            screen_integers=address_of(integers),
            screen_numbers=address_of(self.numbers),
        )
