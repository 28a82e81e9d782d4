"""Integration with many coordinates: active and next ones are loaded, and all others are bounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.separable.base import LOAD_ALL
from flowsim.solvers.separable.distance_steps import address_of
from flowsim.solvers.separable.multistep_run import FromNodes, Layout
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
        flow, t = self.filled, float(self.clock[0])
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
        flow, left = self.filled, max(self.t_end - float(self.clock[0]), np.finfo(np.float64).tiny)
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
        K = len(flow.sign)
        fill = (np.full((K, r), -np.inf), np.ones((K, r)), np.zeros((K, r)), np.zeros((K, r)))
        self.exponential = tuple(
            np.ascontiguousarray(np.hstack([part[:, index], rest]))
            for part, rest in zip(flow.exponential, fill, strict=True)
        )
        reach, gram = np.append(flow.norms[index] * self.most, np.ones(r)), None
        if w <= max(LOAD_ALL, 2 * r):
            gram = np.hstack([self.columns @ self.columns.T, flow.n * self.columns])
        self.work = Layout(A, flow.b, flow.n, self.exponential, reach=reach, gram=gram).workspace(self.tol)
        self.width = w + r
        workspace, table = self.work
        at_gain = table[Scales.PLACE]  # type: ignore[attr-defined]
        workspace[at_gain + w : at_gain + w + r] = 0.5 * float(np.abs(flow.slope).max(initial=0.0)) * self.most

    def _past(self) -> dict[str, Array]:
        """The state of the run by coordinate: z with its rounding error, f', differences of f."""
        from flowsim.solvers.multistep.constants import HISTORY
        from flowsim.solvers.multistep.workspace import History, Index, Problem, State

        workspace, table = self.work
        stride, total = int(table[1]), self.width
        places = dict(zip(History._fields, table[History.PLACE :], strict=False))  # type: ignore[attr-defined]
        order = table[table[Index.PLACE] :][:total]  # type: ignore[attr-defined]
        past = {}
        for name, rows in (("z", 1), ("z_low", 1), ("df", 1), ("f", HISTORY)):
            values = workspace[places[name] : places[name] + rows * stride].reshape(rows, stride)[:, :total]
            past[name] = np.empty_like(values)
            past[name][:, order] = values
        past["spans"] = workspace[places["spans"] : places["spans"] + HISTORY + 2].copy()
        count = table[Problem.PLACE + Problem._fields.index("count")]  # type: ignore[attr-defined]
        past["count"] = workspace[count : count + 4].copy()
        past["state"] = table[State.PLACE : State.PLACE + len(State._fields)].copy()  # type: ignore[attr-defined,assignment]
        return past

    def _continue(self, index: NDArray[np.int64], z: Array, past: dict[str, Array]) -> None:
        """Set the history of the loaded coordinates: their own, or that of the rows."""
        from flowsim.solvers.multistep.workspace import History, Problem, State

        workspace, table = self.work
        stride, w, before = int(table[1]), len(index), len(self.loaded)
        places = dict(zip(History._fields, table[History.PLACE :], strict=False))  # type: ignore[attr-defined]
        _, here, there = np.intersect1d(index, self.loaded, assume_unique=True, return_indices=True)
        fresh = np.setdiff1d(np.arange(w), here, assume_unique=True)
        columns = self.columns[fresh] / self.flow.n
        for name in ("z", "z_low", "df", "f"):
            old = past[name]
            values = workspace[places[name] : places[name] + len(old) * stride].reshape(-1, stride)
            values[:, here], values[:, w : w + self.flow.rows] = old[:, there], old[:, before:]
            if name == "z":
                values[0, fresh] = z[fresh]
            elif name != "z_low":
                values[:, fresh] = old[:, before:] @ columns.T
        log_coefficient, _, slope, decay = self.exponential
        exponents = workspace[places["exponents"] : places["exponents"] + len(slope) * stride].reshape(-1, stride)
        exponents[:, :w] = log_coefficient[:, :w] + slope[:, :w] * z - decay[:, :w] * float(self.clock[0])
        exponents[:, w:] = -np.inf
        workspace[places["spans"] : places["spans"] + len(past["spans"])] = past["spans"]
        count = table[Problem.PLACE + Problem._fields.index("count")]  # type: ignore[attr-defined]
        workspace[count : count + 4] = past["count"]
        table[State.PLACE : State.PLACE + 3] = *past["state"][:2], 0  # type: ignore[attr-defined]

    def _watch(self, both: Array, level: Array, nu: Array, rate: Array, t: float) -> None:
        """Set up the bound on coordinates that are not loaded."""
        from flowsim.solvers.multistep.screening import BLOCK

        flow = self.filled
        outside = np.ones(flow.d, dtype=bool)
        outside[self.loaded] = False
        count = len(flow.sign) * (flow.d - len(self.loaded))
        blocks, r = -(-count // BLOCK), flow.rows
        size = 1 + 2 * r + 3 * count + 3 * blocks
        if size > len(self.numbers):
            self.numbers = np.empty(size)  # once: it is larger than all else
        numbers = self.numbers[:size]
        numbers[0] = 0.0
        numbers[1 : 1 + r], numbers[1 + r : 1 + 2 * r] = nu, rate
        exponents, growths, reaches = numbers[1 + 2 * r : 1 + 2 * r + 3 * count].reshape(3, len(flow.sign), -1)
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
            numbers[1 + 2 * r + 3 * count :] = np.stack(largest, axis=1).ravel()
        integers = np.array([count, len(self.loaded), r], dtype=np.int64)
        self.bound = (integers, numbers)
        self.work[1][12:15] = self.screen if count else 0, address_of(integers), address_of(numbers)
