"""From coordinates and a clock to a Trajectory: integrate, read, and keep the dense output."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.compiling import compiling_note
from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import Coordinates, Observed
from flowsim.flows.estimate import COMPANION_STEPS, companions, error_estimate, steps_of_companion
from flowsim.flows.happenings import WholeRun, happened, outcome, search
from flowsim.flows.solving import solve
from flowsim.problem import Problem
from flowsim.results import Clock, Deferred, State, Trajectory
from flowsim.results.events import Event
from flowsim.solvers import ArcLength, Occurrence, SeparableSolution, Solution, Status
from flowsim.version import __version__

__all__ = ["run_flow"]

Array = NDArray[np.float64]

#: Before the first step.
_NOTHING = Solution(np.zeros(1), np.zeros((1, 0)), [], Status.COMPLETED, "", {})


@dataclass(frozen=True, eq=False)
class _Dense:
    """The state at any value of any clock, and at any place of any step.

    The solution's own variable is time in the coordinates' unit, as are all times here but those of the clock.
    """

    coordinates: Coordinates
    problem: Problem
    solution: Solution | SeparableSolution
    acceleration: float
    #: arc length before the solution begins
    covered: float = 0.0
    #: the unit of time has this binary exponent besides the coordinates' own
    exponent: int = 0

    @property
    def t(self) -> Array:
        return self.solution.t

    @property
    def h(self) -> Array:
        return self.solution.h

    @property
    def size(self) -> int:
        return self.problem.d * self.problem.n_targets

    @cached_property
    def unit(self) -> float:
        return math.ldexp(math.exp(self.coordinates.log_unit), self.exponent)

    def pace(self, t: Array, y: Array) -> Array:
        """``||d beta/dt||``."""
        velocity = self.coordinates.velocity(t, y)
        return np.asarray(np.linalg.norm(velocity.reshape(len(velocity), -1), axis=1))

    @cached_property
    def travelled(self) -> ArcLength:
        """Distance alone, ``int ||d beta||``: of a slow flow it would be lost beside the time."""
        solution = self.solution
        if isinstance(solution, SeparableSolution):
            return solution.arclength(0.0).times(2.0 ** getattr(self.coordinates, "beta_exponent", 0))
        return ArcLength.along(solution.t, lambda t: self.pace(t, solution(t)))

    @cached_property
    def arclength(self) -> ArcLength:
        length = self.travelled.plus(self.acceleration)
        return replace(length, values=length.values + self.covered)

    def __call__(self, values: Array, clock: Clock) -> State:
        return self.look(values, clock).state

    def look(self, values: Array, clock: Clock, end: Occurrence | None = None) -> _View:
        """What is seen at values of a clock, and at last where an event ended the run."""
        solution = self.solution
        last = None if end is None else self.at_steps(np.array([end.step]), np.array([end.position]))
        if last is not None:
            values = values[values < last.on(clock)]
        if clock == "arclength":
            step, position = self.arclength.places(values)
            t = solution.t[step] + position * solution.h[step] if len(solution.h) else np.zeros(len(values))
        else:
            t = values / (self.acceleration if clock == "accelerated" else self.unit)
            step, position = solution.locate(t)
        if last is not None:
            values, t = np.append(values, last.on(clock)), np.append(t, last.t)
            step, position = np.append(step, last.step), np.append(position, last.position)
        # Exactly what was asked for, not what comes back through the other clock.
        return self._view(t, step, position, {clock: lambda: values})

    def at(self, t: Array) -> _View:
        """What is seen at the solution's own times."""
        return self._view(t, *self.solution.locate(t), {})

    def _view(
        self, t: Array, step: NDArray[np.intp], position: Array, known: Mapping[Clock, Callable[[], Array]]
    ) -> _View:
        solution = self.solution
        # By step and position: a jump can be shorter than the spacing of times.
        y = solution.at_steps(step, position) if isinstance(solution, SeparableSolution) else solution(t)
        return _View(self, t, y, step, position, known)

    def at_steps(self, step: NDArray[np.intp], position: Array) -> _View:
        """What is seen at positions, 0 to 1, of steps."""
        t = self.t[step] + position * self.h[step]
        return _View(self, t, self.solution.at_steps(step, position), step, position, {})

    def steps(self, end: Occurrence | None = None) -> _View:
        """What is seen at the ends of the steps, up to the event that ended the run."""
        if end is not None:
            step = np.append(np.arange(end.step + 1), end.step)
            return self.at_steps(step, np.append(np.zeros(end.step + 1), end.position))
        count = np.arange(len(self.t))
        step, position = np.minimum(count, len(self.h) - 1), (count == len(self.h)).astype(float)
        return _View(self, self.t, self.solution.y, step, position, {"arclength": lambda: self.arclength.values})


