r"""Growth coordinates: the exact way to integrate a quadratic network at any scale.

For ``phi(w) = w^T M w`` with eigenvectors q_k, eigenvalues mu_k and ``c_k = q_k^T w`` the flow is

.. math::
    \ln|c_k(t)| = \ln|c_k(0)| + 2 \mu_k z - 4 \mu_k^2 \kappa t, \qquad
    \beta = \sum_k \frac{\mu_k}{|q_k|^2} c_k^2, \qquad z_i(t) = -\int_0^t g_i\, ds,

with ``kappa_i = eta^2 sigma_i^2``. Only z evolves, in the row space of X: ``z = X^T nu / n``,
``nu' = y - X m(z, t)``. The scale alpha enters through ln|c_k(0)| alone, so nothing underflows, and what the flow
conserves holds by construction. For ``u*v`` the c_k are p = u + v and q = u - v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.coordinates import Observed
from flowsim.network import DiagonalNetwork, InitialScale, quadratic_form
from flowsim.network.modes import ZERO, components, conserved_exponents, diagonalise, invariant_names
from flowsim.problem import Regression
from flowsim.solvers import InitialValueProblem, SeparableFlow, SeparableSolution, integrate_separable

__all__ = ["GrowthCoordinates", "GrowthMap", "admits_growth"]

Array = NDArray[np.float64]

#: exp is continued linearly above this exponent, so that a predictor that overshoots stays finite and convex.
_CAP = 80.0
#: Several steps err before an error is contracted away; measured so that the global error stays below rtol.
_SAFETY = 0.02
#: A step may carry an unseen coordinate this many e-folds past the level where it becomes visible.
_OVERSHOOT = 3.0


def admits_growth(net: DiagonalNetwork) -> str | None:
    """None if growth coordinates are exact for the network, else the reason why not."""
    for formula in net.distinct:
        form = quadratic_form(formula)
        if form is None:
            return f"{formula.text!r} is not a quadratic form"
        if net.noise is None:
            continue
        if net.noise.multiplicative:
            return "multiplicative noise couples z to the weights"
        stds = net.noise.stds(net.weights)[[net.weights.index(name) for name in formula.weights]]
        if np.ptp(stds) > 0:
            return "the weights of a coordinate carry different noise"
        if stds[0] > 0 and np.diag(form).any() and net.noise.unit_moment(3) != 0:
            return "skewed noise drives the weights directly"
    return None


@dataclass(frozen=True, eq=False)
class GrowthMap:
    r"""``m_i(z, t) = shift_i + sum_k coefficient_ik exp(offset_ik + rate_ik z_i - decay_ik t)``; arrays are (d, k).

    Attributes
    ----------
    sign : array (d, k)
        Signs of c_k, constant along the flow; 0 where c_k is exactly zero.
    basis : array (d, k, k)
        ``w_a = sum_k basis[i, a, k] c_k``.
    shift : array (d,)
        ``E phi(w + xi) - phi(w) = eta^2 tr M``.
    conserved : array (d, k - 1, k)
        Exponents e with ``sum_k e_k rate_k = 0``: the conserved quantities are ``prod_k c_k^e_k``.
    """

    coefficient: Array
    offset: Array
    rate: Array
    decay: Array
    sign: Array
    basis: Array
    shift: Array
    conserved: Array
    invariants: tuple[str, ...]

    @classmethod
    def of(cls, net: DiagonalNetwork, problem: Regression, scale: InitialScale, direction: Array) -> GrowthMap:
        """Diagonalise every formula of the network at the start ``alpha * direction``."""
        count, features = direction.shape
        stds = np.zeros(count) if net.noise is None else net.noise.stds(net.weights)
        # Where all coordinates are alike one stands for all: memory is for the data, not for copies of numbers.
        alike = len(net.distinct) == 1 and bool((direction == direction[:, :1]).all())
        d = 1 if alike else features
        direction, kinds = direction[:, :d], net.kinds(features)[:d]
        shape = (d, count)
        coefficient, offset, rate, decay, sign = (np.zeros(shape) for _ in range(5))
        basis, shift = np.zeros((d, count, count)), np.zeros(d)
        conserved = np.zeros((d, count - 1, count))
        names: list[tuple[str, ...]] = []
        for kind, formula in enumerate(net.distinct):
            here = kinds == kind
            values, vectors = diagonalise(formula, net.weights)
            square = (vectors**2).sum(axis=0)
            start = components(vectors, direction[:, here])
            eta = max(stds[net.weights.index(name)] for name in formula.weights)
            with np.errstate(divide="ignore"):
                offset[here] = 2 * (scale.log + np.log(np.abs(start.T)))
            sign[here] = np.sign(start.T)
            coefficient[here] = np.where(start.T == 0, 0.0, values / square)
            rate[here] = 4 * values
            decay[here] = 8 * eta**2 * values**2
            basis[here] = vectors / square
            shift[here] = eta**2 * values.sum()
            exponents = conserved_exponents(values)
            conserved[here] = exponents
            names.append(invariant_names(formula, net.weights, vectors, exponents))
        # exp(-inf) is right but inf - inf is not: an exactly zero component is carried by its coefficient alone.
        offset[sign == 0] = 0.0

        def spread(part: Array) -> Array:
            return np.broadcast_to(part, (features, *part.shape[1:])) if alike else part

        decays = spread(decay)
        if decay.any():
            decays = decays * problem.feature_variances[:, None]
        return cls(
            spread(coefficient), spread(offset), spread(rate), decays, spread(sign), spread(basis), spread(shift),
            spread(conserved), _merge_names(names),
        )  # fmt: skip

    def exponents(self, z: Array, t: Array | float) -> Array:
        """``ln c_k^2`` for z (..., d) and t broadcast against its leading axes, shape (..., d, k)."""
        return self.offset + self.rate * z[..., None] - self.decay * np.asarray(t)[..., None, None]

    def mean(self, exponents: Array) -> Array:
        """m, shape (..., d)."""
        return self.shift + (self.coefficient * _exp(exponents)).sum(axis=-1)

    @cached_property
    def _conservation(self) -> tuple[Array, Array, Array]:
        """Start, slope in z and decay of the ln of every conserved quantity, (d, k - 1)."""
        enters = self.conserved != 0
        vanishing = (enters & (self.sign == 0)[:, None, :]).any(axis=-1)
        start = (self.conserved * np.where(enters, self.offset[:, None, :], 0.0)).sum(axis=-1) / 2
        slopes = self.conserved * self.rate[:, None, :]
        slope = slopes.sum(axis=-1)
        # Zero, but for the rounding of exponents that are not small fractions.
        slope[np.abs(slope) <= ZERO * np.abs(slopes).sum(axis=-1)] = 0.0
        decay = (self.conserved * self.decay[:, None, :]).sum(axis=-1) / 2
        return np.where(vanishing, -np.inf, start), slope / 2, decay

    def log_conserved(self, z: Array, t: Array) -> Array:
        """``ln |prod_k c_k^e_k|``, shape (..., d, k - 1); -inf where it is exactly zero.

        What the e_k cancel is left out, rather than summed: the exponents may be 10^6, and z drops out of the sum.
        """
        start, slope, decay = self._conservation
        return start + slope * z[..., None] - decay * np.asarray(t)[..., None, None]

    def log_components(self, z: Array, t: Array) -> Array:
        """``ln |c_k|``, shape (..., d, k); -inf where c_k is exactly zero."""
        return np.where(self.sign == 0, -np.inf, self.exponents(z, t) / 2)


@dataclass(frozen=True, eq=False)
class _Reduced:
    """The problem in r = min(n, d) rows with columns of length at most 1: ``z = B^T y``, ``y' = scale (b - B m)``."""

    B: Array
    b: Array
    scale: float

    @classmethod
    def of(cls, problem: Regression) -> _Reduced:
        X, y = problem.X, problem.y
        largest = float(np.sqrt(problem.feature_variances.max())) or 1.0
        if not isinstance(X, np.ndarray):
            X = X.toarray() if hasattr(X, "toarray") else np.asarray(X @ np.eye(problem.d))
        if problem.n > problem.d:
            # An orthogonal factor of X changes neither z nor g.
            Q, X = np.linalg.qr(X)
            y = Q.T @ y
        return cls(
            np.ascontiguousarray(X) / (np.sqrt(problem.n) * largest), y / (np.sqrt(problem.n) * largest), largest**2
        )


