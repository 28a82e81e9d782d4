r"""Flows whose loss tends to 0, on the clock ``ln(1/L)``: they reach a loss of 1e-1000000.

In ``d sigma = L dt`` the flow of L is that of ``ln L``, whose gradient has the size of the data at any loss. That flow
is integrated, in growth coordinates (:mod:`flowsim.flows.loss_growth`) or in a frame
(:mod:`flowsim.flows.loss_frames`), and all clocks are computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.flows.dense import DenseOutput, View
from flowsim.flows.driver import run_flow
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.loss_growth import GrowthLossClock
from flowsim.growth.exponential import admits_growth
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem
from flowsim.problem.margins import is_separable
from flowsim.results import Clock, Trajectory
from flowsim.solvers import ArcLength, SeparableSolution, Solution
from flowsim.solvers.roots import first_positions

#: An end of sigma that no loss reaches in floats: sigma grows like ln ln(1/L).
_HORIZON = 1e12
#: Relative error of the values of clocks.
_ROUNDING = 1e-15


class LossClock(Protocol):
    """What coordinates over sigma, whose `velocity` is ``d beta / d sigma``, have besides the others."""

    @property
    def first(self) -> float:
        """``ln(1/L)`` at the start."""

    def log_loss(self, y: Any) -> Array:
        """ln L of states."""

    def times(self, solution: Any, elapsed: float) -> Callable[[Index, Array, Any], Array]:
        """The map (step, position, state) to time, which is `elapsed` at the solution's start; infinite on overflow."""


@dataclass(eq=False)
class LossReader(DenseOutput):
    """The state at any value of any clock; the solution's independent variable is sigma."""

    PROPORTIONAL: ClassVar[tuple[Clock, ...]] = ()

    #: time at the start of the solution
    elapsed: float = 0.0

    @property
    def clock(self) -> LossClock:
        return cast(LossClock, self.coordinates)

    @cached_property
    def arclength(self) -> ArcLength:
        """The arc length of the predictor alone."""
        return replace(self.travelled, values=self.travelled.values + self.covered)

    @cached_property
    def time(self) -> Callable[[Index, Array, Any], Array]:
        return self.clock.times(self.solution, self.elapsed)

    def after(self, steps: Solution | SeparableSolution) -> LossReader:
        if not len(self.h):
            return replace(self, solution=steps)
        elapsed = float(self.steps().on("time")[-1])
        return replace(self, solution=steps, covered=float(self.arclength.values[-1]), elapsed=elapsed)

    def horizon(self, value: float, clock: Clock) -> float:
        return _HORIZON

    def variable(self, view: View) -> Array:
        return view.on("log_loss")

    def goal(self, value: float) -> tuple[Clock, float]:
        return "log_loss", value

    def at(self, t: Array) -> View:
        """The view at values of the clock ``ln(1/L)``."""
        return self.look(t, "log_loss")

    def places(self, values: Array, clock: Clock) -> tuple[Array, Index, Array]:
        """The points at which a clock, which never decreases, takes values."""
        ends = self.on(clock, *self._ends)
        step = np.clip(np.searchsorted(ends, values, side="right") - 1, 0, len(self.h) - 1)
        at_high = ends[step + 1] - values
        away = lambda position: self.on(clock, step, position) - values  # noqa: E731
        x = first_positions(away, ends[step] - values, at_high, _ROUNDING * np.abs(values))
        position = np.where(at_high <= 0, 1.0, x)
        return self.t[step] + position * self.h[step], step, position

    def _view(self, t: Array, step: Index, position: Array, known: Mapping[Clock, Callable[[], Array]]) -> View:
        return self.at_steps(step, position)

    def at_steps(self, step: Index, position: Array) -> View:
        """The view at positions, 0 to 1, in steps."""
        sigma = self.t[step] + (position * self.h[step] if len(self.h) else 0.0)
        return LossView(
            self, sigma, lambda part: self.solution.at_steps(step[part], position[part]), step, position, {}
        )

    def steps(self, end: Any = None) -> View:
        """The view at the ends of the steps, up to the event that ended the run."""
        return self.at_steps(*self._ends) if end is None else super().steps(end)


@dataclass(eq=False)
class LossView(View):
    """States at some points of a run, computed on first access."""

    dense: LossReader

    @cached_property
    def log_loss(self) -> Array:
        return self.dense.clock.log_loss(self.y)

    @property
    def loss(self) -> Array:
        return np.exp(self.log_loss)

    @cached_property
    def time(self) -> Array:
        return self.dense.time(self.step, self.position, self.y)

    def on(self, clock: Clock) -> Array:
        if clock == "log_loss":
            return -self.log_loss
        if clock == "time":
            return self.time
        accelerated = self.dense.acceleration * self.time
        if clock == "accelerated":
            return accelerated
        return accelerated + self.dense.arclength.at_steps(self.step, self.position)

    @property
    def speed(self) -> Array:
        # d beta / dt = L d beta / d sigma.
        return self.dense.travelled.rates(self.step, self.position) * self.loss / self.dense.acceleration


def log_loss_flow(
    net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, options: FlowOptions, **more: Any
) -> Trajectory:
    """The flow of a diagonal network until ``ln(1/L)`` is `t_end`.

    Raises ValueError for a loss that does not tend to 0, data that no direction separates, and networks without growth
    coordinates.
    Raises IntegrationError with the trajectory so far.
    """
    reason = admits_growth(net)
    require_decreasing(net, problem)
    if reason is not None:
        raise ValueError(f"`clock` can be 'log_loss' in growth coordinates only: {reason}.")
    method = options.method
    if method not in ("auto", "BDF", "Radau"):
        raise ValueError(f"`method` must be 'auto', 'BDF' or 'Radau' on the clock 'log_loss'; received {method!r}.")
    options = options._replace(method="BDF" if method == "auto" else method)
    coordinates = GrowthLossClock(net, problem, scale, direction)
    return run_on_loss_clock(coordinates, problem, options, **more)


def require_decreasing(net: Any, problem: Problem) -> None:
    """Raise ValueError unless network, loss and data let the loss tend to 0."""
    if not problem.loss_function.is_margin:
        raise ValueError(
            f"`clock` can be 'log_loss' for the logistic and exponential loss, which tend to 0 and do not reach it; "
            f"received loss={problem.loss_function.name!r}."
        )
    if getattr(net, "weight_decay", False):
        raise ValueError("`clock` can be 'log_loss' without weight decay only: with it the loss does not tend to 0.")
    if not is_separable(problem):
        raise ValueError("`problem` must be separable on the clock 'log_loss': its loss does not tend to 0.")


def run_on_loss_clock(coordinates: Any, problem: Problem, options: FlowOptions, **more: Any) -> Trajectory:
    """Integrate, and return a trajectory with all clocks.

    Raises ValueError for times before the start.
    """
    first, t_end, t_eval = coordinates.first, options.t_end, options.t_eval
    if not t_end > first:
        raise ValueError(f"`t_end` must be above ln(1/L) at the start, {first:.6g}; received {t_end:.6g}.")
    if t_eval is not None and t_eval[0] < first:
        raise ValueError(f"`t_eval` must not lie below ln(1/L) at the start, {first:.6g}; received {t_eval[0]:.6g}.")
    return run_flow(coordinates, problem, options, reader=LossReader, **more)
