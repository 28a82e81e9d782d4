r"""Flows whose loss tends to 0, on the clock ``ln(1/L)``: a loss of 1e-1000000 is an ordinary end.

.. math:: d\sigma = L \, dt, \qquad \frac{dz}{d\sigma} = -\frac{\nabla L}{L} = X^\top (y \circ q), \qquad
          q_i = \frac{w_i |\ell'(m_i)|}{\sum_j w_j \ell(m_j)}, \quad m_i = y_i f_i.

For exponential tails q is the softmax of minus the margins and ln L comes by a sum of logarithms: nothing
underflows, and z grows like ``ln ln(1/L)``. With ``T = 1/L(0)`` the time itself is carried as ``s = ln(t + T)``,
``ds/d sigma = exp(ln(1/L) - s)``, for as long as it is a float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import Observed
from flowsim.flows.driver import progress_bar
from flowsim.flows.estimate import COMPANION_STEPS, TIGHTER, error_estimate
from flowsim.flows.growth import GrowthCoordinates
from flowsim.flows.happenings import WholeRun, happened, outcome, search
from flowsim.flows.reduced import ReducedLoss
from flowsim.growth.exponential import CAP, admits_growth
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem
from flowsim.problem.margins import is_separable
from flowsim.results import Clock, Deferred, State, Trajectory
from flowsim.results.events import Event
from flowsim.solvers import ArcLength, InitialValueProblem, Occurrence, Solution, Status, integrate

__all__ = ["log_loss_flow"]

Array = NDArray[np.float64]

#: Further than any loss can be brought in floats: the variable grows like the logarithm of the logarithm of the loss.
_HORIZON = 1e12
#: A step may raise an exponent by so much beyond the level where it matters.
_STRIDE = 3.0
#: Local against global error, as in growth coordinates.
_SAFETY = 0.02
_ITERATIONS = 80
#: Time is infinite once ln(1/L) is beyond this; it stops being carried along smoothly, over the second.
_LAST_TIME, _FADE = 700.0, 4.0


class LossClock(GrowthCoordinates):
    """Growth coordinates over sigma: states are the dual unknown of the rows, and s."""

    def __init__(self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array) -> None:
        super().__init__(net, problem, scale, direction, native=False)
        self.map = replace(self.map, cap=CAP)  # predictions grow like ln(1/L): no exponent comes near

    @cached_property
    def log_weights(self) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self.problem.entry_weights)

    def _z(self, y: Array) -> Array:
        return y[..., :-1] @ self.reduced.B

    def logs(self, y: Array) -> tuple[float, Array, Array, Array, Array]:
        """ln L, the pull ``y q``, curvatures over n L, the predictor and its slope in z."""
        reduced = self.reduced
        assert isinstance(reduced, ReducedLoss)
        assert self.problem.loss_function.margin_logs is not None
        exponents = self.map.exponents(self._z(y), 0.0)
        mean = self.map.mean(exponents)
        value, slope, curvature = self.problem.loss_function.margin_logs(self.problem.y * reduced.predict(mean))
        value = value + self.log_weights
        top = float(value.max())
        total = top + float(np.log(np.exp(value - top).sum()))
        pull = self.problem.y * np.exp(slope + self.log_weights - total)
        bent = np.exp(curvature + self.log_weights - total)
        return (
            total - float(np.log(self.problem.n)),
            pull,
            bent,
            mean,
            self.map.derivative(exponents, self.map.modes.rate),
        )

    @cached_property
    def ivp(self) -> InitialValueProblem:
        rows = len(self.reduced.b)
        first = -self.logs(np.zeros(rows + 1))[0]
        return InitialValueProblem(
            rhs=self._rhs,
            y0=np.append(np.zeros(rows), first),
            jacobian=self._jacobian,
            step_limit=self._step_limit,
            check=self._check,
        )

    @property
    def first(self) -> float:
        """``ln(1/L)`` at the start."""
        return float(self.ivp.y0[-1])

    def _rhs(self, t: float, y: Array) -> Array:
        log_loss, pull, _, _, _ = self.logs(y)
        reduced = self.reduced
        assert isinstance(reduced, ReducedLoss)
        rate = reduced.scale / reduced.unit * self.problem.n * reduced.projected(pull)
        return np.append(rate, _pace(-log_loss, y[-1])[0])

    def _jacobian(self, t: float, y: Array) -> Array:
        log_loss, pull, bent, _, slope = self.logs(y)
        reduced = self.reduced
        assert isinstance(reduced, ReducedLoss)
        active = slope > 0
        B = reduced.B[:, active]
        rows = B if reduced.Q is None else reduced.Q @ B
        drift = pull @ rows
        back = B.T * slope[active, None]
        out = np.zeros((len(y), len(y)))
        inner = reduced.projected(np.outer(pull, drift) - bent[:, None] * rows)
        out[:-1, :-1] = reduced.scale * self.problem.n * inner @ back
        pace, by_log = _pace(-log_loss, y[-1])
        out[-1, :-1] = by_log * reduced.unit * drift @ back
        out[-1, -1] = -pace
        return out

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        exponents = self.map.exponents(self._z(y), 0.0)
        growth = self.map.modes.rate * (derivative[:-1] @ self.reduced.B)[:, None]
        rising = (growth > 0) & (self.map.modes.coefficient != 0)
        if not rising.any():
            return np.inf
        level = np.maximum(exponents, np.log(self.visible)) + _STRIDE
        return float(((level - exponents)[rising] / growth[rising]).min())

    def _check(self, t: float, y: Array) -> str | None:
        return self.map.range_error(self._z(y), t)

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        size = len(self.reduced.b)
        return 0.0, np.append(np.full(size, _SAFETY * rtol / np.sqrt(size)), rtol)

    def velocity(self, t: Array, y: Array) -> Array:
        """``d beta / d sigma``."""
        rates = np.array([self._rhs(0.0, state)[:-1] for state in y]).reshape(len(y), -1) @ self.reduced.B
        return self.map.slope(self._z(y), t) * rates

    def clocks(self, y: Array) -> tuple[Array, Array]:
        """``ln(1/L)`` and time of states (K, N); time is infinite where it is no float."""
        value = np.array([-self.logs(state)[0] for state in y])
        known = value < _LAST_TIME
        with np.errstate(over="ignore"):
            time = np.expm1(np.where(known, y[:, -1] - self.first, 0.0)) * np.exp(self.first)
        return value, np.where(known, time, np.inf)


def _pace(value: float, s: float) -> tuple[float, float]:
    """``ds/d sigma`` and its derivative in ln(1/L)."""
    past = min(max((value - _LAST_TIME) / _FADE, 0.0), 1.0)
    if past == 1.0:
        return 0.0, 0.0
    pace = float(np.exp(value - s))
    kept, falling = 1.0 - past**2 * (3.0 - 2.0 * past), -6.0 * past * (1.0 - past) / _FADE
    return pace * kept, pace * (kept + falling)


@dataclass(frozen=True, eq=False)
class _Dense:
    """The state at any value of any clock; the solution's own variable is sigma."""

    coordinates: LossClock
    problem: Problem
    solution: Solution
    acceleration: float

    @property
    def t(self) -> Array:
        return self.solution.t

    @property
    def h(self) -> Array:
        return self.solution.h

    @property
    def size(self) -> int:
        return self.problem.d

    @property
    def travelled(self) -> ArcLength:
        return self.arclength

    @cached_property
    def arclength(self) -> ArcLength:
        """Of the predictor alone."""

        def speed(t: Array) -> Array:
            return np.linalg.norm(self.coordinates.velocity(t, self.solution(t)), axis=1)

        return ArcLength.along(self.solution.t, speed)

    def values(self, clock: Clock, step: NDArray[np.intp], position: Array) -> Array:
        """A clock at places."""
        log_loss, time = self.coordinates.clocks(self.solution.at_steps(step, position))
        if clock == "log_loss":
            return log_loss
        if clock == "time":
            return time
        accelerated = self.acceleration * time
        return accelerated if clock == "accelerated" else accelerated + self.arclength.at_steps(step, position)

    @cached_property
    def _ends(self) -> tuple[NDArray[np.intp], Array]:
        count = np.arange(len(self.t))
        return np.minimum(count, max(len(self.h) - 1, 0)), (count == len(self.h)).astype(float)

    def places(self, values: Array, clock: Clock) -> tuple[NDArray[np.intp], Array]:
        """Where a clock, which never falls, takes values: bracketed interpolation, halved where it stalls."""
        ends = self.values(clock, *self._ends)
        step = np.clip(np.searchsorted(ends, values, side="right") - 1, 0, len(self.h) - 1)
        low, high = np.zeros(len(values)), np.ones(len(values))
        below, above = ends[step] - values, ends[step + 1] - values
        best = np.where(above <= 0, 1.0, 0.0)
        for count in range(_ITERATIONS):
            with np.errstate(invalid="ignore", divide="ignore"):
                guess = low - below * (high - low) / (above - below)
            middle = (low + high) / 2
            best = np.where((count % 3 == 2) | ~np.isfinite(guess), middle, np.clip(guess, low, high))
            gap = self.values(clock, step, best) - values
            if (high - low <= 4e-16).all() or (gap == 0).all():
                break
            low, below = np.where(gap <= 0, best, low), np.where(gap <= 0, gap, below)
            high, above = np.where(gap >= 0, best, high), np.where(gap >= 0, gap, above)
        return step, best

    def __call__(self, values: Array, clock: Clock) -> State:
        return self.look(values, clock).state

    def look(self, values: Array, clock: Clock, end: Occurrence | None = None) -> _View:
        """What is seen at values of a clock, and at last where an event ended the run."""
        if end is not None:
            last = self.at_steps(np.array([end.step]), np.array([end.position]))
            values = values[values < getattr(last, clock)]
        step, position = self.places(values, clock)
        if end is not None:
            step, position = np.append(step, end.step), np.append(position, end.position)
        return self.at_steps(step, position)

    def at_steps(self, step: NDArray[np.intp], position: Array) -> _View:
        """What is seen at positions, 0 to 1, of steps."""
        return _View(self, step, position)

    def up_to(self, step: int, position: float) -> _View:
        """What is seen at the ends of the steps up to a place, and there."""
        return self.at_steps(np.append(np.arange(step + 1), step), np.append(np.zeros(step + 1), position))


