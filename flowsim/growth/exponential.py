r"""Growth of quadratic formulas: exponentials of z and t, exact at any scale.

For ``phi(w) = w^T M w`` with eigenvectors q_k, eigenvalues mu_k and ``c_k = q_k^T w`` the flow is

.. math::
    \ln|c_k(t)| = \ln|c_k(0)| + 2 \mu_k z - 4 \mu_k^2 \kappa t, \qquad
    \beta = \sum_k \frac{\mu_k}{|q_k|^2} c_k^2, \qquad z_i(t) = -\int_0^t g_i\, ds,

with ``kappa_i = eta^2 sigma_i^2``. The scale alpha enters through ln|c_k(0)| alone, so nothing underflows, and what the
flow conserves holds by construction. For ``u*v`` the c_k are p = u + v and q = u - v.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from flowsim.network import Decay, DiagonalNetwork, Formula, InitialScale, Start, quadratic_form
from flowsim.network.decay import integrals, rates
from flowsim.network.modes import ZERO, components, conserved_exponents, diagonalise, invariant_names
from flowsim.problem import Problem

__all__ = ["CAP", "GrowthMap", "Modes", "admits_growth", "capped_exp", "capped_slope"]

Array = NDArray[np.float64]

#: exp is continued linearly above this exponent, so that a predictor that overshoots stays finite and convex.
CAP = 80.0


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

    def mean(self, exponents: Array, cap: float = CAP) -> Array:
        """m, shape (..., d)."""
        return self.modes.shift + (self.modes.coefficient * capped_exp(exponents, cap)).sum(axis=-1)

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


def capped_exp(exponents: Array, cap: float) -> Array:
    """exp, continued linearly above the cap."""
    return np.exp(np.minimum(exponents, cap)) * (1.0 + np.maximum(exponents - cap, 0.0))


def capped_slope(exponents: Array, cap: float) -> Array:
    return np.exp(np.minimum(exponents, cap))


def _merge_names(names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """One label per pair; formulas that conserve different things share it as 'a | b'."""
    return tuple(" | ".join(dict.fromkeys(options)) for options in zip(*names, strict=True))
