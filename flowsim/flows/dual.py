r"""Dual coordinates: a network integrated through its growth map, exact at any scale.

.. math:: \dot z = -\nabla L(B(z, t)), \qquad z = X^\top \nu / n,

so that z alone evolves, in the row space of X; weights and conserved quantities are computed from the map
(:mod:`flowsim.growth`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Unpack
from weakref import WeakKeyDictionary

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.coordinates import SAFETY, Coordinates, IntegrationOptions, Observed
from flowsim.flows.reduced import Reduced
from flowsim.growth.protocol import GrowthMap
from flowsim.network import DiagonalNetwork
from flowsim.network.decay import jumps
from flowsim.problem import Problem, Regression
from flowsim.problem.cancellation import visible_part
from flowsim.solvers import InitialValueProblem, SeparableFlow, SeparableSolution, integrate_separable
from flowsim.solvers.scipy_methods import SMALLEST_RTOL

#: Horizons of so many times of the start are integrated in logarithmic time: losses of e^hundreds fall as 1 / t.
_FAST = 1e20
#: Coefficients above this part of the data's are visible; e-folds by which a step may carry a hidden one past that.
_VISIBLE, _OVERSHOOT = 1e-8, 3.0
#: Rounding error of a state.
ROUNDINGS = 4.0 * float(np.finfo(float).eps)
#: Entries of states read at once, which stay in the cache.
_AT_ONCE = 1 << 15
#: Data shared by the flows of a problem.
_SHARED: WeakKeyDictionary[Problem, dict[Any, Any]] = WeakKeyDictionary()


class DualCoordinates(Coordinates):
    """The flow in the states of a growth map (native), or in a dual unknown y with ``z = B^T y`` (SciPy).

    Parameters
    ----------
    growth : GrowthMap
        Of the network, from its start; a :class:`~flowsim.growth.protocol.SteppedMap` if not native.
    native : bool
        States are those of the map and come from :meth:`integrate`.
    """

    def __init__(self, net: DiagonalNetwork, problem: Problem, growth: GrowthMap, *, native: bool = True) -> None:
        self.net, self.problem, self.native = net, problem, native
        self.map: Any = growth
        self.name, self.invariants, self.log_unit = growth.name, growth.invariants, growth.log_unit

    @cached_property
    def flow(self) -> SeparableFlow:
        """The flow in the form of the native integrator."""
        problem, base = self.problem, self.map.base
        squares = isinstance(problem, Regression)
        offset = np.asarray(problem.X @ np.broadcast_to(base, problem.d)) if base.any() else None
        load = problem.loss_function.kernel
        return SeparableFlow(
            A=problem.X,
            b=problem.y - offset if squares and offset is not None else problem.y,
            n=problem.n,
            column_norms=None if hasattr(problem.X, "tocsc") else problem.column_norms,
            loss=None if squares or load is None else load(),
            weights=problem.sample_weight,
            offset=None if squares else offset,
            shared=_SHARED.setdefault(problem, {}),
            **self.map.separable(),
        )

    def integrate(self, t_end: float, **options: Unpack[IntegrationOptions]) -> SeparableSolution:
        """Integrate natively over [0, t_end]."""
        return integrate_separable(
            self.flow,
            t_end,
            tol=self.visible_part * options["rtol"],
            max_steps=options["max_steps"],
            progress=options.get("progress"),
            done=options.get("done"),
        )

    @cached_property
    def visible_part(self) -> float:
        """The part of the tolerance to which the logarithms of weights must be known."""
        rate = getattr(self.map, "rate", None)  # none where states are distances to blow-ups
        if rate is None:
            return 1.0
        start = self.map.state(np.zeros((1, self.problem.d)))
        terms = float(self.map.slope(start, 0.0).max()) / (2.0 * rate)
        return visible_part(self.problem, self.map.value(start, 0.0), terms)

    def starts_too_fast(self) -> bool:
        """Whether ``z'' = -X^T W X (d beta/dt) / n``, which the native method needs, overflows at the start."""
        start, problem = self.map.state(np.zeros((1, self.problem.d))), self.problem
        with np.errstate(over="ignore", invalid="ignore"):
            velocity, mean = self.velocity(np.zeros(1), start), self.map.value(start, 0.0) + self.map.shift
            change_of_slope = problem.curvatures(problem.predict(mean[0])) * problem.predict(velocity[0])
            return not np.isfinite(problem.X.T @ change_of_slope).all()

    @cached_property
    def reduced(self) -> Reduced:
        start = self.map.value(np.zeros(self.problem.d), 0.0) + self.map.shift
        return Reduced.of(self.problem, start, self.map.is_damped)

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(
            rhs=self._rhs,
            y0=np.zeros(self.reduced.count),
            jacobian=self._jacobian,
            step_limit=self._step_limit,
            check=self._check,
            breaks=jumps(self.net.weight_decay),
        )

    def starts_fast(self, horizon: float) -> bool:
        if isinstance(self.problem, Regression):
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            return _FAST < float(np.abs(self._rhs(0.0, self.ivp.y0)).max()) * horizon < np.inf

    def _z(self, y: Array) -> Array:
        return y if self.native else self.reduced.dual(y)

    def _mean(self, t: float | Array, y: Array) -> Array:
        """The expected predictor, (..., d)."""
        return self.map.value(self._z(y), t) + self.map.shift

    def _rhs(self, t: float, y: Array) -> Array:
        return self.reduced.rate(self._mean(t, y))

    def _jacobian(self, t: float, y: Array) -> Array:
        return self.reduced.jacobian(self._mean(t, y), self.map.slope(self._z(y), t))

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """The longest step that ends soon after a hidden coordinate becomes visible."""
        speed = self.reduced.dual(derivative)
        return float(self.map.until_visible(self._z(y), t, speed, self.visible, _OVERSHOOT))

    @cached_property
    def visible(self) -> float:
        """Coefficients below this are hidden."""
        return _VISIBLE * max(float(np.linalg.norm(self.reduced.b)), np.finfo(float).tiny)

    def _check(self, t: float, y: Array) -> str | None:
        wrong: str | None = self.map.range_error(self._z(y), t)
        return self.reduced.check(self._mean(t, y)) if wrong is None else wrong

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # dz is a relative error of the weights: absolute on y, which bounds z since the columns of B are at most 1.
        size = self.reduced.count
        return 0.0, np.full(size, SAFETY * self.visible_part * rtol / (np.sqrt(size) * self.map.rate))

    def least_tolerance(self, y: Array) -> float:
        """The tolerance below which SciPy's methods take no other steps: they allow local errors relative to y."""
        return SMALLEST_RTOL * float(np.abs(y).max()) / float(self.tolerances(1.0, 0.0)[1][0])

    def velocity(self, t: Array, y: Array) -> Array:
        velocity: Array = self.map.slope(self._z(y), t) * -self.problem.gradients(self._mean(t, y))
        return velocity + self.map.drift(self._z(y), t) if self.map.is_damped else velocity

    def predictor(self, t: Array, y: Array) -> Array:
        return self.map.value(self._z(y), t)

    def rounding(self, t: Array, y: Array) -> Array:
        # Of z, or the nearer distance to a blow-up.
        size = np.where(np.isfinite(y), np.abs(y), np.inf).reshape(len(y), -1, self.problem.d).min(axis=1)
        size[~np.isfinite(size)] = 0.0
        with np.errstate(over="ignore"):
            return np.asarray((ROUNDINGS * self.map.slope(y, t) * size).max(axis=1))

    def observe(self, t: Array, y: Array) -> Observed:
        z = self._z(y)
        weights, logs = _by_rows(lambda part: self.map.weights(z[part], t[part]), z)
        if self.map.is_constant:
            once = self.map.conserved(z[:1], t[:1])
            conserved, log_conserved = (np.broadcast_to(each[0], (len(t), *each.shape[1:])) for each in once)
        else:
            conserved, log_conserved = _by_rows(lambda part: self.map.conserved(z[part], t[part]), z)
        return Observed.of(self.net.weights, weights, logs, conserved, log_conserved)

    def departure(self, t: Array, y: Array, seen: Callable[[], Observed]) -> Array:
        if self.map.is_constant:
            return np.zeros(len(t))
        z = self._z(y)

        def largest(part: slice) -> tuple[Array]:
            law, log_conserved = self.map.law(t[part]), self.map.conserved(z[part], t[part])[1]
            lawful = np.isfinite(law)
            departure = np.where(lawful, log_conserved, 0.0) - np.where(lawful, law, 0.0)
            return (np.abs(np.expm1(departure)).max(axis=(1, 2), initial=0.0),)

        return _by_rows(largest, z)[0]


def takes_steps(coordinates: Any) -> bool:
    """Whether they are native ones that SciPy's methods could integrate as well."""
    native = isinstance(coordinates, DualCoordinates) and coordinates.native
    return native and hasattr(coordinates.map, "until_visible")


def _by_rows(read: Callable[[slice], tuple[Array, ...]], z: Array) -> tuple[Array, ...]:
    """Apply `read` to all states (T, N), a few at a time, so that temporaries stay in the cache."""
    rows = max(1, _AT_ONCE // max(z.shape[1], 1))
    first = read(slice(0, rows))
    if len(z) <= rows:
        return first
    out = tuple(np.empty((len(z), *values.shape[1:])) for values in first)
    for begin in range(0, len(z), rows):
        part = slice(begin, begin + rows)
        for to, values in zip(out, read(part) if begin else first, strict=True):
            to[part] = values
    return out
