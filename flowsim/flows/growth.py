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
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.coordinates import Observed
from flowsim.flows.reduced import EXPONENTIAL, Reduced
from flowsim.network import Decay, DiagonalNetwork, Formula, InitialScale, Start, quadratic_form
from flowsim.network.decay import integrals, rates
from flowsim.network.modes import ZERO, components, conserved_exponents, diagonalise, invariant_names
from flowsim.problem import Problem, Regression
from flowsim.solvers import InitialValueProblem, SeparableFlow, SeparableSolution, integrate_separable

__all__ = ["GrowthCoordinates", "GrowthMap", "admits_growth", "takes_loss"]

Array = NDArray[np.float64]

#: exp is continued linearly above this exponent, so that a predictor that overshoots stays finite and convex.
_CAP = 80.0
_CAP_OF_EXPONENTIALS = 20.0
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


def takes_loss(problem: Problem) -> bool:
    """Whether the native method integrates with the loss of a problem."""
    return problem.loss_function.kernel is not None and problem.d <= SeparableFlow.MOST_WITH_LOSS


@dataclass(frozen=True, eq=False)
class Modes:
    """What a start makes of the formulas, at alpha = 1 and for features of variance 1.

    Arrays have one row per coordinate, or a single one that stands for all where all are alike: memory is for the
    data, not for copies of numbers.

    Attributes
    ----------
    d : int
    invariants : tuple of str
    coefficient, log_start, rate, damping : array (d, k)
        ``mu_k / |q_k|^2``, ``ln c_k(0)^2`` (0 where c_k is exactly zero), ``4 mu_k`` and ``8 eta^2 mu_k^2``.
    sign : array (d, k)
        Signs of c_k, constant along the flow; 0 where c_k is exactly zero.
    basis : array (d, k, k)
        ``w_a = sum_k basis[i, a, k] c_k``.
    shift : array (d,)
        ``E phi(w + xi) - phi(w) = eta^2 tr M``.
    conserved : array (d, k - 1, k)
        Exponents e with ``sum_k e_k rate_k = 0``: the conserved quantities are ``prod_k c_k^e_k``.
    """

    d: int
    invariants: tuple[str, ...]
    coefficient: Array
    log_start: Array
    rate: Array
    damping: Array
    sign: Array
    basis: Array
    shift: Array
    conserved: Array

    @classmethod
    def of(cls, net: DiagonalNetwork, direction: Array | Start) -> Modes:
        """Diagonalise every formula of the network at the start `direction`."""
        k, d = direction.shape
        stds = (0.0,) * k if net.noise is None else tuple(net.noise.stds(net.weights).tolist())
        if len(net.distinct) == 1:
            if isinstance(direction, Start):
                return _of_formula(net.distinct[0], net.weights, stds, direction, d)
            if direction.strides[1] == 0 or (direction == direction[:, :1]).all():
                return _alike(net.distinct[0], net.weights, stds, tuple(direction[:, 0].tolist()), d)
            return _of_formula(net.distinct[0], net.weights, stds, direction, d)
        kinds = net.kinds(d)
        members = [np.flatnonzero(kinds == kind) for kind in range(len(net.distinct))]
        parts = [
            _of_formula(
                formula, net.weights, stds,
                direction.among(here) if isinstance(direction, Start) else direction[:, here], len(here),
            )
            for formula, here in zip(net.distinct, members, strict=True)
        ]  # fmt: skip
        back = np.argsort(np.concatenate(members))
        arrays = [np.concatenate(each)[back] for each in zip(*(part.arrays() for part in parts), strict=True)]
        return cls(d, _merge_names([part.invariants for part in parts]), *arrays)

    def arrays(self) -> tuple[Array, ...]:
        """All that has rows."""
        return (
            self.coefficient, self.log_start, self.rate, self.damping, self.sign, self.basis, self.shift,
            self.conserved,
        )  # fmt: skip

    @cached_property
    def is_damped(self) -> bool:
        return bool(self.damping.any())

    @cached_property
    def is_shifted(self) -> bool:
        return bool(self.shift.any())

    @cached_property
    def present(self) -> Array:
        """1 where c_k is not exactly zero."""
        return np.abs(self.sign)

    @cached_property
    def log_coefficient(self) -> Array:
        """``ln |coefficient c_k(0)^2|``, -inf where it is zero."""
        with np.errstate(divide="ignore"):
            return self.log_start + np.log(np.abs(self.coefficient))


