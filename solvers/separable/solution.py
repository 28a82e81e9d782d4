"""The solution of an integration: its steps, evaluated by compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.arclength import ArcLength
from flowsim.solvers.array_kinds import Array
from flowsim.solvers.multistep.constants import SQUARED
from flowsim.solvers.separable.curves import Curves
from flowsim.solvers.separable.flow import SeparableFlow, compiled_reading
from flowsim.solvers.solution import Status, places

#: Entries of a dense evaluation at once, and of one whose arrays fit a cache.
_EVALUATE, _AT_ONCE = 1 << 22, 1 << 13


class Steps(Protocol):
    """Some steps of a run, with their continuous extension."""

    @property
    def t(self) -> Array: ...
    @property
    def h(self) -> Array: ...
    @property
    def loaded(self) -> NDArray[np.int64] | None: ...

    def speeds(self, nodes: Array) -> Array: ...

    def states(self, flow: SeparableFlow, step: NDArray[np.intp], theta: Array) -> tuple[Array, Array]: ...


@dataclass(eq=False)
class NodeSteps:
    """Steps of the multistep method: z, f = z' and f' at their ends."""

    t: Array  # (S + 1,)
    h: Array  # (S,)
    order: Array  # (S,): past points in the formula
    nodes: Array  # (3, S + 1, d): z, f and f'
    exponential: tuple[Array, ...]
    curves: Curves | None = None
    loaded: NDArray[np.int64] | None = None  # None: all; else z is that of these coordinates, and nu

    def speeds(self, nodes: Array) -> Array:
        """``|d beta/dt|`` at positions `nodes` of every step."""
        from flowsim.solvers.multistep.reading import bends

        out, K = np.empty((len(self.h), len(nodes))), np.arange(1, 6)
        powers, block = nodes[:, None] ** K, max(1, _AT_ONCE // (self.nodes.shape[2] * len(nodes)))
        for rows in (slice(first, first + block) for first in range(0, len(out), block)):
            h, (z, f, df) = self.h[rows, None], self.nodes[:, rows.start : rows.stop + 1]
            square = np.minimum(h, SQUARED) ** 2
            line, curve = h * f[:-1], square * df[:-1]
            bent = bends.py_func(np.diff(z, axis=0), line, h * f[1:], curve, square * df[1:])
            change = np.stack([line, 0.5 * curve, *bent], axis=1)
            t = self.t[rows.start : rows.start + len(h), None] + nodes * h
            rate = (K * powers / nodes[:, None] / h[:, None]) @ change
            out[rows] = np.linalg.norm(self._speed(z[:-1, None] + powers @ change, t[:, :, None], rate), axis=2)
        return out

    def _speed(self, z: Array, t: Array, rate: Array) -> Array:
        """``d beta/dt`` from z (S, N, d) and its derivative at t (S, N, 1)."""
        if self.curves is not None:
            return self.curves(z.reshape(-1, z.shape[2]))[1].reshape(z.shape) * rate
        total = np.zeros(z.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            for log_coefficient, sign, slope, decay in zip(*self.exponential, strict=True):
                total += np.exp(slope * z + log_coefficient - decay * t) * ((sign * slope) * rate - sign * decay)
        return total

    def states(self, flow: SeparableFlow, step: NDArray[np.intp], theta: Array) -> tuple[Array, Array]:
        """z at positions `theta` of steps."""
        from flowsim.solvers.multistep.reading import between

        out = np.empty((len(step), self.nodes.shape[2]))
        between(self.h, *self.nodes, step, theta, out)
        if self.loaded is not None:
            return out[:, : len(self.loaded)], out[:, len(self.loaded) :]
        return out, np.empty((0, flow.rows))


@dataclass(eq=False)
class SeparableSolution:
    """The steps taken and a continuous extension of the same accuracy.

    Attributes
    ----------
    flow : SeparableFlow
    t : array (T,)
        0 and the end of every step. Where a jump is shorter than the spacing of floats, ends repeat.
    h : array (T - 1,)
        Lengths of the steps, more accurate than differences of `t`.
    status : Status
    message : str
    stats : dict
        steps, rejected, nfev, njev, nlu, passes (over A), seconds.
    """

    flow: SeparableFlow
    t: Array
    h: Array
    status: Status
    message: str
    stats: dict[str, Any]
    chunks: Sequence[Steps] = field(repr=False, default=())

    @property
    def start(self) -> Array:
        """The first state, (N,)."""
        return np.zeros(self.flow.d) if self.flow.distance is None else self.flow.distance.ravel()

    @cached_property
    def z(self) -> Array:
        """(T, N) at the ends of the steps."""
        return self.at_steps(np.arange(len(self.h)), np.zeros(len(self.h)), with_end=True)

    @property
    def y(self) -> Array:
        """The states z, as in :class:`flowsim.solvers.Solution`."""
        return self.z

    def arclength(self, constant: float) -> ArcLength:
        """The integral of ``constant + |d beta/dt|`` along the run."""
        nodes = ArcLength.nodes()
        parts = [chunk.speeds(nodes) for chunk in self.chunks]
        speed = np.concatenate([np.zeros((0, len(nodes))), *parts])
        return ArcLength.of_samples(self.t, self.h, constant + speed)

    def __call__(self, times: Array) -> Array:
        """z at times (K,) inside the run, shape (K, d)."""
        return self.at_steps(*self.locate(times))

    def locate(self, times: Array) -> tuple[NDArray[np.intp], Array]:
        """The step that contains each time, and the position in it, 0 to 1."""
        return places(self.t, self.h, np.asarray(times, dtype=float))

    def at_steps(self, step: NDArray[np.intp], theta: Array, with_end: bool = False, out: Array | None = None) -> Array:
        """z at positions `theta` of the steps `step`, shape (K, d); with the run's end appended on request.

        Of many coordinates in `out`, if given.
        """
        flow = self.flow
        if len(self.h) == 0:
            return np.repeat(self.start[None], len(step) + with_end, axis=0)
        if with_end:
            step, theta = np.append(step, len(self.h) - 1), np.append(theta, 1.0)
        if len(self.chunks) == 1 and self.chunks[0].loaded is None:
            return self.chunks[0].states(flow, step, theta)[0]
        out = np.empty((len(step), len(self.start))) if out is None else out
        self._fill(out, step, theta, None)
        return out

    def sums_at(self, times: Array) -> tuple[Array, NDArray[np.intp], Array] | None:
        """beta (K, d), step and position of times, without computing z; None where that is not possible."""
        flow = self.flow
        chunk = self.chunks[0] if len(self.chunks) == 1 else None
        if not isinstance(chunk, NodeSteps) or chunk.loaded is not None or flow.terms is None:
            return None
        K = len(times)
        out, step, position = np.empty((K, flow.d)), np.empty(K, dtype=np.intp), np.empty(K)
        kernel: Any = compiled_reading()
        apart = chunk.nodes.strides[0] // out.itemsize
        kernel.sums_at(flow.terms, chunk.t, chunk.h, chunk.nodes[0], apart, times, step, position, out)
        return out, step, position

    def some_at_steps(self, step: NDArray[np.intp], theta: Array, only: NDArray[np.intp]) -> Array:
        """z of the coordinates `only`, of sums of exponentials, shape (K, len(only)), without the others."""
        out = np.zeros((len(step), len(only)))
        if len(self.h):
            self._fill(out, step, theta, only)
        return out

    def _fill(self, out: Array, step: NDArray[np.intp], theta: Array, only: NDArray[np.intp] | None) -> None:
        """Compute z of all or some coordinates, a few rows at a time."""
        flow = self.flow
        of, filled = flow.filled if only is None else (flow, None)
        A = of.A if only is None else flow.columns(only).T
        first = np.cumsum([0] + [len(chunk.h) for chunk in self.chunks])
        block = max(1, _EVALUATE // flow.d)
        for number, chunk in enumerate(self.chunks):
            rows = np.flatnonzero((step >= first[number]) & (step < first[number + 1]))
            for begin in range(0, len(rows), block):
                part = rows[begin : begin + block]
                local, position = step[part] - first[number], theta[part]
                inside, nu = chunk.states(flow, local, position)
                if chunk.loaded is None:
                    out[part] = inside if only is None else inside[:, only]
                    continue
                z = np.asarray(A.T @ nu.T)
                z /= flow.n
                if filled is None:
                    out[part] = z.T
                else:
                    out[part] = 0.0
                    out[part[:, None], filled] = z.T
                if only is None:
                    out[np.ix_(part, chunk.loaded)] = inside
                else:
                    _, here, there = np.intersect1d(only, chunk.loaded, return_indices=True)
                    out[np.ix_(part, here)] = inside[:, there]
