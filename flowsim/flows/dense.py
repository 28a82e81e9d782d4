"""Dense output of a run: its state at any value of any clock, and at any position in any step."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.flows.coordinates import Coordinates, Observed
from flowsim.problem import Problem
from flowsim.results import TIME_CLOCKS, Clock, State
from flowsim.results.state import TIMES
from flowsim.solvers import ArcLength, Occurrence, SeparableSolution, Solution, Status

#: A run of no steps.
NOTHING = Solution(np.zeros(1), np.zeros((1, 0)), [], Status.COMPLETED, "", {})

_ALL = slice(None)
#: Fields of a State that are clocks, and those that coordinates observe.
_CLOCK_OF: dict[str, Clock] = dict(zip(TIMES, TIME_CLOCKS, strict=True))
_OBSERVED = {each.name for each in fields(Observed)}
#: Entries of states computed at once, where not all are kept.
_ENTRIES = 1 << 20


@dataclass(eq=False)
class DenseOutput:
    """The state at any value of any clock, and at any position in any step.

    Times are in the coordinates' unit, like the solution's independent variable; values of a clock are in the clock's.
    """

    #: clocks that are proportional to the solution's variable
    PROPORTIONAL: ClassVar[tuple[Clock, ...]] = ("time", "accelerated")

    coordinates: Coordinates
    problem: Problem
    solution: Solution | SeparableSolution
    acceleration: float
    #: arc length before the solution begins
    covered: float = 0.0
    #: further binary exponent of the unit of time
    exponent: int = 0
    #: where the run ends, a step and a position in it; None for the end of the last step
    end: tuple[int, float] | None = None

    @property
    def t(self) -> Array:
        return self.solution.t

    @property
    def h(self) -> Array:
        return self.solution.h

    @property
    def size(self) -> int:
        return self.problem.d * self.problem.n_targets

    @property
    def unit(self) -> float:
        """The unit of time; infinite beyond the range of floats."""
        if not self.coordinates.log_unit and not self.exponent:
            return 1.0
        try:
            return math.ldexp(math.exp(self.coordinates.log_unit), self.exponent)
        except OverflowError:
            return math.inf

    def pace(self, t: Array, y: Array) -> Array:
        """``||d beta/dt||``."""
        with np.errstate(over="ignore", invalid="ignore"):
            velocity = self.coordinates.velocity(t, y)
            flat = velocity.reshape(len(velocity), -1)
            # Squares of a rate may leave the range of floats where the rate itself does not.
            size = np.abs(flat).max(axis=1, initial=sys.float_info.min)
            return np.asarray(np.linalg.norm(flat / size[:, None], axis=1) * size)

    @cached_property
    def travelled(self) -> ArcLength:
        """The distance alone, ``int ||d beta||``, which for a slow flow would be lost to rounding beside the time."""
        solution = self.solution
        if isinstance(solution, SeparableSolution):
            return solution.arclength(0.0).times(2.0**self.coordinates.beta_exponent)
        h = np.diff(solution.t)
        if len(h) == 0:
            return ArcLength.of_samples(solution.t, h, h)
        t = (solution.t[:-1, None] + h[:, None] * ArcLength.places_of_curves()).ravel()
        y = solution(t)
        inner = self.pace(t, y).reshape(len(h), -1)[:, 1:-1]
        beta = self.coordinates.predictor(t, y).reshape(len(h), inner.shape[1] + 2, -1)
        return ArcLength.of_samples(solution.t, h, inner.ravel()).within_curves(beta)

    @cached_property
    def arclength(self) -> ArcLength:
        length = self.travelled.plus(self.acceleration)
        return replace(length, values=length.values + self.covered)

    def __call__(self, values: Array, clock: Clock) -> State:
        return self.look(values, clock).state

    def span(self, clock: Clock) -> tuple[float, float]:
        """Where the run begins and ends on a clock; (0, 0) if it took no step."""
        if not len(self.h):
            return 0.0, 0.0
        step, position = (len(self.h) - 1, 1.0) if self.end is None else self.end
        first, last = self.at_steps(np.array([0, step]), np.array([0.0, position])).state.clock_values(clock)
        return float(first), float(last)

    def after(self, steps: Solution | SeparableSolution) -> DenseOutput:
        """The dense output of the next steps."""
        return replace(self, solution=steps, covered=float(self.arclength.values[-1]))

    def horizon(self, value: float, clock: Clock) -> float:
        """A time by which the clock has taken the value, at which the integration may stop."""
        return max(value / (self.unit if clock == "time" else self.acceleration), sys.float_info.min)

    def variable(self, view: View) -> Array:
        """The values of the independent variable at which runs are compared."""
        return view.t

    def goal(self, value: float) -> tuple[Clock, float] | None:
        """The clock and value that a run must reach, where it differs from the integrator's variable; else None."""
        return None

    def on(self, clock: Clock, step: Index, position: Array) -> Array:
        """Values of a clock at positions, 0 to 1, in steps."""
        return self.at_steps(step, position).on(clock)

    def places(self, values: Array, clock: Clock) -> tuple[Array, Index, Array]:
        """The points at which a clock takes values: time, step and position."""
        solution = self.solution
        if clock == "arclength":
            step, position = self.arclength.places(values)
            t = solution.t[step] + position * solution.h[step] if len(solution.h) else np.zeros(len(values))
            return t, step, position
        t = self._times(values, clock)
        return t, *solution.locate(t)

    def _times(self, values: Array, clock: Clock) -> Array:
        """Values of the clocks of time in the coordinates' unit."""
        return values / (self.acceleration if clock == "accelerated" else self.unit)

    def look(self, values: Array, clock: Clock, end: Occurrence | None = None) -> View:
        """The view at values of a clock, and at the event that ended the run, if any."""
        if end is None and clock in self.PROPORTIONAL:
            return self._at(self._times(values, clock), {clock: lambda: values})
        last = None if end is None else self.at_steps(np.array([end.step]), np.array([end.position]))
        if last is not None:
            values = values[values < last.on(clock)]
        t, step, position = self.places(values, clock)
        if last is not None:
            values, t = np.append(values, last.on(clock)), np.append(t, last.t)
            step, position = np.append(step, last.step), np.append(position, last.position)
        # The requested values exactly, not after conversion to time and back.
        return self._view(t, step, position, {clock: lambda: values})

    def some(self, values: Array, clock: Clock, only: Index) -> Array:
        """beta of some coordinates at values of a clock, (K, len(only)), without the others where that can be."""
        if self.coordinates.has_fast_reading and isinstance(self.solution, SeparableSolution):
            t, step, position = self.places(values, clock)
            beta = self.coordinates.predictor_of(t, self.solution.some_at_steps(step, position, only), only)
            if beta is not None:
                return beta
        return self.look(values, clock).beta.reshape(len(values), -1)[:, only]

    def at(self, t: Array) -> View:
        """The view at times in the coordinates' unit."""
        return self._at(t, {})

    def _at(self, t: Array, known: Mapping[Clock, Callable[[], Array]]) -> View:
        """The view at times, with beta where it is read without the states."""
        solution = self.solution
        is_fast, found = self.coordinates.has_fast_reading, None
        if is_fast and isinstance(solution, SeparableSolution) and len(t) * self.size <= _ENTRIES:
            found = self.coordinates.predictor_at_times(solution, t)
        if found is None:
            return self._view(t, *solution.locate(t), known)
        beta, step, position = found
        view = self._view(t, step, position, known)
        view.beta = beta
        return view

    def _view(self, t: Array, step: Index, position: Array, known: Mapping[Clock, Callable[[], Array]]) -> View:
        solution = self.solution
        if isinstance(solution, SeparableSolution):
            # By step and position: a jump can be shorter than the spacing of times.
            states = lambda part: solution.at_steps(step[part], position[part])  # noqa: E731
            return View(self, t, states, step, position, known)
        return View(self, t, lambda part: solution(t[part]), step, position, known)

    def at_steps(self, step: Index, position: Array) -> View:
        """The view at positions, 0 to 1, in steps."""
        t = self.t[step] + position * self.h[step]
        return View(self, t, lambda part: self.solution.at_steps(step[part], position[part]), step, position, {})

    def steps(self, end: Occurrence | None = None) -> View:
        """The view at the ends of the steps, up to the event that ended the run."""
        if end is not None:
            step = np.append(np.arange(end.step + 1), end.step)
            return self.at_steps(step, np.append(np.zeros(end.step + 1), end.position))
        return View(self, self.t, self._at_ends, *self._ends, {"arclength": lambda: self.arclength.values})

    @property
    def _ends(self) -> tuple[Index, Array]:
        """The ends of all steps as steps and positions in them."""
        count = np.arange(len(self.t))
        return np.minimum(count, max(len(self.h) - 1, 0)), (count == len(self.h)).astype(float)

    def _at_ends(self, part: slice) -> Array:
        return self.solution.y if part == _ALL else self.solution.y[part]