@dataclass(frozen=True, eq=False)
class GrowthMap:
    r"""``m_i(z, t) = shift_i + sum_k coefficient_ik exp(offset_ik + rate_ik z_i - decay_ik t)``.

    Attributes
    ----------
    modes : Modes
    log_scale : array (d, k)
        ``ln alpha^2``, 0 where c_k is exactly zero: such a component is carried by its coefficient alone.
    decay : array (d, k)
        ``8 mu_k^2 kappa_i``, plus twice a constant weight decay.
    schedule : Decay or None
        Weight decay that changes in time: every exponent loses ``2 K(t)``.
    """

    modes: Modes
    log_scale: Array
    decay: Array
    schedule: Decay | None = None

    @classmethod
    def of(cls, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array | Start) -> GrowthMap:
        """At the start ``alpha * direction``."""
        modes = Modes.of(net, direction)
        if modes.is_damped or net.weight_decay:
            decay = modes.damping * problem.feature_variances[:, None] if modes.is_damped else modes.damping
            schedule = net.weight_decay if isinstance(net.weight_decay, Decay) else None
            if not isinstance(net.weight_decay, Decay):
                decay = decay + 2 * net.weight_decay * modes.present
            return cls(modes, 2 * scale.log * modes.present, decay, schedule)
        return _undamped_row(modes, scale.log) if len(modes.sign) == 1 else _undamped(modes, scale.log)

    @cached_property
    def for_solver(self) -> tuple[Array, ...]:
        """Logarithms and signs of the coefficients, rates and decays, (k, d)."""
        modes = self.modes
        rows = (self.log_coefficient, np.sign(modes.coefficient), modes.rate, self.decay)
        return tuple(np.broadcast_to(each.T, (each.shape[1], modes.d)) for each in rows)

    @cached_property
    def offset(self) -> Array:
        return self.modes.log_start + self.log_scale

    @cached_property
    def log_coefficient(self) -> Array:
        """``offset + ln |coefficient|``."""
        return self.modes.log_coefficient + self.log_scale

    def exponents(self, z: Array, t: Array | float) -> Array:
        """``ln c_k^2`` for z (..., d) and t broadcast against its leading axes, shape (..., d, k)."""
        return self.offset + self.modes.rate * z[..., None] - self.decayed(t)

    @cached_property
    def is_damped(self) -> bool:
        """Whether components decay in time whatever z does."""
        return self.schedule is not None or bool(self.decay.any())

    def decayed(self, t: Array | float) -> Array:
        """What the exponents have lost by time t (...), shape (..., d, k)."""
        lost: Array = self.decay * np.asarray(t)[..., None, None]
        if self.schedule is not None:
            lost = lost + 2 * self.modes.present * integrals(self.schedule, t)[..., None, None]
        return lost

    def decaying(self, t: Array | float) -> Array:
        """The rate at which they lose it."""
        if self.schedule is None:
            return self.decay
        rate: Array = self.decay + 2 * self.modes.present * rates(self.schedule, t)[..., None, None]
        return rate

    def mean(self, exponents: Array, cap: float = _CAP) -> Array:
        """m, shape (..., d)."""
        return self.modes.shift + (self.modes.coefficient * _exp(exponents, cap)).sum(axis=-1)

    @cached_property
    def _conservation(self) -> tuple[Array, Array, Array]:
        """Start, slope in z and decay of the ln of every conserved quantity, (d, k - 1)."""
        enters = self.modes.conserved != 0
        vanishing = (enters & (self.modes.sign == 0)[:, None, :]).any(axis=-1)
        start = (self.modes.conserved * np.where(enters, self.offset[:, None, :], 0.0)).sum(axis=-1) / 2
        slopes = self.modes.conserved * self.modes.rate[:, None, :]
        slope = slopes.sum(axis=-1)
        # Zero, but for the rounding of exponents that are not small fractions.
        slope[np.abs(slope) <= ZERO * np.abs(slopes).sum(axis=-1)] = 0.0
        decay = (self.modes.conserved * self.decay[:, None, :]).sum(axis=-1) / 2
        return np.where(vanishing, -np.inf, start), slope / 2, decay

    def log_conserved(self, z: Array, t: Array) -> Array:
        """``ln |prod_k c_k^e_k|``, shape (..., d, k - 1); -inf where it is exactly zero.

        What the e_k cancel is left out, rather than summed: the exponents may be 10^6, and z drops out of the sum.
        """
        start, slope, decay = self._conservation
        log: Array = start + slope * z[..., None] - decay * np.asarray(t)[..., None, None]
        if self.schedule is not None:
            powers = (self.modes.conserved * self.modes.present[:, None, :]).sum(axis=-1)
            log = log - powers * integrals(self.schedule, t)[..., None, None]
        return log

    def log_component(self, k: int, z: Array, t: Array) -> Array:
        """``ln |c_k|`` for z (T, d) and t (T,); 0 where c_k is exactly zero, and counts for nothing."""
        exponent = self.modes.rate[:, k] * z
        exponent += self.offset[:, k]
        if self.is_damped:
            exponent -= self.decayed(t)[..., k]
        return exponent / 2


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
            return _CAP
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
        return (self.map.modes.coefficient * self.map.modes.rate * _exp_slope(exponents, self.cap)).sum(axis=-1)

    def _jacobian(self, t: float, y: Array) -> Array:
        exponents = self._exponents(t, y)
        return self.reduced.jacobian(self.map.mean(exponents, self.cap), self._slope(exponents))

    def _by_time(self, t: float | Array, exponents: Array) -> Array:
        """``dm/dt`` at fixed z."""
        return -(self.map.modes.coefficient * self.map.decaying(t) * _exp_slope(exponents, self.cap)).sum(axis=-1)

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