@dataclass(frozen=True, eq=False)
class _View:
    """States at some places, read when they are looked at."""

    dense: _Dense
    step: NDArray[np.intp]
    position: Array

    @cached_property
    def y(self) -> Array:
        return self.dense.solution.at_steps(self.step, self.position)

    @cached_property
    def sigma(self) -> Array:
        return self.dense.t[self.step] + self.position * self.dense.h[self.step]

    @cached_property
    def clocks(self) -> tuple[Array, Array]:
        return self.dense.coordinates.clocks(self.y)

    @property
    def log_loss(self) -> Array:
        """The clock, ``ln(1/L)``."""
        return self.clocks[0]

    @cached_property
    def beta(self) -> Array:
        return self.dense.coordinates.predictor(self.sigma, self.y)

    @cached_property
    def seen(self) -> Observed:
        return self.dense.coordinates.observe(self.sigma, self.y)

    @cached_property
    def departure(self) -> Array:
        return self.dense.coordinates.departure(self.sigma, self.y, self.seen)

    @property
    def state(self) -> State:
        return State(**self.fields())

    def fields(self) -> dict[str, Any]:
        """The fields of a State."""
        value, time = self.clocks
        pace, dense = self.dense.acceleration, self.dense

        def speed() -> Array:
            # d beta / dt = L d beta / d sigma.
            return dense.arclength.rates(self.step, self.position) * np.exp(-value) / pace

        return {
            "t": time,
            "accelerated_time": time * pace,
            "arclength": Deferred(lambda: time * pace + dense.arclength.at_steps(self.step, self.position)),
            "beta": Deferred(lambda: self.beta),
            "loss": np.exp(-value),
            "log_loss": -value,
            "weights": Deferred(lambda: self.seen.weights),
            "log_abs_weights": Deferred(lambda: self.seen.log_abs_weights),
            "imbalance": Deferred(lambda: self.seen.imbalance),
            "log_imbalance": Deferred(lambda: self.seen.log_imbalance),
            "speed": Deferred(speed),
        }