@dataclass(frozen=True, eq=False)
class _View:
    """States at some places; beta at once, the rest when it is looked at."""

    dense: _Dense
    t: Array
    y: Array
    step: NDArray[np.intp]
    position: Array
    #: values of clocks that are known already
    known: Mapping[Clock, Callable[[], Array]]

    def on(self, clock: Clock) -> Array:
        """The places on a clock."""
        if clock in self.known:
            return self.known[clock]()
        if clock == "time":
            # Infinite where it is no float.
            with np.errstate(over="ignore"):
                return self.t * self.dense.unit
        if clock == "accelerated":
            return self.t * self.dense.acceleration
        return self.dense.arclength.at_steps(self.step, self.position)

    @cached_property
    def speed(self) -> Array:
        """``||d beta|| / d accelerated_time``."""
        rates = self.dense.travelled.rates(self.step, self.position)
        with np.errstate(over="ignore"):  # of a jump at 1e-550 it is no float
            return np.maximum(rates / self.dense.acceleration, 0.0)

    @property
    def state(self) -> State:
        return State(**self.fields())

    @cached_property
    def beta(self) -> Array:
        return self.dense.coordinates.predictor(self.t, self.y)

    @cached_property
    def loss(self) -> Array:
        own = getattr(self.dense.coordinates, "loss", None)
        known: Array | None = None if own is None else own(self.t, self.y)
        return self.dense.problem.loss(self.beta) if known is None else known

    @cached_property
    def log_loss(self) -> Array:
        return self.dense.problem.log_loss(self.beta)

    @cached_property
    def seen(self) -> Observed:
        return self.dense.coordinates.observe(self.t, self.y)

    @cached_property
    def departure(self) -> Array:
        return self.dense.coordinates.departure(self.t, self.y, self.seen)

    def fields(self) -> dict[str, Any]:
        """The fields of a State."""
        return {
            "t": self.on("time"),
            "accelerated_time": self.on("accelerated"),
            "arclength": Deferred(lambda: self.on("arclength")),
            "beta": Deferred(lambda: self.beta),
            "loss": Deferred(lambda: self.loss),
            "log_loss": Deferred(lambda: self.log_loss),
            "weights": Deferred(lambda: self.seen.weights),
            "log_abs_weights": Deferred(lambda: self.seen.log_abs_weights),
            "imbalance": Deferred(lambda: self.seen.imbalance),
            "log_imbalance": Deferred(lambda: self.seen.log_imbalance),
            "speed": Deferred(lambda: self.speed),
        } | self._more()

    def _more(self) -> dict[str, Any]:
        levels = getattr(self.dense.coordinates, "levels", None)
        return {} if levels is None else {"levels": Deferred(lambda: levels(self.t, self.y))}


def run_flow(
    coordinates: Coordinates,
    problem: Problem,
    t_end: float,
    *,
    clock: Clock,
    acceleration: float,
    t_eval: Array | None,
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    progress: bool,
    info: dict[str, Any],
    estimate_error: bool = False,
    events: Sequence[Event] = (),
    exponent: int = 0,
) -> Trajectory:
    """Integrate to `t_end` on the given clock and read the result.

    Parameters
    ----------
    acceleration : float
        ``d accelerated_time / dt``, t in the coordinates' unit.
    events : sequence of Event
        To be looked for; the first occurrence of a terminal one ends the run.
    exponent : int
        The coordinates' unit of time is ``exp(log_unit) 2^exponent``: they may see the data in powers of two near their
        own.

    Raises
    ------
    IntegrationError
        With the trajectory so far, if the integrator could not reach the end.
    """
    # In all clocks the integrator's variable is time. Arc length as its variable is regular too, but its speed
    # has a kink wherever beta stands still, and every implicit method stalls there on the noise of its tolerance.
    unit = math.ldexp(math.exp(coordinates.log_unit), exponent)
    horizon = t_end / (unit if clock == "time" else acceleration)
    longest = t_end if clock == "arclength" else math.inf
    watch = _Watch(_Dense(coordinates, problem, _NOTHING, acceleration, 0.0, exponent), longest, events)
    reached: dict[Clock, Callable[[float], float]] = {
        "time": lambda t: unit * t,
        "accelerated": lambda t: acceleration * t,
        "arclength": lambda t: watch.covered,
    }
    with progress_bar(progress, t_end, reached[clock]) as advance:
        solution = solve(coordinates, horizon, method, rtol, atol, max_steps, advance, watch)
    dense = _Dense(coordinates, problem, solution, acceleration, 0.0, exponent)
    found, last = search(dense, events, longest)
    success, message = outcome(solution.status.success, solution.message, last, watch.stopped)
    end = None if last is None else (last.step, last.position)
    if clock == "arclength" and success and last is None:
        # The last steps overshoot: the run ends where the length is reached.
        step, position = dense.arclength.places(np.array([t_end]))
        end, lengths = (int(step[0]), float(position[0])), dense.arclength.values
        t_eval = np.append(lengths[lengths < t_end], t_end) if t_eval is None else t_eval
    view = dense.steps(last) if t_eval is None or not success else dense.look(t_eval, clock, last)
    estimate = None
    if estimate_error and success and len(solution.h):
        until = float(solution.t[-1]) if last is None else last.t
        estimate = _estimate(dense, view, until, method, rtol, atol, max_steps)
    if success and not _is_finite(view, problem):
        success, message = False, "the predictor left the range of floats"
    trajectory = Trajectory(
        **view.fields(),
        imbalance_drift=Deferred(lambda: float(view.departure.max())),  # type: ignore[arg-type]
        imbalance_departure=Deferred(lambda: view.departure),  # type: ignore[arg-type]
        success=success,
        message=message,
        stats=solution.stats,
        invariants=coordinates.invariants,
        feature_names=problem.feature_names,
        info={
            **info,
            "coordinates": coordinates.name,
            "clock": clock,
            "t_end": float(t_end),
            "method": method,
            "rtol": rtol,
            "atol": atol,
            "versions": dict(_versions()),
            **_remarks(coordinates, solution),
        },
        error_estimate=estimate,
        events=happened(dense, found),
        dense=WholeRun(dense, end),
    )
    if not success:
        raise IntegrationError(
            f"the flow stopped at {trajectory.clock_values(clock)[-1]:.6g} of {t_end:.6g} in {clock}: {message}.",
            trajectory,
        )
    return trajectory