def _of_formula(
    formula: Formula, weights: tuple[str, ...], stds: tuple[float, ...], direction: Array | Start, d: int
) -> Modes:
    values, vectors = diagonalise(formula, weights)
    square = (vectors**2).sum(axis=0)
    if isinstance(direction, Start):
        start, log = (each.T for each in direction.components(vectors))
        log_start = 2 * np.where(start == 0, 0.0, log)
    else:
        start = components(vectors, direction).T
        log_start = 2 * np.log(np.where(start == 0, 1.0, np.abs(start)))
    eta = max(stds[weights.index(name)] for name in formula.weights)
    exponents = conserved_exponents(values)

    def each(row: Array) -> Array:
        return np.broadcast_to(row, (len(start), *row.shape))

    return Modes(
        d=d,
        invariants=invariant_names(formula, weights, vectors, exponents),
        coefficient=np.where(start == 0, 0.0, values / square),
        log_start=log_start,
        rate=each(4 * values),
        damping=each(8 * eta**2 * values**2),
        sign=np.sign(start),
        basis=each(vectors / square),
        shift=np.full(len(start), eta**2 * values.sum()),
        conserved=each(exponents),
    )


@lru_cache(maxsize=256)
def _alike(
    formula: Formula, weights: tuple[str, ...], stds: tuple[float, ...], column: tuple[float, ...], d: int
) -> Modes:
    """Of d equal columns; shared between calls, read-only."""
    modes = _of_formula(formula, weights, stds, np.array(column)[:, None], d)
    for array in modes.arrays():
        array.setflags(write=False)
    return modes


def _undamped(modes: Modes, log_alpha: float) -> GrowthMap:
    return GrowthMap(modes, 2 * log_alpha * modes.present, modes.damping)


#: The same of a single row, shared between calls.
_undamped_row = lru_cache(maxsize=256)(_undamped)


def _exp(exponents: Array, cap: float) -> Array:
    """exp, continued linearly above the cap."""
    return np.exp(np.minimum(exponents, cap)) * (1.0 + np.maximum(exponents - cap, 0.0))


def _exp_slope(exponents: Array, cap: float) -> Array:
    return np.exp(np.minimum(exponents, cap))


def _merge_names(names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """One label per pair; formulas that conserve different things share it as 'a | b'."""
    return tuple(" | ".join(dict.fromkeys(options)) for options in zip(*names, strict=True))
