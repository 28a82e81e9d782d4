"""One integration of :mod:`flowsim.solvers.separable`: what is handed to the compiled loops, and what they record."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers import loop
from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.solution import LoadedSteps, NodeSteps, SeparableSolution
from flowsim.solvers.solution import Status

__all__ = ["LOAD_ALL", "Run", "run_of"]

Array = NDArray[np.float64]
Done = Callable[[SeparableSolution], bool]

#: Up to this many coordinates all are loaded, with their Gram matrix.
LOAD_ALL = 640
#: Otherwise at least so many beyond those that count: the next to come.
_LOAD_AHEAD = 128
#: So many entries of A are multiplied where they are laid out; a library needs longer to begin, not to end.
_FEW_ENTRIES = 4096
#: e-foldings of a coefficient around a prediction that the tables of a map are to hold.
_MARGIN = 2.0
#: The next step where a table of a map goes no farther, and how often that may be.
_SHORTER, _STALLED = 0.25, 60
#: A is taken to a triangle where that takes fewer products.
_FACTORISED = 1 << 30
#: Records made room for at once.
_RECORDS = 2048
#: The first of a run: most need no more, and memory that is not touched again costs more than steps.
_FEW_RECORDS = 512
_ENTRIES = 1 << 17
#: Columns looked at together where all are.
_COLUMNS = 1 << 16
#: z is known to a few roundings of the exponents' size.
_ROUNDINGS = 4.0
#: Steps between two looks at progress and completion.
_LOOK = 100
#: Floats in a cache line.
_LINE = 8


# Compiled code is loaded where it is first called: importing flowsim, and its command line, do without.


@cache
def _one_step() -> Any:
    from flowsim.solvers import separable_kernel

    return separable_kernel


@cache
def _multistep() -> Any:
    from flowsim.solvers.multistep import march

    return march


def _address_of_loss(loss: Any) -> int:
    from flowsim.solvers.compilation import address_of

    return address_of(loss, 5)


def _lined(size: int) -> Array:
    """Zeros that begin with a cache line."""
    room = np.zeros(size + _LINE)
    first = -(room.__array_interface__["data"][0] // 8) % _LINE
    return room[first : first + size]


def run_of(
    flow: SeparableFlow,
    t_end: float,
    tol: float,
    max_steps: int,
    progress: Callable[[float], None] | None = None,
    done: Done | None = None,
) -> SeparableSolution:
    """The solution over [0, t_end], by the method that fits the flow."""
    most = SeparableFlow.MOST_WITH_LOSS
    if (flow.loss is not None or flow.curves is not None) and (flow.power > 0 or flow.d > most):
        raise ValueError(f"a loss other than squares and a tabulated map take no more than {most} coordinates.")
    kind = Multistep if flow.power == 0 and (flow.d <= LOAD_ALL or flow.loss is not None or flow.curves) else OneStep
    return kind(flow, t_end, tol, max_steps, progress, done).solve()


class Run(ABC):
    """One integration: where it stands, and the records so far."""

    #: Times A has been passed over.
    passes = 0
    #: Why a map goes no farther.
    failure: str | None = None
    stalled = 0

    def __init__(
        self,
        flow: SeparableFlow,
        t_end: float,
        tol: float,
        max_steps: int,
        progress: Callable[[float], None] | None,
        done: Done | None,
    ) -> None:
        self.flow, self.t_end, self.tol, self.max_steps = flow, float(t_end), tol, max_steps
        self.progress, self.done = progress, done
        self.clock = np.array([0.0, 0.0, self.t_end, 1e-4, 0.0])
        self.counts = np.zeros(6, dtype=np.int64)
        self.chunks: list[Any] = []

    @abstractmethod
    def begin(self) -> None:
        """Make what the loop works with."""

    @abstractmethod
    def advance(self, budget: int) -> int:
        """Take up to `budget` steps, keep their records, and say why the loop came back."""

    def refresh(self) -> None:
        """Load what the loop asks for."""
        raise NotImplementedError

    def solve(self) -> SeparableSolution:
        began = time.perf_counter()
        self.begin()
        ended: Status | None = None
        while ended is None:
            before = len(self.chunks)
            budget = self.max_steps - int(self.counts[0])
            if self.progress is not None or self.done is not None:
                budget = min(budget, _LOOK)
            self.counts[4:] = 0
            status = self.advance(budget)
            if self.progress is not None:
                self.progress(float(self.clock[0]))
            if status == loop.COMPLETED:
                ended = Status.COMPLETED
            elif status in (loop.STEP_FLOOR, loop.NON_FINITE):
                ended = Status.NON_FINITE if status == loop.NON_FINITE else Status.STEP_FLOOR
            elif self.done is not None and self.done(self._solution(Status.COMPLETED, before, 0.0)):
                ended = Status.COMPLETED
            elif status == loop.REFRESH:
                self.refresh()
                if self.stalled > _STALLED and self.failure is None:
                    self.failure = "a coordinate has come to the end of its map"
                if self.failure is not None:
                    ended = Status.STOPPED
            elif self.counts[0] >= self.max_steps:
                ended = Status.STEP_BUDGET
        return self._solution(ended, 0, time.perf_counter() - began)

    def _solution(self, status: Status, first: int, seconds: float) -> SeparableSolution:
        chunks = self.chunks[first:]
        if len(chunks) == 1:
            t, h = chunks[0].t, chunks[0].h
        else:
            t = np.concatenate([chunks[0].t[:1] if chunks else np.zeros(1), *(chunk.t[1:] for chunk in chunks)])
            h = np.concatenate([np.zeros(0), *(chunk.h for chunk in chunks)])
        return SeparableSolution(
            flow=self.flow,
            t=t,
            h=h,
            status=status,
            message=self.failure or status.value,
            stats={
                "steps": int(self.counts[0]),
                "rejected": int(self.counts[1]),
                "nfev": int(self.counts[2]),
                "njev": int(self.counts[3]),
                "nlu": int(self.counts[3]),
                "passes": self.passes,
                "seconds": seconds,
            },
            chunks=chunks,
        )


class Multistep(Run):
    """By :mod:`flowsim.solvers.multistep`, with all coordinates."""

    def begin(self) -> None:
        """Lay the problem out in a workspace, in rows of whole vectors that begin with a cache line."""
        from flowsim.solvers.multistep.constants import SMALL
        from flowsim.solvers.multistep.factors import address as address_of_factors
        from flowsim.solvers.multistep.problem import write_problem
        from flowsim.solvers.multistep.workspace import Loss, layout

        flow = self.flow
        address = 0 if flow.loss is None else _address_of_loss(flow.loss)
        factored = address_of_factors() if flow.d > SMALL else 0
        A, b = self._rows()
        table, floats = layout(flow.d, len(flow.sign), len(b), address, factored)
        table, room = table.copy(), _lined(floats)
        few = A.size <= _FEW_ENTRIES
        write_problem(A, b, float(flow.n), flow.exponential, room, table, few)
        if not few:
            gram = room[: flow.d * -(-flow.d // _LINE) * _LINE].reshape(flow.d, -1)
            gram[:, : flow.d] = A.T @ A
            gram /= flow.n
        if flow.loss is not None:
            places = table[Loss.PLACE : Loss.PLACE + len(Loss._fields)]  # type: ignore[attr-defined]
            ones, zeros = np.ones(flow.rows), np.zeros(flow.rows)
            for place, value in (
                (places[1], flow.b),
                (places[2], ones if flow.weights is None else flow.weights),
                (places[5], zeros if flow.offset is None else flow.offset),
            ):
                room[place : place + flow.rows] = value
        self.work = (room, table)
        self.stalled = 0
        if flow.curves is not None:
            from flowsim.solvers.multistep.curves import address as curves_address

            table[9] = curves_address()
            self._hand_over_tables()
        self.records = _FEW_RECORDS
        self.passes = 1

    def _hand_over_tables(self) -> None:
        """The tables so far, kept for as long as the loop has their addresses."""
        assert self.flow.curves is not None
        self.tables = self.flow.curves.arrays().packed()
        self.work[1][10:12] = [array.__array_interface__["data"][0] for array in self.tables]

    def refresh(self) -> None:
        """Continue tables to where the loop's prediction is; a shorter step where they go no farther."""
        from flowsim.solvers.multistep.workspace import History, Index, Trial

        room, table = self.work
        w, curves = self.flow.d, self.flow.curves
        assert curves is not None
        at_z, at_guess = table[History.PLACE], table[Trial.PLACE + 1]  # type: ignore[attr-defined]
        order = table[table[Index.PLACE] :][:w]  # type: ignore[attr-defined]
        here, wanted = np.empty(w), np.empty(w)
        here[order] = room[at_z : at_z + w]
        wanted[order] = room[at_z : at_z + w] + room[at_guess : at_guess + w]
        margin, before = _MARGIN / self.flow.slope[0], len(self.tables[1])
        self.failure = curves.cover(here, np.minimum(here, wanted) - margin, np.maximum(here, wanted) + margin)
        self._hand_over_tables()
        if len(self.tables[1]) == before:
            self.clock[2] *= _SHORTER
            self.stalled += 1

    def _rows(self) -> tuple[Array, Array]:
        """A and b; in as many rows as there are coordinates where there are more, which changes no flow of squares."""
        flow = self.flow
        A = np.ascontiguousarray(flow.A if isinstance(flow.A, np.ndarray) else flow.columns(np.arange(flow.d)).T)
        if flow.loss is None and len(A) > flow.d and A.size * flow.d <= _FACTORISED:
            both = np.column_stack([A, flow.b])
            factor = np.linalg.qr(both, mode="r") if np.isfinite(both).all() else both
            A, b = factor[: flow.d, : flow.d], factor[: flow.d, flow.d]
            return np.ascontiguousarray(A), np.ascontiguousarray(b)
        return A, flow.b

    def advance(self, budget: int) -> int:
        d, records = self.flow.d, self.records
        self.records = min(2 * records, _RECORDS)
        record = np.empty(3 * records + 1 + 3 * (records + 1) * d)
        self.counts[5] = records
        status = _multistep().march(self.tol, self.t_end, budget, *self.work, self.clock, self.counts, record)
        steps = int(self.counts[4])
        if steps:
            z, f, df = record[3 * records + 1 :].reshape(3, records + 1, d)[:, : steps + 1]
            t, h = record[: steps + 1], record[records + 1 : records + 1 + steps]
            order = record[2 * records + 1 : 2 * records + 1 + steps]
            self.chunks.append(NodeSteps(t, h, order, z, f, df, self.flow.exponential, self.flow.curves))
        return int(status)


