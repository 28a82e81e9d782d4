r"""Curve coordinates: any formula without noise, integrated in its dual.

.. math:: \dot z = -\nabla L(B(z)), \qquad z = B_r^\top y .

The weights of a coordinate move along one curve whatever the data do (:mod:`flowsim.growth.curve`): they are read off
it, at any scale, and nothing is lost where a coordinate changes sign.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.coordinates import Observed
from flowsim.flows.reduced import Reduced
from flowsim.growth.curve_map import CurveMap
from flowsim.growth.native import NativeCurves, why_beyond
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem, Regression
from flowsim.solvers import InitialValueProblem, SeparableFlow, SeparableSolution, integrate_separable
from flowsim.symbolic import kernels

__all__ = ["CurveCoordinates"]

Array = NDArray[np.float64]

#: Several steps err before an error is contracted away.
_SAFETY = 0.02
#: Coefficients of this share of the data are visible, and a step may carry an unseen one so many e-folds past that.
_VISIBLE, _OVERSHOOT = 1e-8, 3.0


class CurveCoordinates:
    """The flow in z itself (native), or in a dual unknown y with ``z = B^T y`` (SciPy).

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`flowsim.growth.curve_map.admits_curves` is None.
    problem : Problem
    scale : InitialScale
    direction : array (k, d)
        The start is alpha times this.
    native : bool
        States are z (d,) and come from :meth:`integrate`.
    """

    name = "curve"
    log_unit = 0.0

    def __init__(
        self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, *, native: bool = False
    ) -> None:
        self.net, self.problem, self.scale, self.direction, self.native = net, problem, scale, direction, native
        pull, norms = np.abs(problem.rmatvec(problem.slopes(np.zeros(problem.n)))), problem.column_norms
        size = float(np.divide(pull, norms**2, out=np.zeros(problem.d), where=norms > 0).max())
        self.map = CurveMap(net, scale, direction, size)
        self.kernels = kernels(net)
        self.invariants = self.kernels.invariant_names

    @cached_property
    def reduced(self) -> Reduced:
        return Reduced.of(self.problem, self.map(np.zeros(self.problem.d))[0])

    def _z(self, y: Array) -> Array:
        return y if self.native else y @ self.reduced.B

    @cached_property
    def flow(self) -> SeparableFlow:
        """The flow as the native integrator takes it."""
        problem, d, curves = self.problem, self.problem.d, self.map.curves
        constant = np.array([curve.constant for curve in curves])[self.map.which]
        shift = np.asarray(problem.X @ constant) if constant.any() else np.zeros(problem.n)
        squares = isinstance(problem, Regression)
        load = problem.loss_function.kernel
        ones = np.ones((1, d))
        return SeparableFlow(
            A=problem.X,
            b=problem.y - shift if squares else problem.y,
            n=problem.n,
            log_coefficient=2.0 * min(self.scale.log, 0.0) * ones,
            sign=ones,
            slope=2.0 * self.map.rate * ones,
            decay=0.0 * ones,
            column_norms=problem.column_norms,
            loss=None if squares or load is None else load(),
            weights=None if squares else problem.sample_weight,
            offset=None if squares else shift,
            curves=NativeCurves(self.map),
        )

    def integrate(
        self,
        t_end: float,
        *,
        rtol: float,
        max_steps: int,
        progress: Callable[[float], None] | None = None,
        done: Callable[[SeparableSolution], bool] | None = None,
    ) -> SeparableSolution:
        """Integrate natively over [0, t_end]."""
        return integrate_separable(self.flow, t_end, tol=rtol, max_steps=max_steps, progress=progress, done=done)

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
        return self.reduced.rate(self.map(self._z(y))[0])

    def _jacobian(self, t: float, y: Array) -> Array:
        return self.reduced.jacobian(*self.map(self._z(y)))

    @cached_property
    def _thresholds(self) -> tuple[Array, Array, Array, Array]:
        return self.map.until_visible(_VISIBLE * max(float(np.linalg.norm(self.reduced.b)), np.finfo(float).tiny))

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """No step reaches far beyond the time at which a hidden coordinate becomes visible."""
        z, speed = self._z(y), derivative @ self.reduced.B
        below, above, slow, fast = self._thresholds
        limit = np.inf
        for sign, ends, rates in ((-1.0, below, slow), (1.0, above, fast)):
            left = sign * (ends - z)
            hidden = (left > 0) & (sign * speed > 0)
            if hidden.any():
                limit = min(limit, float(((left + _OVERSHOOT / rates)[hidden] / np.abs(speed[hidden])).min()))
        return limit

    def _check(self, t: float, y: Array) -> str | None:
        z = self._z(y)
        found = self.map.beyond(z)
        return self.reduced.check(self.map(z)[0]) if found is None else why_beyond(*found)

    needs_finer_steps = False

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # dz is a relative error of the weights: absolute on y, which bounds z since the columns of B are at most 1.
        size = len(self.reduced.b)
        return 0.0, np.full(size, _SAFETY * rtol / (np.sqrt(size) * self.map.rate))

    def velocity(self, t: Array, y: Array) -> Array:
        beta, slope = self.map(self._z(y))
        slopes = self.problem.slopes(self.problem.predict(beta))
        out: Array = -slope * np.asarray(self.problem.X.T @ slopes.T).T / self.problem.n
        return out

    def predictor(self, t: Array, y: Array) -> Array:
        return self.map(self._z(y))[0]

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
        weights, logs = self.map.weights(self._z(y))
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
