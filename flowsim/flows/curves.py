r"""Curve coordinates: any formula without noise, integrated in its dual.

.. math:: \dot z = -\nabla L(B(z)), \qquad z = B_r^\top y .

The weights of a coordinate move along one curve whatever the data do (:mod:`flowsim.growth.curve`): they are read off
it, at any scale, and nothing is lost where a coordinate changes sign.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.coordinates import Observed
from flowsim.flows.reduced import Reduced
from flowsim.growth.curve_map import CurveMap
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem
from flowsim.solvers import InitialValueProblem
from flowsim.symbolic import kernels

__all__ = ["CurveCoordinates"]

Array = NDArray[np.float64]

#: Several steps err before an error is contracted away.
_SAFETY = 0.02
#: Coefficients of this share of the data are visible, and a step may carry an unseen one so many e-folds past that.
_VISIBLE, _OVERSHOOT = 1e-8, 3.0


class CurveCoordinates:
    """The flow in a dual unknown y with ``z = B^T y``.

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`flowsim.growth.curve_map.admits_curves` is None.
    problem : Problem
    scale : InitialScale
    direction : array (k, d)
        The start is alpha times this.
    """

    name = "curve"
    log_unit = 0.0

    def __init__(self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array) -> None:
        self.net, self.problem, self.scale, self.direction = net, problem, scale, direction
        pull, norms = np.abs(problem.rmatvec(problem.slopes(np.zeros(problem.n)))), problem.column_norms
        size = float(np.divide(pull, norms**2, out=np.zeros(problem.d), where=norms > 0).max())
        self.map = CurveMap(net, scale, direction, size)
        self.kernels = kernels(net)
        self.invariants = self.kernels.invariant_names

    @cached_property
    def reduced(self) -> Reduced:
        return Reduced.of(self.problem, self.map(np.zeros(self.problem.d))[0])

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(
            rhs=self._rhs,
            y0=np.zeros(len(self.reduced.b)),
            jacobian=self._jacobian,
            step_limit=self._step_limit,
            check=self._check,
        )

    def _rhs(self, t: float, y: Array) -> Array:
        return self.reduced.rate(self.map(y @ self.reduced.B)[0])

    def _jacobian(self, t: float, y: Array) -> Array:
        return self.reduced.jacobian(*self.map(y @ self.reduced.B))

    @cached_property
    def _thresholds(self) -> tuple[Array, Array, Array, Array]:
        return self.map.until_visible(_VISIBLE * max(float(np.linalg.norm(self.reduced.b)), np.finfo(float).tiny))

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """No step reaches far beyond the time at which a hidden coordinate becomes visible."""
        z, speed = y @ self.reduced.B, derivative @ self.reduced.B
        below, above, slow, fast = self._thresholds
        limit = np.inf
        for sign, ends, rates in ((-1.0, below, slow), (1.0, above, fast)):
            left = sign * (ends - z)
            hidden = (left > 0) & (sign * speed > 0)
            if hidden.any():
                limit = min(limit, float(((left + _OVERSHOOT / rates)[hidden] / np.abs(speed[hidden])).min()))
        return limit

    def _check(self, t: float, y: Array) -> str | None:
        z = y @ self.reduced.B
        found = self.map.beyond(z)
        if found is None:
            return self.reduced.check(self.map(z)[0])
        i, why, beta = found
        if why == "saddle":
            return (
                f"coordinate {i} stands at a critical point of its formula, at {beta:.6g}, and would leave it again "
                "in a direction that floats do not carry"
            )
        return f"coordinate {i} left the range of its formula at {beta:.3g}; tighten `rtol`"

    needs_finer_steps = False

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # dz is a relative error of the weights: absolute on y, which bounds z since the columns of B are at most 1.
        size = len(self.reduced.b)
        return 0.0, np.full(size, _SAFETY * rtol / (np.sqrt(size) * self.map.rate))

    def velocity(self, t: Array, y: Array) -> Array:
        beta, slope = self.map(y @ self.reduced.B)
        slopes = self.problem.slopes(self.problem.predict(beta))
        out: Array = -slope * np.asarray(self.problem.X.T @ slopes.T).T / self.problem.n
        return out

    def predictor(self, t: Array, y: Array) -> Array:
        return self.map(y @ self.reduced.B)[0]

    @cached_property
    def _conserved(self) -> tuple[Array, Array]:
        """What the formulas conserve, at the start: values and logarithms of their moduli, (pairs, d)."""
        d = self.problem.d
        value, double = (np.zeros((len(self.invariants), d)) for _ in range(2))
        kinds = self.net.kinds(d)
        start = np.ascontiguousarray(self.direction)
        self.kernels.invariants(start, kinds, value)
        self.kernels.invariants(2.0 * start, kinds, double)
        with np.errstate(divide="ignore", invalid="ignore"):
            power = np.log2(double / value)
            homogeneous = np.abs(power - np.round(power)) < 1e-12
            logs = np.where(homogeneous, np.round(power) * self.scale.log, np.nan) + np.log(np.abs(value))
            if not homogeneous.all():
                exact = np.zeros_like(value)
                self.kernels.invariants(np.ascontiguousarray(self.scale.value * start), kinds, exact)
                logs = np.where(homogeneous, logs, np.log(np.abs(exact)))
                value = np.where(homogeneous, value, exact)
        with np.errstate(over="ignore"):
            return np.sign(value) * np.exp(logs), logs

    def observe(self, t: Array, y: Array) -> Observed:
        weights, logs = self.map.weights(y @ self.reduced.B)
        value, log_value = self._conserved
        shape = (len(t), *value.shape)
        return Observed(
            weights={name: weights[:, a] for a, name in enumerate(self.net.weights)},
            log_abs_weights={name: logs[:, a] for a, name in enumerate(self.net.weights)},
            imbalance=np.broadcast_to(value, shape).copy(),
            log_imbalance=np.broadcast_to(log_value, shape).copy(),
        )

    def departure(self, t: Array, y: Array, seen: Observed) -> Array:
        """Zero: the weights are read off the curve of their start."""
        return np.zeros(len(t))
