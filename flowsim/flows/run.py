"""From coordinates and a clock to a Trajectory: integrate, read, and keep the dense output."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flowsim import __version__
from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import Coordinates, NativeCoordinates, Observed, SteppedCoordinates
from flowsim.flows.estimate import COMPANION_STEPS, TIGHTER, error_estimate
from flowsim.problem import Regression
from flowsim.solvers import ArcLength, SeparableSolution, Solution, integrate
from flowsim.trajectory import Clock, Deferred, State, Trajectory

__all__ = ["run_flow"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Dense:
    """The state at any value of any clock; the solution's own variable is time."""

    coordinates: Coordinates
    problem: Regression
    solution: Solution | SeparableSolution
    acceleration: float

    def speed(self, t: Array, y: Array) -> Array:
        """``d arclength/dt``."""
        velocity = self.coordinates.velocity(t, y)
        length: Array = np.sqrt((velocity.reshape(len(velocity), -1) ** 2).sum(axis=1))
        return self.acceleration + length

    @cached_property
    def arclength(self) -> ArcLength:
        if isinstance(self.solution, SeparableSolution):
            return self.solution.arclength(self.acceleration)
        return ArcLength.along(self.solution.t, lambda t: self.speed(t, self.solution(t)))

    def __call__(self, values: Array, clock: Clock) -> State:
        return State(**self.look(values, clock).fields())

    def look(self, values: Array, clock: Clock) -> _View:
        """What is seen at values of a clock."""
        solution = self.solution
        length: Callable[[], Array]
        if isinstance(solution, SeparableSolution):
            # By step and position: a jump can be shorter than the spacing of times.
            if clock == "arclength":
                step, position = self.arclength.places(values)
                t = solution.t[step] + position * solution.h[step] if len(solution.h) else np.zeros(len(values))
            else:
                t = values / self.acceleration if clock == "accelerated" else values
                step, position = solution.locate(t)
            y, length = solution.at_steps(step, position), lambda: self.arclength.at_steps(step, position)
        else:
            t = values
            if clock == "accelerated":
                t = values / self.acceleration
            elif clock == "arclength":
                t = self.arclength.inverse(values)
            y, length = solution(t), lambda: self.arclength.at(t)
        # Exactly what was asked for, not what comes back through the other clock.
        return _View(
            self,
            t,
            y,
            accelerated_time=values if clock == "accelerated" else t * self.acceleration,
            arclength=(lambda: values) if clock == "arclength" else length,
        )

    def steps(self) -> _View:
        """The same at the ends of the steps."""
        t = self.solution.t
        return _View(self, t, self.solution.y, t * self.acceleration, lambda: self.arclength.values)


@dataclass(frozen=True, eq=False)
class _View:
    """States at some times; beta at once, the rest when it is looked at."""

    dense: _Dense
    t: Array
    y: Array
    accelerated_time: Array
    arclength: Callable[[], Array]

    @cached_property
    def beta(self) -> Array:
        return self.dense.coordinates.predictor(self.t, self.y)

    @cached_property
    def loss(self) -> Array:
        return self.dense.problem.loss(self.beta)

    @cached_property
    def seen(self) -> Observed:
        return self.dense.coordinates.observe(self.t, self.y)

    @cached_property
    def departure(self) -> Array:
        return self.dense.coordinates.departure(self.t, self.y, self.seen)

    def fields(self) -> dict[str, Any]:
        """The fields of a State."""
        return {
            "t": self.t,
            "accelerated_time": self.accelerated_time,
            "arclength": Deferred(self.arclength),
            "beta": self.beta,
            "loss": Deferred(lambda: self.loss),
            "weights": Deferred(lambda: self.seen.weights),
            "log_abs_weights": Deferred(lambda: self.seen.log_abs_weights),
            "imbalance": Deferred(lambda: self.seen.imbalance),
            "log_imbalance": Deferred(lambda: self.seen.log_imbalance),
        }


