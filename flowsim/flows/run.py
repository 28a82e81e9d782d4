"""From coordinates and a clock to a Trajectory: integrate, read, and keep the dense output."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim import __version__
from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import Coordinates
from flowsim.problem import Regression
from flowsim.solvers import ArcLength, InitialValueProblem, Solution, by_arclength, integrate
from flowsim.trajectory import Clock, State, Trajectory

__all__ = ["run_flow"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Dense:
    """The state at any value of any clock. The solution's own variable is time or arc length."""

    coordinates: Coordinates
    problem: Regression
    solution: Solution
    acceleration: float
    by_arclength: bool

    def speed(self, t: Array, y: Array) -> Array:
        """``d arclength/dt``."""
        velocity = self.coordinates.velocity(t, y)
        length: Array = np.sqrt((velocity.reshape(len(velocity), -1) ** 2).sum(axis=1))
        return self.acceleration + length

    @cached_property
    def other(self) -> ArcLength:
        """The other variable along the solution: arc length over time, or time over arc length."""

        def rate(own: Array) -> Array:
            state = self.solution(own)
            if self.by_arclength:
                return 1.0 / self.speed(state[:, -1], state[:, :-1])
            return self.speed(own, state)

        return ArcLength.along(self.solution.t, rate)

    def __call__(self, values: Array, clock: Clock) -> State:
        if clock == "accelerated":
            values, clock = values / self.acceleration, "time"
        own_clock: Clock = "arclength" if self.by_arclength else "time"
        own = values if clock == own_clock else self.other.inverse(values)
        state = self.solution(own)
        if self.by_arclength:
            t = values if clock == "time" else state[:, -1]
            return self.read(t, state[:, :-1], own)
        return self.read(own, state, values if clock == "arclength" else self.other.at(own))

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
    local_rtol, local_atol = coordinates.tolerances(rtol, atol)
    ivp, end = coordinates.ivp, float(t_end)
    if clock == "accelerated":
        end = t_end / acceleration
    elif clock == "arclength":
        ivp = _in_arclength(coordinates, acceleration)
        local_atol = np.append(local_atol, coordinates.time_tolerance(rtol))
    with _bar(progress, end) as advance:
        solution = integrate(
            ivp, end, method=method, rtol=local_rtol, atol=local_atol, max_steps=max_steps, progress=advance
        )
    dense = _Dense(coordinates, problem, solution, acceleration, clock == "arclength")
    if t_eval is None or not solution.status.success:
        if clock == "arclength":
            states = dense.read(solution.y[:, -1], solution.y[:, :-1], solution.t)
        else:
            states = dense.read(solution.t, solution.y, dense.other.values)
    else:
        states = dense(t_eval, clock)
    seen = coordinates.observe(states.t, _unknowns(dense, states, clock))
    finite = bool(np.isfinite(states.beta).all() and np.isfinite(states.loss).all())
    success = solution.status.success and finite
    message = solution.message if finite else "the predictor left the range of floats"
    trajectory = Trajectory(
        **vars(states),
        imbalance_drift=coordinates.drift(states.t, seen),
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
            f"the flow stopped at t={states.t[-1]:.6g} of {end:.6g} in {clock}: {message}.", trajectory
        )
    return trajectory


def _unknowns(dense: _Dense, states: State, clock: Clock) -> Array:
    own = states.arclength if dense.by_arclength else states.t
    y = dense.solution(own)
    return y[:, :-1] if dense.by_arclength else y


def _in_arclength(coordinates: Coordinates, acceleration: float) -> InitialValueProblem:
    def speed(t: float, y: Array) -> float:
        return acceleration + float(np.linalg.norm(coordinates.velocity(np.array([t]), y[None])))

    known = coordinates.speed_gradient(0.0, coordinates.ivp.y0) is not None
    gradient = coordinates.speed_gradient if known else None
    return by_arclength(coordinates.ivp, speed, gradient)  # type: ignore[arg-type]


class _bar:  # noqa: N801
    """A progress bar over the run's own variable, or nothing."""

    def __init__(self, shown: bool, end: float) -> None:
        self.shown, self.end, self.bar = shown, end, None

    def __enter__(self) -> Any:
        if not self.shown:
            return None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=100.0, desc="flow", unit="%", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}")

        def advance(t: float) -> None:
            assert self.bar is not None
            self.bar.update(100.0 * t / self.end - self.bar.n)

        return advance

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _versions() -> dict[str, str]:
    import scipy

    return {
        "flowsim": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