def log_loss_flow(
    net: DiagonalNetwork,
    problem: Problem,
    t_end: float,
    scale: InitialScale,
    direction: Array,
    *,
    acceleration: float,
    t_eval: Array | None,
    method: str,
    rtol: float,
    max_steps: int,
    progress: bool,
    estimate_error: bool,
    events: Sequence[Event],
    info: dict[str, Any],
) -> Trajectory:
    """Integrate until ``ln(1/L)`` is `t_end`; what :func:`flowsim.gradient_flow` calls for ``clock="log_loss"``.

    Raises
    ------
    ValueError
        For a loss that does not tend to 0, data that no direction separates, and networks without growth coordinates.
    IntegrationError
        With the trajectory so far.
    """
    _refuse(net, problem, method)
    coordinates = LossClock(net, problem, scale, direction)
    if not t_end > coordinates.first:
        raise ValueError(f"`t_end` must be above ln(1/L) at the start, {coordinates.first:.6g}; received {t_end:.6g}.")
    if t_eval is not None and t_eval[0] < coordinates.first:
        raise ValueError(
            f"`t_eval` must not lie below ln(1/L) at the start, {coordinates.first:.6g}; received {t_eval[0]:.6g}."
        )
    method = "BDF" if method == "auto" else method
    terminal = [event for event in events if event.terminal]

    def run(rtol: float, budget: int, advance: Callable[[float], None] | None = None) -> Solution:
        def done(start: float, stop: float, piece: Callable[[Array], Array]) -> bool:
            ends = np.array([start, stop])
            states = np.asarray(piece(ends)).T
            if advance is not None:
                advance(min(t_end, -coordinates.logs(states[1])[0]))
            if -coordinates.logs(states[1])[0] >= t_end:
                return True
            step = Solution(ends, states, [piece], Status.COMPLETED, "", {})
            seen = _Dense(coordinates, problem, step, acceleration)
            return bool(terminal) and search(seen, terminal, np.inf)[1] is not None

        local = coordinates.tolerances(rtol, 0.0)
        return integrate(
            coordinates.ivp, _HORIZON, method=method, rtol=local[0], atol=local[1], max_steps=budget, done=done
        )

    with progress_bar(progress, t_end, lambda value: value) as advance:
        solution = run(rtol, max_steps, advance)
    dense = _Dense(coordinates, problem, solution, acceleration)
    found, last = search(dense, events, np.inf)
    success, message = outcome(solution.status.success, solution.message, last, False)
    if success and last is None:
        step, position = dense.places(np.array([t_end]), "log_loss")
        found = [one for one in found if (one.step, one.position) <= (step[0], position[0])]
        place = int(step[0]), float(position[0])
    else:
        place = (len(solution.h) - 1, 1.0) if last is None else (last.step, last.position)
    view = dense.up_to(*place) if t_eval is None or not success else dense.look(t_eval, "log_loss", last)
    estimate = None
    if estimate_error and success:
        companion = _Dense(coordinates, problem, run(rtol / TIGHTER, COMPANION_STEPS * max_steps), acceleration)
        at = dense.up_to(*place)
        own, other = (lambda values, side=side: side.look(values, "log_loss").beta for side in (dense, companion))
        estimate = error_estimate(at.log_loss, view.log_loss, view.beta, own, other)
    if success and not np.isfinite(view.beta).all():
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
        info={**info, "coordinates": coordinates.name, "method": method},
        error_estimate=estimate,
        events=happened(dense, found),
        dense=WholeRun(dense, place),
    )
    if not success:
        raise IntegrationError(
            f"the flow stopped at {view.log_loss[-1]:.6g} of {t_end:.6g} in ln(1/L): {message}.", trajectory
        )
    return trajectory


def _refuse(net: DiagonalNetwork, problem: Problem, method: str) -> None:
    if not problem.loss_function.is_margin:
        raise ValueError(
            f"`clock` can be 'log_loss' for the logistic and exponential loss, which tend to 0 and do not reach it; "
            f"received loss={problem.loss_function.name!r}."
        )
    reason = admits_growth(net)
    if reason is not None or getattr(net, "weight_decay", False):
        raise ValueError(f"`clock` can be 'log_loss' in growth coordinates only: {reason or 'weight decay ends it'}.")
    if method not in ("auto", "BDF", "Radau"):
        raise ValueError(f"`method` must be 'auto', 'BDF' or 'Radau' on the clock 'log_loss'; received {method!r}.")
    if not is_separable(problem):
        raise ValueError("`problem` must be separable on the clock 'log_loss': its loss does not tend to 0.")