def _remarks(coordinates: Coordinates, solution: Solution | SeparableSolution) -> dict[str, Any]:
    """What the coordinates have to say of the end of a run."""
    remarks = getattr(coordinates, "remarks", None)
    return {} if remarks is None else remarks(solution.y[-1])


def _is_finite(view: _View, problem: Problem) -> bool:
    """Whether beta and loss are; the loss, a pass over X, is made only where beta does not tell."""
    # No entry is larger than the norm of all, and NaN fails every comparison.
    if math.sqrt(np.vdot(view.beta, view.beta)) <= problem.safe_size:
        return True
    return bool(np.isfinite(view.beta).all() and np.isfinite(view.loss).all())


def _estimate(dense: _Dense, view: _View, end: float, method: str, rtol: float, atol: float, max_steps: int) -> Array:
    for factor in companions(rtol):
        budget = min(COMPANION_STEPS * max_steps, steps_of_companion(len(dense.h)))
        other = solve(dense.coordinates, end, method, rtol * factor, atol * factor, budget)
        if other.status.success:
            own, companion = (lambda t, side=side: side.at(t).beta for side in (dense, replace(dense, solution=other)))
            return error_estimate(np.append(dense.t[dense.t < end], end), view.t, view.beta, own, companion)
    return np.full(len(view.t), np.inf)


class _Watch:
    """Looks at new steps: True once the whole length is covered, or a terminal event has happened."""

    def __init__(self, dense: _Dense, longest: float, events: Sequence[Event]) -> None:
        self.dense, self.longest = dense, longest
        self.terminal = [event for event in events if event.terminal]
        self.covered = 0.0
        #: by a terminal event, before the length was covered
        self.stopped = False

    @property
    def is_needed(self) -> bool:
        return bool(self.terminal) or self.longest < math.inf

    def __call__(self, steps: Solution | SeparableSolution) -> bool:
        dense = replace(self.dense, solution=steps, covered=self.covered)
        ended = search(dense, self.terminal, self.longest)[1] is not None
        self.covered = float(dense.arclength.values[-1])
        self.stopped = ended and self.covered < self.longest
        return ended or self.covered >= self.longest

    def after(self, start: float, stop: float, piece: Callable[[Array], Array]) -> bool:
        """The same with one step of SciPy's."""
        t = np.array([start, stop])
        return self(Solution(t, np.asarray(piece(t)).T, [piece], Status.COMPLETED, "", {}))


@contextlib.contextmanager
def progress_bar(
    shown: bool, end: float, reached: Callable[[float], float]
) -> Iterator[Callable[[float], None] | None]:
    """A progress bar over a run's own clock, told the time, or nothing."""
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm

    with (
        compiling_note(True),
        tqdm(total=100.0, desc="flow", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}") as bar,
    ):

        def advance(t: float) -> None:
            bar.update(min(100.0, 100.0 * reached(t) / end) - bar.n)

        yield advance
        bar.update(100.0 - bar.n)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    import scipy

    return {
        "flowsim": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