@dataclass(eq=False)
class View:
    """States at some points of a run, computed on first access."""

    dense: DenseOutput
    t: Array
    #: the states of a slice of the points
    read: Callable[[slice], Array]
    step: Index
    position: Array
    #: known values of clocks
    known: Mapping[Clock, Callable[[], Array]]

    def on(self, clock: Clock) -> Array:
        """The places on a clock."""
        if clock in self.known:
            return self.known[clock]()
        if clock == "time":
            # Infinite on overflow.
            with np.errstate(over="ignore", invalid="ignore"):
                return np.where(self.t == 0.0, 0.0, self.t * self.dense.unit)
        if clock == "accelerated":
            return self.t * self.dense.acceleration
        return self.dense.arclength.at_steps(self.step, self.position)

    @cached_property
    def speed(self) -> Array:
        """``||d beta|| / d accelerated_time``."""
        rates = self.dense.travelled.rates(self.step, self.position)
        with np.errstate(over="ignore"):  # in a jump at alpha = 1e-550 it overflows
            return np.maximum(rates / self.dense.acceleration, 0.0)

    @property
    def state(self) -> State:
        return State.of(self.field)

    @cached_property
    def y(self) -> Array:
        return self.read(_ALL)

    @cached_property
    def beta(self) -> Array:
        coordinates, solution = self.dense.coordinates, self.dense.solution
        predictor, rows = coordinates.predictor, max(1, _ENTRIES // self.dense.size)
        if len(self.t) <= rows or not isinstance(solution, SeparableSolution):
            return predictor(self.t, self.y)
        # With many features the states are as large as beta, which takes their place where it can.
        beta = np.empty((len(self.t), self.dense.size))
        for first in range(0, len(self.t), rows):
            part = slice(first, first + rows)
            if coordinates.has_fast_reading:
                states = solution.at_steps(self.step[part], self.position[part], out=beta[part])
                values = coordinates.predictor_into(self.t[part], states)
            else:
                values = predictor(self.t[part], self.read(part))
            shape = values.shape[1:]
            if not np.may_share_memory(values, beta):
                beta[part] = values.reshape(-1, self.dense.size)
            del values  # before the next are allocated
        return beta.reshape(len(self.t), *shape)

    @cached_property
    def loss(self) -> Array:
        known = self.dense.coordinates.loss(self.t, self.y)
        return self.dense.problem.loss(self.beta) if known is None else known

    @cached_property
    def log_loss(self) -> Array:
        return self.dense.problem.log_loss(self.beta)

    @cached_property
    def seen(self) -> Observed:
        return self.dense.coordinates.observe(self.t, self.y)

    @cached_property
    def departure(self) -> Array:
        coordinates, solution = self.dense.coordinates, self.dense.solution
        along = coordinates.departure_along(solution, self.t) if isinstance(solution, Solution) else None
        return coordinates.departure(self.t, self.y, lambda: self.seen) if along is None else along

    def field(self, name: str) -> Any:
        """A field of a State, or of a Trajectory that it does not share with all of its run."""
        if name in _CLOCK_OF:
            return self.on(_CLOCK_OF[name])
        if name == "feature_names":
            return self.dense.problem.feature_names
        if name == "imbalance_drift":
            return float(self.departure.max())
        if name == "imbalance_departure":
            return self.departure
        if name in _OBSERVED:
            return getattr(self.seen, name)
        if name == "levels":
            return self.dense.coordinates.levels(self.t, self.y)
        return getattr(self, name)
