r"""Flows driven through a monotone separable map, solved natively.

.. math:: \nu' = b - A\,\beta(z, t), \qquad z = A^\top \nu / n, \qquad
          \beta_i = \sum_k s_{ik} \exp(l_{ik} + a_{ik} z_i - b_{ik} t), \quad s_{ik} a_{ik} \ge 0.

The unknowns are logarithms: the tolerance bounds the absolute error of a z / 2, which is the relative error of the
root of every exponential (a weight, in applications) at every scale. Exponents may start at -10^7.

Or, for L >= 3, beta_i is a product of weights that reaches infinity at finite z:

.. math:: \beta_i = \pm x \prod_{j<L} \sqrt{x^2 + m_{ij}^2}, \qquad
          \pm (T_i^\pm - z_i)\Big|_{\pm = +} = \int_x^\infty \frac{d\xi}{\prod_j \sqrt{\xi^2 + m_{ij}^2}},

and likewise below. Then the unknowns are the distances T - z to the two infinities, from 1e300 down to 1, and the
tolerance bounds their relative errors.

Exponentials of up to some hundred coordinates are left to second-derivative multistep formulas of order 3 to 9
(:mod:`flowsim.solvers.multistep`). Products, and more coordinates than that, are integrated by Rodas5P
(:mod:`flowsim.solvers.rodas`) with a step end wherever a coordinate begins to count
(:mod:`flowsim.solvers.separable_kernel`): a one-step method takes others in where it stands. With many coordinates only
some are loaded; a bound on all others, safe by the Cauchy-Schwarz inequality, tells when A has to be passed over again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.arclength import ArcLength
from flowsim.solvers.events import Event, Occurrence, find_events
from flowsim.solvers.solution import Status

__all__ = ["SeparableFlow", "SeparableSolution", "integrate_ensemble", "integrate_separable"]

Array = NDArray[np.float64]

#: Up to this many coordinates all are loaded, with their Gram matrix.
_LOAD_ALL = 640
#: Otherwise at least so many beyond those that count: the next to come.
_LOAD_AHEAD = 128
#: Terms of the series of a product; with the kernel's bound on its argument they reach rounding.
_TERMS = 16
#: Columns of a LinearOperator formed at once.
_BLOCK = 256
_RECORDS = 2048
#: The first of a run: most need no more, and memory that is not touched again costs more than steps.
_FEW_RECORDS = 256
#: Floats in a cache line.
_LINE = 8
_ENTRIES = 1 << 17
#: Columns looked at together where all are.
_COLUMNS = 1 << 16
#: Rows of a dense evaluation at once, in entries.
_EVALUATE = 1 << 22
#: z is known to a few roundings of the exponents' size.
_ROUNDINGS = 4.0
#: Steps between two looks at progress and completion.
_LOOK = 100


@dataclass(frozen=True, eq=False)
class SeparableFlow:
    """The flow of this module's first equation, with nu(0) = 0.

    Attributes
    ----------
    A : array (r, d), sparse matrix, or LinearOperator
    b : array (r,)
    n : float
        > 0.
    log_coefficient, sign, slope, decay : array (K, d)
        l, s, a, b of the K exponentials of a coordinate; l = -inf for one that is absent.
    column_norms : array (d,), optional
        Of A; computed where not given.
    power : int
        0 for exponentials; L for products, which use `sign` and `slope` (both +1 and -1, K = 2) alone.
    squares : array (L - 1, d)
        m^2 of a product.
    distance : array (2, d)
        T - z of a product at the start, above and below; infinite where that side cannot be reached.
    """

    A: Any
    b: Array
    n: float
    log_coefficient: Array
    sign: Array
    slope: Array
    decay: Array
    column_norms: Array | None = None
    power: int = 0
    squares: Array | None = None
    distance: Array | None = None

    def __post_init__(self) -> None:
        if (self.sign * self.slope < 0).any():
            raise ValueError("`sign` times `slope` must be >= 0: beta must not decrease in z.")

    @cached_property
    def product(self) -> tuple[int, Array, Array, Array]:
        """L, m^2, the series of the inverse product of square roots in 1/x^2, and the distances."""
        if self.power == 0:
            return 0, np.zeros((0, self.d)), np.zeros((0, self.d)), np.zeros((0, self.d))
        if self.squares is None or self.distance is None:
            raise ValueError("`squares` and `distance` must be given for products.")
        series = np.zeros((_TERMS if self.squares.any() else 1, self.d))
        series[0] = 1.0
        for square in self.squares if len(series) > 1 else ():
            # times (1 + square u)^(-1/2)
            factor = np.ones((_TERMS, self.d))
            for k in range(1, _TERMS):
                factor[k] = factor[k - 1] * square * (0.5 - k) / k
            series = np.array([(series[: k + 1] * factor[k::-1]).sum(axis=0) for k in range(_TERMS)])
        return self.power, self.squares, series, self.distance

    @property
    def d(self) -> int:
        return int(self.A.shape[1])

    @property
    def rows(self) -> int:
        return int(self.A.shape[0])

    def exponents(self, z: Array, t: Array) -> Array:
        """(K, T, d) for z (T, d) and t (T,)."""
        return self.log_coefficient[:, None] + self.slope[:, None] * z - self.decay[:, None] * t[:, None]

    def beta(self, z: Array, t: Array) -> Array:
        """(T, d)."""
        return np.sum(self.sign[:, None] * np.exp(self.exponents(z, t)), axis=0)

    def columns(self, index: NDArray[np.int64]) -> Array:
        """Columns of A as rows, C order."""
        if isinstance(self.A, np.ndarray):
            return np.ascontiguousarray(self.A[:, index].T)
        if hasattr(self.A, "tocsc"):
            return np.ascontiguousarray(self._by_column[:, index].toarray().T)
        out = np.empty((len(index), self.rows))
        for first in range(0, len(index), _BLOCK):
            part = index[first : first + _BLOCK]
            unit = np.zeros((self.d, len(part)))
            unit[part, np.arange(len(part))] = 1.0
            out[first : first + len(part)] = np.asarray(self.A @ unit).T
        return out

    @cached_property
    def _by_column(self) -> Any:
        return self.A.tocsc()

    @cached_property
    def norms(self) -> Array:
        """Norms of the columns of A."""
        if self.column_norms is not None:
            return self.column_norms
        if isinstance(self.A, np.ndarray):
            return np.sqrt(np.einsum("ij,ij->j", self.A, self.A))
        if hasattr(self.A, "multiply"):
            return np.sqrt(np.asarray(self.A.multiply(self.A).sum(axis=0)).ravel())
        blocks = [np.arange(first, min(first + _BLOCK, self.d)) for first in range(0, self.d, _BLOCK)]
        return np.concatenate([np.linalg.norm(self.columns(block), axis=1) for block in blocks])


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Steps taken with one set of loaded coordinates."""

    loaded: NDArray[np.int64] | None  # None: all
    gram: Array
    columns: Array
    product: tuple[int, Array, Array]
    t: Array  # (S + 1,)
    h: Array  # (S,)
    z: Array  # (S + 1, w), the loaded ones
    rate: Array  # (S, w): dz/dt at constant beta
    place: Array  # (S + 1, K, w) for products, else empty
    nu: Array  # (S + 1, r), or empty if all are loaded
    pointer: NDArray[np.int64]
    which: NDArray[np.int32]
    coefficients: Array  # (entries, 5): the straight part of the integral of beta, and a polynomial

    exponential: tuple[Array, ...]  # log coefficient, sign, slope, decay of the loaded ones

    def speeds(self, n: float, nodes: Array) -> Array:
        """``|d beta/dt|`` at positions `nodes` of every step."""
        from flowsim.solvers import separable_kernel

        kernel: Any = separable_kernel
        out = np.empty((len(self.h), len(nodes)))
        kernel.speeds(
            self.gram, self.columns, float(n), self.product[0], *self.exponential, *self.product[1:],
            self.t, self.h, self.z, self.rate, self.place, self.pointer, self.which, self.coefficients, nodes, out,
        )  # fmt: skip
        return out

    def states(self, flow: SeparableFlow, step: NDArray[np.intp], theta: Array) -> tuple[Array, Array]:
        """z of the loaded coordinates at positions `theta` of steps, and nu unless all are loaded."""
        from flowsim.solvers import separable_kernel

        kernel: Any = separable_kernel
        sides = len(self.place[0]) if flow.power else 1
        out = np.empty((len(step), sides * self.z.shape[1]))
        nu = np.empty((len(step) if len(self.nu) else 0, flow.rows))
        kernel.states(
            self.gram, self.columns, float(flow.n), flow.power, self.exponential[2], self.h, self.z, self.rate,
            self.place, self.pointer, self.which, self.coefficients, flow.b, self.nu, step, theta, out, nu,
        )  # fmt: skip
        return out, nu


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Steps of the multistep method: z, f = z' and f' at their ends."""

    t: Array  # (S + 1,)
    h: Array  # (S,)
    z: Array  # (S + 1, d)
    f: Array
    bend: Array
    exponential: tuple[Array, ...]
    loaded: None = None

    def speeds(self, n: float, nodes: Array) -> Array:
        """``|d beta/dt|`` at positions `nodes` of every step."""
        from flowsim.solvers import multistep

        kernel: Any = multistep
        out = np.empty((len(self.h), len(nodes)))
        kernel.speeds(*self.exponential, self.t, self.h, self.z, self.f, self.bend, nodes, out)
        return out

    def states(self, flow: SeparableFlow, step: NDArray[np.intp], theta: Array) -> tuple[Array, Array]:
        """z at positions `theta` of steps."""
        from flowsim.solvers import multistep

        kernel: Any = multistep
        out = np.empty((len(step), self.z.shape[1]))
        kernel.between(self.h, self.z, self.f, self.bend, step, theta, out)
        return out, np.empty((0, flow.rows))


@dataclass(frozen=True, eq=False)
class SeparableSolution:
    """The steps taken and a continuous extension over them, as accurate as they are.

    Attributes
    ----------
    flow : SeparableFlow
    t : array (T,)
        0 and the end of every step. Where a jump is shorter than the spacing of floats, ends repeat.
    h : array (T - 1,)
        Lengths of the steps, known better than the differences of `t`.
    status : Status
    message : str
    stats : dict
        steps, rejected, nfev, njev, nlu, passes (over A), seconds.
    events : sequence of Occurrence
        Of the events that were asked for.
    """

    flow: SeparableFlow
    t: Array
    h: Array
    status: Status
    message: str
    stats: dict[str, Any]
    chunks: Sequence[_Chunk | _Nodes] = field(repr=False, default=())
    events: Sequence[Occurrence] = ()

    @cached_property
    def z(self) -> Array:
        """(T, d) at the ends of the steps."""
        return self.at_steps(np.arange(len(self.h)), np.zeros(len(self.h)), with_end=True)

    @property
    def y(self) -> Array:
        """The states, under the name they have in any other solution."""
        return self.z

    def arclength(self, constant: float) -> ArcLength:
        """The integral of ``constant + |d beta/dt|`` along the run."""
        nodes = ArcLength.nodes()
        parts = [chunk.speeds(self.flow.n, nodes) for chunk in self.chunks]
        speed = np.concatenate([np.zeros((0, len(nodes))), *parts])
        return ArcLength.of_samples(self.t, self.h, constant + speed)

    def __call__(self, times: Array) -> Array:
        """z at times (K,) inside the run, shape (K, d)."""
        return self.at_steps(*self.locate(times))

    def locate(self, times: Array) -> tuple[NDArray[np.intp], Array]:
        """The step that holds each time, and the position in it, 0 to 1."""
        times = np.asarray(times, dtype=float)
        if len(self.h) == 0:
            return np.zeros(len(times), dtype=np.intp), np.zeros(len(times))
        step = np.clip(np.searchsorted(self.t, times, side="right") - 1, 0, len(self.h) - 1)
        theta = np.clip((times - self.t[step]) / self.h[step], 0.0, 1.0)
        theta[times >= self.t[-1]] = 1.0
        return step, theta

    def at_steps(self, step: NDArray[np.intp], theta: Array, with_end: bool = False) -> Array:
        """z at positions `theta` of the steps `step`, shape (K, d); with the run's end appended on request."""
        flow = self.flow
        if len(self.h) == 0:
            rest = np.zeros(flow.d) if flow.distance is None else flow.distance.ravel()
            return np.repeat(rest[None], len(step) + with_end, axis=0)
        if with_end:
            step, theta = np.append(step, len(self.h) - 1), np.append(theta, 1.0)
        out = np.empty((len(step), 2 * flow.d if flow.power else flow.d))
        first = np.cumsum([0] + [len(chunk.h) for chunk in self.chunks])
        block = max(1, _EVALUATE // flow.d)
        for number, chunk in enumerate(self.chunks):
            rows = np.flatnonzero((step >= first[number]) & (step < first[number + 1]))
            for begin in range(0, len(rows), block):
                part = rows[begin : begin + block]
                local, position = step[part] - first[number], theta[part]
                inside, nu = chunk.states(flow, local, position)
                if chunk.loaded is None:
                    out[part] = inside
                else:
                    out[part] = np.asarray(flow.A.T @ nu.T).T / flow.n
                    out[np.ix_(part, chunk.loaded)] = inside
        return out


def integrate_separable(
    flow: SeparableFlow,
    t_end: float,
    *,
    tol: float = 1e-6,
    max_steps: int = 200_000,
    progress: Callable[[float], None] | None = None,
    done: Callable[[SeparableSolution], bool] | None = None,
    events: Sequence[Event] = (),
) -> SeparableSolution:
    """Integrate from nu = 0 over [0, t_end].

    Parameters
    ----------
    flow : SeparableFlow
    t_end : float
        > 0, finite.
    tol : float
        Bound on the local error of half of every exponent, absolute; not below a few roundings of the exponents.
    max_steps : int
        Budget of accepted steps.
    progress : callable, optional
        Called with the time reached now and then.
    done : callable (SeparableSolution) -> bool, optional
        Looked at now and then with the steps since it was last asked; True completes the integration there.
    events : sequence of Event, optional
        Looked for on the continuous extension and kept as ``solution.events``; the first occurrence of a terminal
        one ends the run, there, with ``Status.EVENT``.

    Returns
    -------
    SeparableSolution
        Never raises for a failed integration: the status says how it ended.
    """
    terminal = [event for event in events if event.terminal]

    def over(steps: SeparableSolution) -> bool:
        return bool(find_events(steps, terminal)) or (done is not None and done(steps))

    solution = _Run(flow, t_end, tol, max_steps, progress, over if terminal else done).solve()
    found = find_events(solution, events) if events else []
    last = next((one for one in found if one.event.terminal), None)
    if last is None:
        return replace(solution, events=found)
    # The same steps once more, the last one shorter.
    again = _Run(flow, max(last.t, np.finfo(float).tiny), tol, max_steps, None, None).solve()
    kept = [one for one in found if (one.step, one.position) <= (last.step, last.position)]
    status = Status.EVENT if again.status.success else again.status
    return replace(again, events=kept, status=status, message=status.value)


def integrate_ensemble(
    flows: Sequence[SeparableFlow],
    t_end: Sequence[float],
    *,
    tol: float = 1e-6,
    max_steps: int = 200_000,
    workers: int | None = None,
) -> list[SeparableSolution]:
    """Integrate many flows side by side: the compiled loop lets other threads run.

    Parameters
    ----------
    flows : sequence of SeparableFlow
    t_end : sequence of float
        One for each.
    tol, max_steps : as in :func:`integrate_separable`
    workers : int, optional
        Threads; the number of processors by default.
    """
    if len(flows) != len(t_end):
        raise ValueError(f"`t_end` must hold one time for each of the {len(flows)} flows; received {len(t_end)}.")

    def one(pair: tuple[SeparableFlow, float]) -> SeparableSolution:
        return integrate_separable(pair[0], pair[1], tol=tol, max_steps=max_steps)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(one, zip(flows, t_end, strict=True)))


