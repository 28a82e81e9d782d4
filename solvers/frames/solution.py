"""The steps of a matrix flow, and its state at any position in them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames.collocation import Damping, damping_of, propagate
from flowsim.solvers.frames.explicit import method, read
from flowsim.solvers.frames.frame import Frame, values_of
from flowsim.solvers.frames.nonlinear import StageEquations
from flowsim.solvers.frames.plateau import PlateauStep
from flowsim.solvers.frames.problem import FrameProblem, rates_of
from flowsim.solvers.gauss import gauss_tableau, lagrange_weights
from flowsim.solvers.solution import Status

#: Nodes of the collocation that propagates the frames of explicit steps.
_NODES = 6
#: Relative size of directions that floats hold to ten digits beside the largest.
_SEEN = 1e-6
#: Logarithm of the largest part of a state below which it is evaluated with a separate scale.
_SMALLEST_PLAIN = -100.0


@dataclass(frozen=True, eq=False)
class FrameStates:
    """K states, ``Z exp(-shift)``.

    Attributes
    ----------
    first, second : array (K, R, k), (K, p, k)
    shift : array (K,)
    solution, step, position
        The solution and the points at which they are evaluated.
    """

    first: Array
    second: Array
    shift: Array
    solution: FrameSolution
    step: NDArray[np.intp]
    position: Array

    def __len__(self) -> int:
        return len(self.step)

    @property
    def plain(self) -> tuple[Array, Array]:
        """The halves as they were integrated, where the conserved quantity is not that of the start to rounding."""
        return self.first, self.second

    @property
    def product(self) -> Array:
        """``Z_1 Z_2^T exp(-2 shift)``, (K, R, p)."""
        first, second = self.plain
        return first @ np.swapaxes(second, -1, -2)

    @cached_property
    def logs(self) -> Array:
        """Logarithms of the directions at each state, (K, w), descending."""
        return np.array(
            [self.solution.frame_at(int(s), float(x)).logs for s, x in zip(self.step, self.position, strict=True)]
        ).reshape(len(self), -1)

    @cached_property
    def conserved(self) -> list[tuple[Array, float]]:
        """``Z^T J Z`` of paired frames, (k, k), and the logarithms of its units.

        Inside a step the frame of its start is used, since the quantity is conserved.
        """
        out = []
        for number, place in zip(self.step, self.position, strict=True):
            if not self.solution.steps:
                out.append(self.solution.start.conserved())
            elif place >= 1.0:
                out.append(self.solution.steps[number].end.conserved())
            else:
                step = self.solution.steps[number]
                matrix, unit = step.start.conserved()
                out.append((matrix, unit - 2 * step.damping * place * step.h))
        return out


class _Unread(FrameStates):
    """States of the explicit method, whose halves by frames are computed on access."""

    def __init__(self, solution: FrameSolution, step: NDArray[np.intp], position: Array) -> None:
        for name, value in (("solution", solution), ("step", step), ("position", position)):
            object.__setattr__(self, name, value)

    @cached_property
    def shift(self) -> Array:
        is_plain = np.abs(self._integrated).max(axis=(1, 2), initial=0.0) > math.exp(_SMALLEST_PLAIN)
        return np.zeros(len(self)) if is_plain.all() else self._halves.shift

    @property
    def plain(self) -> tuple[Array, Array]:
        if self.shift.any():
            return self.first, self.second
        R = len(self.solution.start.A)
        return self._integrated[:, :R], self._integrated[:, R:]

    @cached_property
    def _integrated(self) -> Array:
        """Z, (K, R + p, k); all of a step at once."""
        order, steps = np.flatnonzero(np.diff(self.step, prepend=-1)), self.solution.steps
        parts = np.split(self.position, order[1:])
        return np.concatenate([steps[self.step[at]].read(part) for at, part in zip(order, parts, strict=True)])

    @cached_property
    def _halves(self) -> FrameStates:
        return self.solution.read_steps(self.step, self.position)

    @property
    def first(self) -> Array:
        return np.exp(self._halves.shift - self.shift)[:, None, None] * self._halves.first

    @property
    def second(self) -> Array:
        return np.exp(self._halves.shift - self.shift)[:, None, None] * self._halves.second


@dataclass(frozen=True, eq=False)
class CollocationStep:
    """A collocation step from ``start`` to ``end``; G at 0, the nodes and 1.

    Where `tol` is positive the step is long relative to relaxation, and the polynomial through G is less accurate
    between the nodes than the product: the equations of the step up to a position are solved again.
    """

    t: float
    h: float
    start: Frame
    end: Frame
    nodes: Array
    G: Array
    problem: FrameProblem
    tol: float

    @property
    def damping(self) -> float:
        """Uniform damping of a paired frame."""
        return self.problem.uniform or 0.0

    @cached_property
    def _equations(self) -> StageEquations:
        equations = StageEquations(self.problem, gauss_tableau(len(self.nodes) - 2), self.tol, defaultdict(int))
        equations.begin(self.start, self.G[0], -np.inf)
        return equations

    def up_to(self, position: float) -> tuple[Array, float, Damping]:
        """G at the nodes of the step from the same start to a position, its length, its damping."""
        tableau = gauss_tableau(len(self.nodes) - 2)
        G = np.ascontiguousarray(np.tensordot(lagrange_weights(self.nodes, position * tableau.c), self.G, axes=1))
        h = position * self.h
        if self.tol > 0:
            solved = self._equations.solve(G, h)
            G = G if solved is None else solved
        return G, h, damping_of(tableau, h, *rates_of(self.problem))

    def _propagated(self, position: float, first: Array, second: Array) -> tuple[Array, Array]:
        G, h, damping = self.up_to(position)
        first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)
        moved: tuple[Array, Array] = propagate(G, h, damping, first, second)[1]
        return moved

    def stages(self) -> tuple[Array, Array, float]:
        """Stage values (s, R, k), (s, p, k) of ``Z exp(-shift)``, and the shift."""
        shift = _shift(self.start.scale)
        first, second = (np.ascontiguousarray(half) for half in self.start.value(shift))
        damping = damping_of(gauss_tableau(len(self.nodes) - 2), self.h, *rates_of(self.problem))
        at, _ = propagate(np.ascontiguousarray(self.G[1:-1]), self.h, damping, first, second)
        return at.Z1, at.Z2, shift

    def values(self, position: float, shift: float) -> tuple[Array, Array]:
        first, second = self._propagated(position, *self.start.value(shift))
        factor = math.exp(-self.damping * position * self.h)
        return factor * first, factor * second

    def frame(self, position: float) -> Frame:
        moved = self._propagated(position, *self.start.columns())
        return self.start.advanced(*moved, self.damping * position * self.h)


class StepChain:
    """A sequence of explicit steps, whose frames are computed on access: length, Z (R + p, k) at both ends, its turn.

    Frames are propagated by collocation with the values of G at the product at the nodes, which keeps the conserved
    quantity to rounding, and follow Z.

    A turn is the orthogonal matrix (k, k) that the columns of Z were multiplied by, None for the identity.
    """

    def __init__(self, problem: FrameProblem, start: Frame) -> None:
        self.problem = problem
        self.steps: list[tuple[float, Array, Array, Array | None]] = []
        self._frames = [start]

    def read(self, number: int, positions: Array) -> Array:
        """Z at positions (K,) of a step, (K, R + p, k), by the method's dense output."""
        h, Z, after, turn = self.steps[number]
        if (positions % 1.0).any():
            out = read(method(), self.problem.linear, self.problem.uniform or 0.0, Z, h, positions)
        else:
            out = np.array([after if position else Z for position in positions])
        return out if turn is None else out @ turn.T

    def values(self, number: int) -> tuple[Array, Array, Array]:
        """G at 0, the nodes and 1 of a step; the nodes; Z at its end."""
        nodes = np.concatenate([[0.0], gauss_tableau(_NODES).c, [1.0]])
        Z, R = self.read(number, nodes), self.problem.shape[0]
        product = Z[:, :R] @ np.swapaxes(Z[:, R:], -1, -2)
        return np.ascontiguousarray(self.problem.coupling.value(product)), nodes, Z[-1]

    def frame(self, number: int) -> Frame:
        """The frame at the start of a step, or at the end of the last."""
        tableau = gauss_tableau(_NODES)
        while len(self._frames) <= number:
            now, frame = len(self._frames) - 1, self._frames[-1]
            h, (G, _, Z) = self.steps[now][0], self.values(now)
            first, second = (np.ascontiguousarray(each) for each in frame.columns())
            damping = damping_of(tableau, h, *rates_of(self.problem))
            first, second = propagate(G[1:-1], h, damping, first, second)[1]
            self._frames.append(_turned_towards(Z, frame.advanced(first, second, (self.problem.uniform or 0.0) * h)))
        return self._frames[number]