class OneStep(Run):
    """By :mod:`flowsim.solvers.separable_kernel`, with the coordinates that are loaded."""

    def begin(self) -> None:
        flow = self.flow
        logs = flow.log_coefficient
        size = float(np.max(np.abs(logs), where=np.isfinite(logs), initial=0.0))
        self.tol = max(self.tol, _ROUNDINGS * np.finfo(float).eps * size)
        self.nu = np.zeros(flow.rows)
        # A product has no bound yet for coordinates outside.
        self.all_loaded = flow.d <= LOAD_ALL or flow.power > 0
        self.place = np.empty((len(flow.sign), flow.d)) if flow.distance is None else flow.distance.copy()
        empty = np.zeros((len(flow.sign), 0))
        self.outside: tuple[Array, ...] = (empty, empty, empty, np.zeros(0), flow.b, np.zeros(0), np.zeros(0))
        self.rate_bound = float(flow.norms.max()) / flow.n
        if self.all_loaded:
            self._load(np.arange(flow.d), np.zeros(flow.d), np.zeros(flow.d))
            self.passes += 1
        else:
            self.z, self.z_low, self.loaded = np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
            self.refresh()

    def advance(self, budget: int) -> int:
        w = len(self.loaded)
        records = _RECORDS
        entries = max(_ENTRIES, 2 * w)
        t, h = np.empty(records + 1), np.empty(records)
        z = np.empty((records + 1, w))
        nu = np.empty((0 if self.all_loaded else records + 1, self.flow.rows))
        pointer = np.zeros(records + 1, dtype=np.int64)
        which, coefficients = np.empty(entries, dtype=np.int32), np.empty((entries, 5))
        rate = np.empty((records, w))
        power, squares, series, _ = self.flow.product
        unit = self.flow.log_unit
        place = np.empty((records + 1 if power else 0, len(self.flow.sign), w))
        place[:1] = self.place[:, :w]
        t[0], z[0], nu[:1] = self.clock[0], self.z, self.nu
        status = _one_step().advance(
            self.gram, self.columns, float(self.flow.n), self.drive, power, unit, *self.exponential, squares, series,
            self.reach, self.tol, self.t_end, budget, *self.outside,
            self.clock, self.z, self.z_low, self.place, self.nu, self.counts,
            t, h, z, rate, place, nu, pointer, which, coefficients,
        )  # fmt: skip
        steps, used = int(self.counts[4]), int(self.counts[5])
        if steps:
            self.chunks.append(
                LoadedSteps(
                    loaded=None if self.all_loaded else self.loaded,
                    gram=self.gram,
                    columns=self.columns,
                    product=(power, unit, squares, series),
                    t=t[: steps + 1].copy(),
                    h=h[:steps].copy(),
                    z=z[: steps + 1].copy(),
                    rate=rate[:steps].copy(),
                    place=place[: steps + 1].copy(),
                    nu=nu[: steps + 1].copy(),
                    pointer=pointer[: steps + 1].copy(),
                    which=which[:used].copy(),
                    coefficients=coefficients[:used].copy(),
                    exponential=self.exponential,
                )
            )
        return int(status)

    def _load(self, index: NDArray[np.int64], z: Array, z_low: Array) -> None:
        flow = self.flow
        self.loaded = index
        self.columns = flow.columns(index)
        # Without Gram matrix the loop works in the rows of A.
        with_gram = len(index) <= max(LOAD_ALL, 2 * flow.rows)
        self.gram = self.columns @ self.columns.T / flow.n if with_gram else np.zeros((0, 0))
        self.drive = self.columns @ flow.b / flow.n
        self.exponential = tuple(np.ascontiguousarray(part[:, index]) for part in flow.exponential)
        if self.all_loaded and with_gram:
            self.reach = np.abs(self.gram).max(axis=1)
        else:
            self.reach = flow.norms[index] * self.rate_bound
        self.z, self.z_low = z, z_low
        if self.flow.power == 0:
            self.place = np.empty((len(self.flow.sign), len(index)))

    def refresh(self) -> None:
        """Pass over A: where every coordinate stands and moves to; load those that count or come next."""
        flow, t = self.flow, float(self.clock[0])
        left = max(self.t_end - t, np.finfo(float).tiny)
        from flowsim.solvers.separable_kernel import log_level

        blocks = [slice(first, first + _COLUMNS) for first in range(0, flow.d, _COLUMNS)]
        logc, slope, decay = flow.log_coefficient, flow.slope, flow.decay
        if len(self.loaded):
            own_log, own_sign, own_slope, own_decay = self.exponential
            exponent = own_log + own_slope * self.z - own_decay * t
            rate = flow.b - np.sum(own_sign * np.exp(exponent), axis=0) @ self.columns
        else:
            beta = np.empty(flow.d)
            for part in blocks:
                beta[part] = np.sum(flow.sign[:, part] * np.exp(logc[:, part]), axis=0)
            rate = flow.b - np.asarray(flow.A @ beta)
            del beta
            self.passes += 1
        both = np.asarray(flow.A.T @ np.stack([self.nu, rate], axis=1))
        both /= flow.n
        self.passes += 1
        both[self.loaded, 0] = self.z
        # One block of columns after the other: what is of the size of d is made once.
        wait, count = np.empty(flow.d), 0
        level = log_level(flow.norms * self.rate_bound, self.tol)
        for part in blocks:
            exponent = logc[:, part] + slope[:, part] * both[part, 0] - decay[:, part] * t
            growth = slope[:, part] * both[part, 1] - decay[:, part]
            goal = level[part] - math.log(left)
            with np.errstate(divide="ignore", invalid="ignore"):
                until = np.where(growth > 0, (goal - exponent) / growth, np.inf)
            # At a negligible level but not growing: after all that count, before all that cannot come.
            until = np.where(np.isnan(until), np.inf, np.maximum(until, 0.0)).min(axis=0)
            counts = (exponent > goal).any(axis=0)
            until[counts] = -1.0
            wait[part] = until
            count += int(counts.sum())
        wanted = count + max(_LOAD_AHEAD, count)
        if wanted < flow.d:
            index = np.sort(np.argpartition(wait, wanted)[:wanted])
        else:
            index = np.arange(flow.d)
        del wait
        z_low = np.zeros(len(index))
        _, here, there = np.intersect1d(index, self.loaded, assume_unique=True, return_indices=True)
        z_low[here] = self.z_low[there]
        self._load(index, both[index, 0], z_low)
        outside = np.ones(flow.d, dtype=bool)
        outside[index] = False
        shape = (len(logc), flow.d - len(index))
        exponents, growths, reaches, done = np.empty(shape), np.empty(shape), np.empty(shape), 0
        for part in blocks:
            which = np.flatnonzero(outside[part]) + part.start
            into = slice(done, done + len(which))
            slopes = slope[:, which]
            exponents[:, into] = logc[:, which] + slopes * both[which, 0] - decay[:, which] * t
            growths[:, into] = slopes * both[which, 1] - decay[:, which]
            reaches[:, into] = np.abs(slopes) * flow.norms[which] / flow.n
            done += len(which)
        self.outside = (exponents, growths, reaches, level[outside], flow.b, self.nu.copy(), rate)
        self.clock[4] = 0.0
