r"""Growth coordinates: the exact way to integrate a quadratic network at any scale.

Only the dual z of :mod:`flowsim.growth.exponential` evolves, in the row space of X: ``z = X^T nu / n``,
``nu' = y - X m(z, t)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.coordinates import Observed
from flowsim.flows.reduced import EXPONENTIAL, Reduced
from flowsim.growth.exponential import CAP, GrowthMap, capped_slope
from flowsim.network import DiagonalNetwork, InitialScale, Start
from flowsim.problem import Problem, Regression
from flowsim.solvers import InitialValueProblem, SeparableFlow, SeparableSolution, integrate_separable

__all__ = ["GrowthCoordinates", "takes_loss"]

Array = NDArray[np.float64]

_CAP_OF_EXPONENTIALS = 20.0
#: Several steps err before an error is contracted away; measured so that the global error stays below rtol.
_SAFETY = 0.02
#: A step may carry an unseen coordinate this many e-folds past the level where it becomes visible.
_OVERSHOOT = 3.0


def takes_loss(problem: Problem) -> bool:
    """Whether the native method integrates with the loss of a problem."""
    return problem.loss_function.kernel is not None and problem.d <= SeparableFlow.MOST_WITH_LOSS


class GrowthCoordinates:
    """The flow of a quadratic network in z itself (native), or in a dual unknown y with ``z = B^T y`` (SciPy).

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`admits_growth` is None.
    problem : Problem
    scale : InitialScale
    direction : array (k, d) or Start
        The start is alpha times this.
    native : bool
        States are z (d,) and come from :meth:`integrate`.
    """

    name = "growth"
    log_unit = 0.0

    def __init__(
        self,
        net: DiagonalNetwork,
        problem: Problem,
        scale: InitialScale,
        direction: Array | Start,
        *,
        native: bool = True,
    ) -> None:
        self.net, self.problem, self.native = net, problem, native
        self.map = GrowthMap.of(net, problem, scale, direction)
        self.invariants = self.map.modes.invariants

    @cached_property
    def reduced(self) -> Reduced:
        start = self.map.mean(self.map.exponents(np.zeros(1), np.zeros(())))
        return Reduced.of(self.problem, np.broadcast_to(start, self.problem.d))

    @cached_property
    def cap(self) -> float:
        """The exponent above which exp is continued linearly: lower where the loss makes an exponential of it again."""
        if self.problem.loss_function.safe_prediction > EXPONENTIAL:
            return CAP
        sizes = self.problem.feature_variances
        return _CAP_OF_EXPONENTIALS + max(0.0, -0.5 * float(np.log(sizes[sizes > 0].min(initial=1.0))))

    @cached_property
    def _visible(self) -> float:
        return float(np.log(1e-8 * max(float(np.linalg.norm(self.reduced.b)), np.finfo(float).tiny)))

    @cached_property
    def flow(self) -> SeparableFlow:
        """The flow as the native integrator takes it."""
        modes, problem = self.map.modes, self.problem
        log_coefficient, sign, slope, decay = self.map.for_solver
        target = problem.y
        if modes.is_shifted:
            target = target - np.asarray(problem.X @ np.broadcast_to(modes.shift, problem.d))
        return SeparableFlow(
            A=problem.X,
            b=target,
            n=problem.n,
            log_coefficient=log_coefficient,
            sign=sign,
            slope=slope,
            decay=decay,
            column_norms=problem.column_norms,
            loss=self._loss_kernel,
            weights=problem.sample_weight,
        )

    @cached_property
    def _loss_kernel(self) -> Any:
        """The compiled derivatives of a loss that is no square."""
        if isinstance(self.problem, Regression):
            return None
        load = self.problem.loss_function.kernel
        return None if load is None else load()

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
            time_derivative=self._time_derivative if self.map.is_damped else None,
            step_limit=self._step_limit,
            check=self._check,
        )

    def _exponents(self, t: float | Array, y: Array) -> Array:
        return self.map.exponents(self._z(y), t)

    def _z(self, y: Array) -> Array:
        return y if self.native else y @ self.reduced.B

    def _rhs(self, t: float, y: Array) -> Array:
        return self.reduced.rate(self.map.mean(self._exponents(t, y), self.cap))

    def _slope(self, exponents: Array) -> Array:
        """``dm/dz``, shape (..., d); never negative."""
        return (self.map.modes.coefficient * self.map.modes.rate * capped_slope(exponents, self.cap)).sum(axis=-1)

    def _jacobian(self, t: float, y: Array) -> Array:
        exponents = self._exponents(t, y)
        return self.reduced.jacobian(self.map.mean(exponents, self.cap), self._slope(exponents))

    def _by_time(self, t: float | Array, exponents: Array) -> Array:
        """``dm/dt`` at fixed z."""
        return -(self.map.modes.coefficient * self.map.decaying(t) * capped_slope(exponents, self.cap)).sum(axis=-1)

    def _time_derivative(self, t: float, y: Array) -> Array:
        exponents = self._exponents(t, y)
        return self.reduced.toward(self.map.mean(exponents, self.cap), self._by_time(t, exponents))

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """No step reaches far beyond the time at which a hidden coordinate becomes visible."""
        exponents = self._exponents(t, y)
        growth = self.map.modes.rate * (derivative @ self.reduced.B)[:, None] - self.map.decaying(t)
        hidden = (growth > 0) & (exponents < self._visible) & (self.map.modes.coefficient != 0)
        if not hidden.any():
            return np.inf
        return float(((self._visible + _OVERSHOOT - exponents[hidden]) / growth[hidden]).min())

    def _check(self, t: float, y: Array) -> str | None:
        if ((self._exponents(t, y) > self.cap) & (self.map.modes.coefficient != 0)).any():
            return (
                f"a weight grew beyond exp({self.cap / 2:g}); the step that led there cannot be trusted, tighten `rtol`"
            )
        return self.reduced.check(self.map.mean(self._exponents(t, y), self.cap))

    needs_finer_steps = False

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # dz is a relative error of the weights: absolute on y, which bounds z since the columns of B are at most 1.
        size = len(self.reduced.b)
        return 0.0, np.full(size, _SAFETY * rtol / np.sqrt(size))

    def velocity(self, t: Array, y: Array) -> Array:
        exponents = self._exponents(t, y)
        slopes = self.problem.slopes(self.problem.predict(self.map.mean(exponents, self.cap)))
        rate = -np.asarray(self.problem.X.T @ slopes.T).T / self.problem.n
        return self._slope(exponents) * rate + self._by_time(t, exponents)

    def predictor(self, t: Array, y: Array) -> Array:
        if self.map.schedule is not None:
            exponents = self._exponents(t, y)
            return self.map.mean(exponents, self.cap) - self.map.modes.shift
        return self.flow.beta(self._z(y), t)

    def observe(self, t: Array, y: Array) -> Observed:
        m, z = self.map, self._z(y)
        count = m.modes.sign.shape[1]
        logs = [m.log_component(k, z, t) for k in range(count)]
        weights, log_weights = {}, {}
        for a, name in enumerate(self.net.weights):
            # A signed sum of exponentials, scaled by its largest term.
            factors = m.modes.basis[:, a] * m.modes.sign
            shown = [np.where(factors[:, k] != 0, logs[k], -np.inf) for k in range(count)]
            largest = np.maximum.reduce(shown)
            largest[np.isneginf(largest)] = 0.0
            scaled = np.zeros(z.shape)
            for k in range(count):
                scaled += factors[:, k] * np.exp(shown[k] - largest)
            with np.errstate(divide="ignore", over="ignore"):
                log_weights[name] = largest + np.log(np.abs(scaled))
                weights[name] = np.sign(scaled) * np.exp(log_weights[name])
        log_conserved = m.log_conserved(z, t)
        signs = np.where(m.modes.conserved % 2 == 0, 1.0, m.modes.sign[:, None, :]).prod(axis=-1)
        with np.errstate(over="ignore"):
            conserved = signs * np.exp(log_conserved)
        return Observed(
            weights=weights,
            log_abs_weights=log_weights,
            imbalance=np.moveaxis(conserved, -1, 1),
            log_imbalance=np.moveaxis(log_conserved, -1, 1),
        )

    def departure(self, t: Array, y: Array, seen: Observed) -> Array:
        law = self.map.log_conserved(np.zeros((len(t), 1)), t)
        law = np.moveaxis(law, -1, 1)
        lawful = np.isfinite(law)
        departure: Array = np.where(lawful, seen.log_imbalance, 0.0) - np.where(lawful, law, 0.0)
        departure = np.abs(np.expm1(departure)).max(axis=(1, 2), initial=0.0)
        return departure