def _turned_towards(Z: Array, frame: Frame) -> Frame:
    """A frame whose largest directions are those of a Z nearby; its conserved quantity is unchanged.

    In a known G errors of grown directions would grow like waiting ones. The change is ``1 + E``, E that of the
    directions of Z that floats hold well, made to satisfy ``E^T J + J E = 0``, by Cayley's transform.
    """
    own, columns = np.concatenate(frame.value()), np.concatenate(frame.columns())
    left, sizes, right = np.linalg.svd(own, full_matrices=False)
    seen = sizes > _SEEN * sizes[0]
    E = ((Z - own) @ right[seen].T / sizes[seen]) @ left[:, seen].T
    J = np.where(np.arange(len(E)) < len(frame.A), 1.0, -1.0)
    half = 0.25 * (E - J[:, None] * E.T * J)
    first, second = np.split(np.linalg.solve(np.eye(len(E)) - half, columns + half @ columns), [len(frame.A)])
    return frame.advanced(first, second)


@dataclass(frozen=True, eq=False)
class ExplicitStep:
    """One step of a chain."""

    t: float
    h: float
    chain: StepChain
    number: int

    def read(self, positions: Array) -> Array:
        return self.chain.read(self.number, positions)

    @property
    def damping(self) -> float:
        return self.chain.problem.uniform or 0.0

    @property
    def start(self) -> Frame:
        return self.chain.frame(self.number)

    @property
    def end(self) -> Frame:
        return self.chain.frame(self.number + 1)

    @cached_property
    def collocated(self) -> CollocationStep:
        """The same step as a collocation step, with frames inside."""
        G, nodes, _ = self.chain.values(self.number)
        return CollocationStep(self.t, self.h, self.start, self.end, nodes, G, self.chain.problem, 0.0)

    def values(self, position: float, shift: float) -> tuple[Array, Array]:
        return self.collocated.values(position, shift)

    def frame(self, position: float) -> Frame:
        return self.collocated.frame(position)


