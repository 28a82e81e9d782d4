r"""The clock ``ln(1/L)`` in growth coordinates.

.. math:: d\sigma = L \, dt, \qquad \frac{dz}{d\sigma} = -\frac{\nabla L}{L} = X^\top (y \circ q), \qquad
          q_i = \frac{w_i |\ell'(m_i)|}{\sum_j w_j \ell(m_j)}, \quad m_i = y_i f_i.

For exponential tails q is the softmax of minus the margins and ln L comes by a sum of logarithms: nothing
underflows, and z grows like ``ln ln(1/L)``. With T no longer than 1/L(0) time is integrated as ``s = ln(t + T)``,
``ds/d sigma = exp(ln(1/L) - s)``, until it overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from flowsim.arrays import Array, Index, log_abs
from flowsim.flows.coordinates import SAFETY
from flowsim.flows.growth import GrowthCoordinates
from flowsim.flows.reduced import ReducedLoss
from flowsim.growth.exponential import CAP
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem
from flowsim.solvers import InitialValueProblem, Solution

#: e-foldings by which a step may raise an exponent beyond the level at which it becomes active.
_STRIDE = 3.0
#: Time is infinite once ln(1/L) exceeds the first; its equation is switched off smoothly over the second.
LAST_TIME, _FADE = 700.0, 4.0


class GrowthLossClock(GrowthCoordinates):
    """Growth coordinates over sigma: states are the dual unknown of the rows, and s."""

    def __init__(self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array) -> None:
        super().__init__(net, problem, scale, direction, native=False)
        self.map = replace(self.map, cap=CAP)  # predictions grow like ln(1/L): exponents stay far below
        if self.visible_part < 1.0:
            vars(self).update(vars(self.summed_apart(scale, direction)))

    @cached_property
    def log_weights(self) -> Array:
        return log_abs(self.problem.entry_weights)

    def _z(self, y: Array) -> Array:
        return self.reduced.dual(y[..., :-1])

    def _log_sum(self, values: Array) -> Array:
        """``ln sum_i w_i exp(values_i)`` over the last axis."""
        values = values + self.log_weights
        top = values.max(axis=-1)
        return top + np.log(np.exp(values - top[..., None]).sum(axis=-1))

    def loss_terms(self, y: Array) -> tuple[Array, Array, Array, Array]:
        """ln L, minus its slopes ``y q``, curvatures over n L, and the predictor's slope in z at states (..., N)."""
        margins = self.problem.y * self._reduced.predict(self._mean(0.0, y))
        assert self.problem.loss_function.margin_logs is not None
        value, slope, curvature = self.problem.loss_function.margin_logs(margins)
        total = self._log_sum(value)
        over = self.log_weights - total[..., None]
        return (
            total - np.log(self.problem.n),
            self.problem.y * np.exp(slope + over),
            np.exp(curvature + over),
            self.map.slope(self._z(y), 0.0),
        )

    @property
    def _reduced(self) -> ReducedLoss:
        assert isinstance(self.reduced, ReducedLoss)
        return self.reduced

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(
            rhs=self._rhs,
            y0=np.append(np.zeros(self.reduced.count), self.log_unit_of_time),
            jacobian=self._jacobian,
            step_limit=self._step_limit,
            check=self._check,
        )

    @property
    def first(self) -> float:
        """``ln(1/L)`` at the start."""
        return -float(self.loss_terms(np.zeros(self.reduced.count + 1))[0])

    @cached_property
    def log_unit_of_time(self) -> float:
        """ln T: of the time in which the loss changes at the start, if it is shorter than 1/L."""
        _, force, _, slope = self.loss_terms(np.zeros(self.reduced.count + 1))
        return self.first - math.log(max(1.0, float(slope @ self.reduced.dual(self._rate(force)) ** 2)))

    def _rhs(self, t: float, y: Array) -> Array:
        log_loss, force, _, _ = self.loss_terms(y)
        return np.append(self._rate(force), _pace(-float(log_loss), y[-1])[0])

    def _rate(self, force: Array) -> Array:
        """Of the dual unknown of the rows."""
        reduced = self._reduced
        return reduced.scale / reduced.unit * self.problem.n * reduced.projected(force.T).T

    def _jacobian(self, t: float, y: Array) -> Array:
        log_loss, force, curvature, slope = self.loss_terms(y)
        reduced = self._reduced
        active = slope > 0
        B = reduced.B[:, active]
        rows = B if reduced.Q is None else reduced.Q @ B
        drift = force @ rows
        out = np.zeros((len(y), len(y)))
        inner = reduced.projected(np.outer(force, drift) - curvature[:, None] * rows)
        out[:-1, :-1] = reduced.by_unknowns(reduced.scale * self.problem.n * inner * slope[active], active)
        pace, by_log = _pace(-float(log_loss), y[-1])
        out[-1, :-1] = reduced.by_unknowns(by_log * reduced.unit * drift * slope[active], active)
        out[-1, -1] = -pace
        return out

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        exponents = self.map.exponents(self._z(y), 0.0)
        growth = self.map.modes.rate * self.reduced.dual(derivative[:-1])[:, None]
        rising = (growth > 0) & (self.map.modes.coefficient != 0)
        if not rising.any():
            return np.inf
        level = np.maximum(exponents, np.log(self.visible)) + _STRIDE
        return float(((level - exponents)[rising] / growth[rising]).min())

    def _check(self, t: float, y: Array) -> str | None:
        z = self._z(y)
        return self._cancelled(t, z, self.reduced.moved(y[:-1])) or self.map.range_error(z, t)

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        size = self.reduced.count
        return 0.0, np.append(np.full(size, SAFETY * self.visible_part * rtol / np.sqrt(size)), rtol)

    def least_tolerance(self, y: Array) -> float:
        return super().least_tolerance(y[..., :-1])

    def velocity(self, t: Array, y: Array) -> Array:
        """``d beta / d sigma``."""
        _, force, _, slope = self.loss_terms(y)
        return slope * self.reduced.dual(self._rate(force))

    def log_loss(self, y: Array) -> Array:
        """ln L of states (K, N)."""
        return self.loss_terms(y)[0]

    def times(self, solution: Solution, elapsed: float) -> Callable[[Index, Array, Array], Array]:
        """The map (step, position, state) to time, which is part of the state; infinite on overflow."""
        return self._time

    def _time(self, step: Index, position: Array, y: Array) -> Array:
        known = -self.log_loss(y) < LAST_TIME
        with np.errstate(over="ignore"):
            time = np.expm1(np.where(known, y[:, -1] - self.log_unit_of_time, 0.0)) * np.exp(self.log_unit_of_time)
        return np.where(known, time, np.inf)


def _pace(value: float, s: float) -> tuple[float, float]:
    """``ds/d sigma`` and its derivative in ln(1/L)."""
    past = min(max((value - LAST_TIME) / _FADE, 0.0), 1.0)
    if past == 1.0:
        return 0.0, 0.0
    pace = float(np.exp(value - s))
    kept, falling = 1.0 - past**2 * (3.0 - 2.0 * past), -6.0 * past * (1.0 - past) / _FADE
    return pace * kept, pace * (kept + falling)
