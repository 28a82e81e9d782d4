"""From coordinates and a clock to a Trajectory: integrate, read, and keep the dense output."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim import __version__
from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import Coordinates
from flowsim.flows.growth import GrowthCoordinates
from flowsim.problem import Regression
from flowsim.solvers import ArcLength, SeparableSolution, Solution, integrate
from flowsim.trajectory import Clock, State, Trajectory

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

    def time_of(self, values: Array, clock: Clock) -> Array:
        if clock == "accelerated":
            return values / self.acceleration
        return self.arclength.inverse(values) if clock == "arclength" else values

    def __call__(self, values: Array, clock: Clock) -> State:
        t = self.time_of(values, clock)
        state = self.read(t, self.solution(t), values if clock == "arclength" else self.arclength.at(t))
        # Exactly what was asked for, not what comes back through the other clock.
        return replace(state, accelerated_time=values) if clock == "accelerated" else state

    def read(self, t: Array, y: Array, arclength: Array) -> State:
        seen = self.coordinates.observe(t, y)
        return State(
            t=t,
            accelerated_time=t * self.acceleration,
            arclength=arclength,
            beta=seen.beta,
            weights=seen.weights,
            log_abs_weights=seen.log_abs_weights,
            loss=self.problem.loss(seen.beta),
            imbalance=seen.imbalance,
            log_imbalance=seen.log_imbalance,
        )


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
    solution: Solution | SeparableSolution
    with _bar(progress, t_end, acceleration if clock == "accelerated" else 1.0, length) as advance:
        if method == "native":
            assert isinstance(coordinates, GrowthCoordinates)
            done = None if length is None else length.cover
            solution = coordinates.integrate(horizon, rtol=rtol, max_steps=max_steps, progress=advance, done=done)
        else:
            local_rtol, local_atol = coordinates.tolerances(rtol, atol)
            solution = integrate(
                coordinates.ivp,
                horizon,
                method=method,
                rtol=local_rtol,
                atol=local_atol,
                max_steps=max_steps,
                progress=advance,
                done=length,
            )
    dense = _Dense(coordinates, problem, solution, acceleration)
    if t_eval is not None and solution.status.success:
        states = dense(t_eval, clock)
    elif clock == "arclength" and solution.status.success:
        # The last steps overshoot: the run ends where the length is reached.
        lengths = dense.arclength.values
        states = dense(np.append(lengths[lengths < t_end], t_end), clock)
    else:
        states = dense.read(solution.t, solution.y, dense.arclength.values)
    y = solution(states.t)
    departure = coordinates.departure(states.t, y, coordinates.observe(states.t, y))
    finite = bool(np.isfinite(states.beta).all() and np.isfinite(states.loss).all())
    success = solution.status.success and finite
    message = solution.message if finite else "the predictor left the range of floats"
    trajectory = Trajectory(
        **vars(states),
        imbalance_drift=float(departure.max()),
        imbalance_departure=departure,
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
            "versions": _versions(),
        },
        dense=dense,
    )
    if not success:
        raise IntegrationError(
            f"the flow stopped at {trajectory.clock_values(clock)[-1]:.6g} of {t_end:.6g} in {clock}: {message}.",
            trajectory,
        )
    return trajectory


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


def _versions() -> dict[str, str]:
    import scipy

    return {
        "flowsim": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