def _shift(scale: float) -> float:
    """The shift for a state of a given scale: 0 where squares do not underflow."""
    return scale if -np.inf < scale < _SMALLEST_PLAIN else 0.0


@dataclass(frozen=True, eq=False)
class FrameSolution:
    """The steps taken and a continuous extension over them.

    Attributes
    ----------
    start : Frame
    steps : sequence of CollocationStep and PlateauStep
    t : array (T,)
        0 and the end of every step.
    status, message, stats
        As in :class:`flowsim.solvers.Solution`.
    """

    start: Frame
    steps: Sequence[CollocationStep | ExplicitStep | PlateauStep]
    t: Array
    status: Status
    message: str
    stats: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[FrameSolution]) -> FrameSolution:
        """Successive solutions as one, which ends like the last."""
        if len(parts) == 1:
            return parts[0]
        last, times = parts[-1], [part.t[1:] for part in parts[1:]]
        stats = {key: sum(part.stats[key] for part in parts) for key in last.stats} | {"rests": last.stats["rests"]}
        steps = [step for part in parts for step in part.steps]
        return cls(parts[0].start, steps, np.concatenate([parts[0].t, *times]), last.status, last.message, stats)

    def integral(self, rate: Callable[[FrameStates], Array], value: Callable[[FrameStates], Array]) -> Array:
        """The integral of the rate of a quadratic form up to the end of every step, (T, ...).

        By the stages of the steps, which satisfy the law of a quadratic form to rounding; over a plateau,
        where the exponential does, by the change of the form.
        """
        ends = value(self.y)
        total = [np.zeros_like(ends[0])]
        for number, step in enumerate(self.steps):
            if isinstance(step, PlateauStep):
                change = ends[number + 1] - ends[number]
            else:
                assert isinstance(step, CollocationStep)  # explicit steps are of paired frames, which need no integral
                first, second, shift = step.stages()
                b = gauss_tableau(len(first)).b
                nowhere = np.full(len(b), number), np.zeros(len(b))
                change = np.tensordot(
                    step.h * b, rate(FrameStates(first, second, np.full(len(b), shift), self, *nowhere)), axes=1
                )
            total.append(total[-1] + change)
        return np.array(total)

    @cached_property
    def h(self) -> Array:
        return np.array([step.h for step in self.steps])

    @cached_property
    def y(self) -> FrameStates:
        """States at the ends of the steps."""
        count = np.arange(len(self.t))
        step = np.minimum(count, max(len(self.steps) - 1, 0))
        return self.at_steps(step, (count == len(self.steps)).astype(float))

    def frame_at(self, step: int, position: float) -> Frame:
        """The frame at a position, 0 to 1, of a step."""
        if not self.steps or (step == 0 and position <= 0.0):
            return self.start
        if position >= 1.0:
            return self.steps[step].end
        return self.steps[step].start if position <= 0.0 else self.steps[step].frame(position)

    def at_steps(self, step: NDArray[np.intp], position: Array) -> FrameStates:
        """States at positions, 0 to 1, of steps."""
        if len(step) and self.steps and all(isinstance(self.steps[n], ExplicitStep) for n in np.unique(step)):
            return _Unread(self, np.asarray(step), np.asarray(position, dtype=float))
        return self.read_steps(step, position)

    def read_steps(self, step: NDArray[np.intp], position: Array) -> FrameStates:
        """The same, each by its frame."""
        (R, _), p, k = self.start.A.shape, len(self.start.B), self.start.rows.shape[1]
        first, second = np.empty((len(step), R, k)), np.empty((len(step), p, k))
        shift = np.empty(len(step))
        frames: dict[int, Frame] = {}
        for index, (number, place) in enumerate(zip(step.tolist(), position.tolist(), strict=True)):
            if 0.0 < place < 1.0 and self.steps and not isinstance(self.steps[number], PlateauStep):
                shift[index] = _shift(self.steps[number].start.scale)
                first[index], second[index] = self.steps[number].values(place, shift[index])
            else:
                frames[index] = self.frame_at(number, place)
                shift[index] = _shift(frames[index].scale)
        if frames:
            where = list(frames)
            first[where], second[where] = values_of(list(frames.values()), shift[where])
        return FrameStates(first, second, shift, self, np.asarray(step), np.asarray(position))

    def locate(self, times: Array) -> tuple[NDArray[np.intp], Array]:
        """The step that contains each time, and the position in it, 0 to 1."""
        if len(self.h) == 0:
            return np.zeros(len(times), dtype=np.intp), np.zeros(len(times))
        step = np.clip(np.searchsorted(self.t, times, side="right") - 1, 0, len(self.h) - 1)
        return step, np.clip((times - self.t[step]) / self.h[step], 0.0, 1.0)

    def __call__(self, times: Array) -> FrameStates:
        """States at times (K,) inside the run."""
        return self.at_steps(*self.locate(np.asarray(times, dtype=float)))