class GrowthCoordinates:
    """The flow of a quadratic network in z itself (native), or in a dual unknown y with ``z = B^T y`` (SciPy).

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`admits_growth` is None.
    problem : Regression
    scale : InitialScale
    direction : array (k, d)
        The start is alpha times this.
    native : bool
        States are z (d,) and come from :meth:`integrate`.
    """

    name = "growth"

    def __init__(
        self,
        net: DiagonalNetwork,
        problem: Regression,
        scale: InitialScale,
        direction: Array,
        *,
        native: bool = True,
    ) -> None:
        self.net, self.problem, self.native = net, problem, native
        self.map = GrowthMap.of(net, problem, scale, direction)
        self.invariants = self.map.invariants

    @cached_property
    def reduced(self) -> _Reduced:
        return _Reduced.of(self.problem)

    @cached_property
    def _visible(self) -> float:
        return float(np.log(1e-8 * max(float(np.linalg.norm(self.reduced.b)), np.finfo(float).tiny)))

    @cached_property
    def flow(self) -> SeparableFlow:
        """The flow as the native integrator takes it."""
        m, problem = self.map, self.problem

        def log_coefficient(offset: Array, coefficient: Array) -> Array:
            with np.errstate(divide="ignore"):
                logs: Array = offset + np.log(np.abs(coefficient))
            return logs

        target = problem.y
        if m.shift.any():
            target = target - np.asarray(problem.X @ m.shift)
        return SeparableFlow(
            A=problem.X,
            b=target,
            n=problem.n,
            log_coefficient=_each_row(log_coefficient, m.offset, m.coefficient).T,
            sign=_each_row(np.sign, m.coefficient).T,
            slope=m.rate.T,
            decay=m.decay.T,
            column_norms=np.sqrt(problem.n * problem.feature_variances),
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
            time_derivative=self._time_derivative if self.map.decay.any() else None,
            step_limit=self._step_limit,
            check=self._check,
        )

    def _exponents(self, t: float | Array, y: Array) -> Array:
        return self.map.exponents(self._z(y), t)

    def _z(self, y: Array) -> Array:
        return y if self.native else y @ self.reduced.B

    def _rhs(self, t: float, y: Array) -> Array:
        reduced = self.reduced
        out: Array = reduced.scale * (reduced.b - reduced.B @ self.map.mean(self._exponents(t, y)))
        return out

    def _slope(self, exponents: Array) -> Array:
        """``dm/dz``, shape (..., d); never negative."""
        return (self.map.coefficient * self.map.rate * _exp_slope(exponents)).sum(axis=-1)

    def _jacobian(self, t: float, y: Array) -> Array:
        slope = self._slope(self._exponents(t, y))
        active = slope > 0
        B = self.reduced.B[:, active]
        out: Array = -self.reduced.scale * ((B * slope[active]) @ B.T)
        return out

    def _by_time(self, exponents: Array) -> Array:
        """``dm/dt`` at fixed z."""
        return -(self.map.coefficient * self.map.decay * _exp_slope(exponents)).sum(axis=-1)

    def _time_derivative(self, t: float, y: Array) -> Array:
        out: Array = -self.reduced.scale * (self.reduced.B @ self._by_time(self._exponents(t, y)))
        return out

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """No step reaches far beyond the time at which a hidden coordinate becomes visible."""
        exponents = self._exponents(t, y)
        growth = self.map.rate * (derivative @ self.reduced.B)[:, None] - self.map.decay
        hidden = (growth > 0) & (exponents < self._visible) & (self.map.coefficient != 0)
        if not hidden.any():
            return np.inf
        return float(((self._visible + _OVERSHOOT - exponents[hidden]) / growth[hidden]).min())

    def _check(self, t: float, y: Array) -> str | None:
        if (self._exponents(t, y)[self.map.coefficient != 0] > _CAP).any():
            return "a weight grew beyond exp(40); the step that led there cannot be trusted, tighten `rtol`"
        return None

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # dz is a relative error of the weights: absolute on y, which bounds z since the columns of B are at most 1.
        size = len(self.reduced.b)
        return 0.0, np.full(size, _SAFETY * rtol / np.sqrt(size))

    def velocity(self, t: Array, y: Array) -> Array:
        exponents = self._exponents(t, y)
        residual = np.asarray(self.problem.X @ self.map.mean(exponents).T) - self.problem.y[:, None]
        rate = -np.asarray(self.problem.X.T @ residual).T / self.problem.n
        return self._slope(exponents) * rate + self._by_time(exponents)

    def predictor(self, t: Array, y: Array) -> Array:
        m, z = self.map, self._z(y)
        out = np.zeros(z.shape)
        # One exponential at a time: sums over a last axis of length 2 take longer than the exponentials.
        with np.errstate(over="ignore"):
            for k in range(m.sign.shape[1]):
                exponent = m.rate[:, k] * z
                exponent += np.where(m.coefficient[:, k] != 0, m.offset[:, k], -np.inf)
                if m.decay[:, k].any():
                    exponent -= m.decay[:, k] * t[:, None]
                np.exp(exponent, out=exponent)
                exponent *= m.coefficient[:, k]
                out += exponent
        return out

    def observe(self, t: Array, y: Array) -> Observed:
        m = self.map
        z = self._z(y)
        logs = m.log_components(z, t)
        # Signed sum of exponentials, scaled by its largest term.
        terms = m.basis[None] * m.sign[:, None, :]
        largest = np.where(terms != 0, logs[:, :, None, :], -np.inf).max(axis=-1)
        finite = np.where(np.isfinite(largest), largest, 0.0)
        scaled = (terms * np.exp(np.minimum(logs[:, :, None, :] - finite[..., None], 0.0))).sum(axis=-1)
        with np.errstate(divide="ignore", over="ignore"):
            log_weights = finite + np.log(np.abs(scaled))
            weights = np.sign(scaled) * np.exp(log_weights)
        log_conserved = m.log_conserved(z, t)
        signs = np.where(m.conserved % 2 == 0, 1.0, m.sign[:, None, :]).prod(axis=-1)
        with np.errstate(over="ignore"):
            conserved = signs * np.exp(log_conserved)
        names = self.net.weights
        return Observed(
            weights={name: weights[:, :, a] for a, name in enumerate(names)},
            log_abs_weights={name: log_weights[:, :, a] for a, name in enumerate(names)},
            imbalance=np.moveaxis(conserved, -1, 1),
            log_imbalance=np.moveaxis(log_conserved, -1, 1),
        )

    def departure(self, t: Array, y: Array, seen: Observed) -> Array:
        law = self.map.log_conserved(np.zeros((len(t), len(self.map.sign))), t)
        law = np.moveaxis(law, -1, 1)
        lawful = np.isfinite(law)
        departure: Array = np.where(lawful, seen.log_imbalance, 0.0) - np.where(lawful, law, 0.0)
        departure = np.abs(np.expm1(departure)).max(axis=(1, 2), initial=0.0)
        return departure


def _each_row(function: Callable[..., Array], *arrays: Array) -> Array:
    """A function of rows; of one row, where all are views of it."""
    if all(array.strides[0] == 0 for array in arrays):
        row = function(*(array[:1] for array in arrays))
        return np.broadcast_to(row, (len(arrays[0]), *row.shape[1:]))
    return function(*arrays)


def _exp(exponents: Array) -> Array:
    """exp, continued linearly above the cap."""
    return np.exp(np.minimum(exponents, _CAP)) * (1.0 + np.maximum(exponents - _CAP, 0.0))


def _exp_slope(exponents: Array) -> Array:
    return np.exp(np.minimum(exponents, _CAP))


def _merge_names(names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """One label per pair; formulas that conserve different things share it as 'a | b'."""
    return tuple(" | ".join(dict.fromkeys(options)) for options in zip(*names, strict=True))