def run_flow(
    coordinates: Coordinates,
    problem: Regression,
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
) -> Trajectory:
    """Integrate to `t_end` on the given clock and read the result.

    Parameters
    ----------
    acceleration : float
        ``d accelerated_time / dt``.

    Raises
    ------
    IntegrationError
        With the trajectory so far, if the integrator could not reach the end.
    """
    # In all clocks the integrator's variable is time. Arc length as its variable is regular too, but its speed
    # has a kink wherever beta stands still, and every implicit method stalls there on the noise of its tolerance.
    horizon = t_end if clock == "time" else t_end / acceleration
    length = _Length(coordinates, acceleration, t_end) if clock == "arclength" else None
    with _bar(progress, t_end, acceleration if clock == "accelerated" else 1.0, length) as advance:
        solution = _solve(coordinates, horizon, method, rtol, atol, max_steps, advance, length)
    dense = _Dense(coordinates, problem, solution, acceleration)
    if t_eval is not None and solution.status.success:
        view = dense.look(t_eval, clock)
    elif clock == "arclength" and solution.status.success:
        # The last steps overshoot: the run ends where the length is reached.
        lengths = dense.arclength.values
        view = dense.look(np.append(lengths[lengths < t_end], t_end), clock)
    else:
        view = dense.steps()
    estimate = _estimate(dense, State(**view.fields()), method, rtol, atol, max_steps) if estimate_error else None
    finite = _is_finite(view, problem)
    success = solution.status.success and finite
    message = solution.message if finite else "the predictor left the range of floats"
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
        },
        error_estimate=estimate,
        dense=dense,
    )
    if not success:
        raise IntegrationError(
            f"the flow stopped at {trajectory.clock_values(clock)[-1]:.6g} of {t_end:.6g} in {clock}: {message}.",
            trajectory,
        )
    return trajectory


def _is_finite(view: _View, problem: Regression) -> bool:
    """Whether beta and loss are; the loss, a pass over X, is made only where beta does not tell."""
    # No entry is larger than the norm of all, and NaN fails every comparison.
    if np.linalg.norm(view.beta) <= problem.safe_size:
        return True
    return bool(np.isfinite(view.beta).all() and np.isfinite(view.loss).all())


def _solve(
    coordinates: Coordinates,
    horizon: float,
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    progress: Callable[[float], None] | None = None,
    length: _Length | None = None,
) -> Solution | SeparableSolution:
    if method == "native":
        done = None if length is None else length.cover
        return cast(NativeCoordinates, coordinates).integrate(
            horizon, rtol=rtol, max_steps=max_steps, progress=progress, done=done
        )
    stepped = cast(SteppedCoordinates, coordinates)
    local_rtol, local_atol = stepped.tolerances(rtol, atol)
    return integrate(
        stepped.ivp,
        horizon,
        method=method,
        rtol=local_rtol,
        atol=local_atol,
        max_steps=max_steps,
        progress=progress,
        done=length,
    )


def _estimate(dense: _Dense, states: State, method: str, rtol: float, atol: float, max_steps: int) -> Array | None:
    solution = dense.solution
    if not solution.status.success or len(solution.t) < 2:
        return None
    finer = _solve(
        dense.coordinates, float(solution.t[-1]), method, rtol / TIGHTER, atol / TIGHTER, COMPANION_STEPS * max_steps
    )
    if not finer.status.success:
        return np.full(len(states.t), np.nan)
    companion = replace(dense, solution=finer)
    return error_estimate(
        solution.t,
        states.t,
        states.beta,
        lambda t: dense.look(t, "time").beta,
        lambda t: companion.look(t, "time").beta,
    )


class _Length:
    """Accumulates arc length step by step; true once the whole length is covered."""

    def __init__(self, coordinates: Coordinates, acceleration: float, end: float) -> None:
        self.coordinates, self.acceleration, self.end, self.covered = coordinates, acceleration, end, 0.0

    def __call__(self, start: float, stop: float, piece: Callable[[Array], Array]) -> bool:
        def speed(t: Array) -> Array:
            return self.acceleration + np.linalg.norm(self.coordinates.velocity(t, piece(t).T), axis=1)

        self.covered += ArcLength.of_step(start, stop, speed)
        return self.covered >= self.end

    def cover(self, steps: SeparableSolution) -> bool:
        self.covered += float(steps.arclength(self.acceleration).values[-1])
        return self.covered >= self.end


@contextlib.contextmanager
def _bar(shown: bool, end: float, unit: float, length: _Length | None) -> Iterator[Callable[[float], None] | None]:
    """A progress bar over the run's own clock, or nothing."""
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=100.0, desc="flow", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}") as bar:

        def advance(t: float) -> None:
            reached = t * unit if length is None else length.covered
            bar.update(min(100.0, 100.0 * reached / end) - bar.n)

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