def _lined(size: int) -> Array:
    """Zeros that begin with a cache line."""
    room = np.zeros(size + _LINE)
    first = -(room.ctypes.data // 8) % _LINE
    return room[first : first + size]


class _Run:
    """One integration: which coordinates are loaded, and the records so far."""

    def __init__(
        self,
        flow: SeparableFlow,
        t_end: float,
        tol: float,
        max_steps: int,
        progress: Callable[[float], None] | None,
        done: Callable[[SeparableSolution], bool] | None,
    ) -> None:
        self.flow, self.t_end, self.max_steps = flow, float(t_end), max_steps
        self.progress, self.done = progress, done
        logs = flow.log_coefficient
        size = float(np.max(np.abs(logs), where=np.isfinite(logs), initial=0.0))
        self.tol = max(tol, _ROUNDINGS * np.finfo(float).eps * size)
        self.clock = np.array([0.0, 0.0, self.t_end, 1e-4, 0.0])
        self.counts = np.zeros(6, dtype=np.int64)
        self.nu = np.zeros(flow.rows)
        self.chunks: list[_Chunk | _Nodes] = []
        self.passes = 0
        # A product has no bound yet for coordinates outside.
        self.all_loaded = flow.d <= _LOAD_ALL or flow.power > 0
        self.place = np.empty((len(flow.sign), flow.d)) if flow.distance is None else flow.distance.copy()
        self.loaded = np.arange(flow.d)
        empty = np.zeros((len(flow.sign), 0))
        self.outside: tuple[Array, ...] = (empty, empty, empty, np.zeros(0), flow.b, np.zeros(0), np.zeros(0))
        self.rate_bound = float(flow.norms.max()) / flow.n
        self.multistep = self.all_loaded and flow.power == 0
        if self.multistep:
            self._line_up()

    def solve(self) -> SeparableSolution:
        from flowsim.solvers import separable_kernel as kernel

        began = time.perf_counter()
        flow = self.flow
        if self.multistep:
            self.passes += 1
        elif self.all_loaded:
            self._load(np.arange(flow.d), np.zeros(flow.d), np.zeros(flow.d))
            self.passes += 1
        else:
            self.z, self.z_low, self.loaded = np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
            self._refresh()
        ended: Status | None = None
        while ended is None:
            before = len(self.chunks)
            status = self._march() if self.multistep else self._advance(kernel)
            if self.progress is not None:
                self.progress(float(self.clock[0]))
            if status == kernel.COMPLETED:
                ended = Status.COMPLETED
            elif status in (kernel.STEP_FLOOR, kernel.NON_FINITE):
                ended = Status.NON_FINITE if status == kernel.NON_FINITE else Status.STEP_FLOOR
            elif self.done is not None and self.done(self._solution(Status.COMPLETED, before, 0.0)):
                ended = Status.COMPLETED
            elif status == kernel.REFRESH:
                self._refresh()
            elif self.counts[0] >= self.max_steps:
                ended = Status.STEP_BUDGET
        return self._solution(ended, 0, time.perf_counter() - began)

    def _solution(self, status: Status, first: int, seconds: float) -> SeparableSolution:
        chunks = self.chunks[first:]
        start = chunks[0].t[:1] if chunks else np.zeros(1)
        return SeparableSolution(
            flow=self.flow,
            t=np.concatenate([start, *(chunk.t[1:] for chunk in chunks)]),
            h=np.concatenate([np.zeros(0), *(chunk.h for chunk in chunks)]),
            status=status,
            message=status.value,
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

    def _advance(self, kernel: Any) -> int:
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
        place = np.empty((records + 1 if power else 0, len(self.flow.sign), w))
        place[:1] = self.place[:, :w]
        t[0], z[0], nu[:1] = self.clock[0], self.z, self.nu
        self.counts[4:] = 0
        budget = self.max_steps - int(self.counts[0])
        if self.progress is not None or self.done is not None:
            budget = min(budget, _LOOK)
        status = kernel.advance(
            self.gram, self.columns, float(self.flow.n), self.drive, power, *self.exponential, squares, series,
            self.reach, self.tol, self.t_end, budget, *self.outside,
            self.clock, self.z, self.z_low, self.place, self.nu, self.counts,
            t, h, z, rate, place, nu, pointer, which, coefficients,
        )  # fmt: skip
        steps, used = int(self.counts[4]), int(self.counts[5])
        if steps:
            self.chunks.append(
                _Chunk(
                    loaded=None if self.all_loaded else self.loaded,
                    gram=self.gram,
                    columns=self.columns,
                    product=(power, squares, series),
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

    def _line_up(self) -> None:
        """What the multistep loop works with: flat arrays, in rows of whole vectors that begin with a cache line."""
        from flowsim.solvers.multistep import HISTORY, workspace

        flow, d, K = self.flow, self.flow.d, len(self.flow.sign)
        width = -(-d // _LINE) * _LINE
        A = flow.columns(self.loaded).T
        gram = A.T @ A / flow.n
        parts = (gram, A, flow.b @ A / flow.n, flow.log_coefficient, flow.sign, flow.slope, flow.decay)
        heights = [len(part) if part.ndim == 2 else 1 for part in parts]
        sizes, floats, integers = workspace(d, K, flow.rows)
        room = _lined((sum(heights) + 1) * width + floats)
        rows = []
        for part, height in zip(parts, heights, strict=True):
            here, room = room[: height * width], room[height * width :]
            here.reshape(height, width)[:, :d] = part
            rows.append(here)
        rows[3].reshape(K, width)[:, d:] = -np.inf
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        gain, room = room[:width], room[width:]
        steep = np.where(flow.log_coefficient > -np.inf, np.abs(flow.slope), 0.0)
        np.max(steep, axis=0, out=gain[:d], initial=0.0)
        gain *= 0.5
        self.rows = (rows[0], rows[1], float(flow.n), *rows[2:], gain, np.abs(gram).max(axis=1))
        self.work = (sizes, room, np.zeros(integers, dtype=np.int64), np.empty(HISTORY + 2))
        self.records = _FEW_RECORDS

    def _march(self) -> int:
        from flowsim.solvers import multistep

        kernel: Any = multistep
        d, records = self.flow.d, self.records
        self.records = min(2 * records, _RECORDS)
        t, h = np.empty(records + 1), np.empty(records)
        z, f, bend = np.empty((records + 1, d)), np.empty((records + 1, d)), np.empty((records + 1, d))
        self.counts[4:] = 0
        budget = self.max_steps - int(self.counts[0])
        if self.progress is not None or self.done is not None:
            budget = min(budget, _LOOK)
        status = kernel.march(
            *self.rows, self.tol, self.t_end, budget, *self.work, self.clock, self.counts, t, h, z, f, bend
        )
        steps = int(self.counts[4])
        if steps:
            flow, ends = self.flow, slice(0, steps + 1)
            exponential = (flow.log_coefficient, flow.sign, flow.slope, flow.decay)
            self.chunks.append(_Nodes(t[ends], h[:steps], z[ends], f[ends], bend[ends], exponential))
        return int(status)

    def _load(self, index: NDArray[np.int64], z: Array, z_low: Array) -> None:
        flow = self.flow
        self.loaded = index
        self.columns = flow.columns(index)
        # Without Gram matrix the loop works in the rows of A.
        with_gram = len(index) <= max(_LOAD_ALL, 2 * flow.rows)
        self.gram = self.columns @ self.columns.T / flow.n if with_gram else np.zeros((0, 0))
        self.drive = self.columns @ flow.b / flow.n
        self.exponential = tuple(
            np.ascontiguousarray(part[:, index]) for part in (flow.log_coefficient, flow.sign, flow.slope, flow.decay)
        )
        if self.all_loaded and with_gram:
            self.reach = np.abs(self.gram).max(axis=1)
        else:
            self.reach = flow.norms[index] * self.rate_bound
        self.z, self.z_low = z, z_low
        if self.flow.power == 0:
            self.place = np.empty((len(self.flow.sign), len(index)))

    def _refresh(self) -> None:
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
