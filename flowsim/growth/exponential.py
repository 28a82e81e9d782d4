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

from flowsim.arrays import Array, signed_exp
from flowsim.growth.modes import Modes
from flowsim.network import Decay, DiagonalNetwork, InitialScale, Start, quadratic_form
from flowsim.network.decay import integrals, rates
from flowsim.network.quadratic import ZERO
from flowsim.problem import Problem

#: exp is continued linearly above this exponent, so that a predictor that overshoots stays finite and convex.
CAP = 80.0
#: Up to so many coordinates terms are stored for each, as the loops are compiled for; beyond, equal ones are shared.
_WRITTEN_OUT = 640


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
        stds = net.stds[net.rows(formula)]
        if np.ptp(stds) > 0:
            return "the weights of a coordinate carry different noise"
        if stds[0] > 0 and np.diag(form).any() and net.noise.unit_moment(3) != 0:
            return "skewed noise drives the weights directly"
    return None


@dataclass(frozen=True, eq=False)
class ExponentialMap:
    r"""``m_i(z, t) = shift_i + sum_k coefficient_ik exp(offset_ik + rate_ik z_i - decay_ik t)``.

    A :class:`flowsim.growth.protocol.GrowthMap`; its states are z.
    """

    modes: Modes
    #: (d, k), ``ln alpha^2``, 0 where c_k is exactly zero: such a component is carried by its coefficient alone
    log_scale: Array
    decay: Array  #: (d, k), ``8 mu_k^2 kappa_i``, plus twice a constant weight decay
    schedule: Decay | None = None  #: weight decay that changes in time: every exponent loses ``2 K(t)``
    cap: float = CAP  #: exponents above it are continued linearly
    origin: Array | None = None  #: (d,), beta(0), where beta is a small difference of large terms: then summed apart

    name = "growth"
    log_unit = 0.0

    @classmethod
    def of(
        cls, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array | Start
    ) -> ExponentialMap:
        """At the start ``alpha * direction``."""
        modes = Modes.of(net, direction)
        if modes.is_damped or net.weight_decay:
            decay = modes.damping * problem.feature_variances[:, None] if modes.is_damped else modes.damping
            log_scale = 2 * scale.log * modes.present
            if not isinstance(net.weight_decay, float):
                return cls(modes, log_scale, decay, net.weight_decay)
            return cls(modes, log_scale, decay + 2 * net.weight_decay * modes.present)
        return _undamped_row(modes, scale.log) if len(modes.sign) == 1 else _undamped(modes, scale.log)

    @property
    def invariants(self) -> tuple[str, ...]:
        return self.modes.invariants

    @property
    def shift(self) -> Array:
        return self.modes.shift

    base = shift

    @cached_property
    def is_damped(self) -> bool:
        return self.schedule is not None or bool(self.decay.any())

    @cached_property
    def rate(self) -> float:
        return float(np.abs(self.modes.rate).max()) / 2 or 1.0

    @cached_property
    def offset(self) -> Array:
        return self.modes.log_start + self.log_scale

    @cached_property
    def log_coefficient(self) -> Array:
        """``offset + ln |coefficient|``."""
        return self.modes.log_coefficient + self.log_scale

    def exponents(self, z: Array, t: Array | float) -> Array:
        """``ln c_k^2`` for z (..., d) and t broadcast against its leading axes, shape (..., d, k).

        In memory the few k come before the many d, over which loops are fast.
        """
        exponents: Array = (self.offset.T + self.modes.rate.T * z[..., None, :]).swapaxes(-1, -2)
        return exponents - self.decayed(t) if self.is_damped else exponents

    def decayed(self, t: Array | float) -> Array:
        """Decay of the exponents up to time t (...), shape (..., d, k)."""
        lost: Array = self.decay * np.asarray(t)[..., None, None]
        if self.schedule is not None:
            lost = lost + 2 * self.modes.present * integrals(self.schedule, t)[..., None, None]
        return lost

    def decaying(self, t: Array | float) -> Array:
        """The time derivative of :meth:`decayed`."""
        if self.schedule is None:
            return self.decay
        return self.decay + 2 * self.modes.present * rates(self.schedule, t)[..., None, None]

    def mean(self, exponents: Array) -> Array:
        """m at given exponents, shape (..., d)."""
        return self.modes.shift + self._sum(exponents)

    def _sum(self, exponents: Array) -> Array:
        return (self.modes.coefficient * _continued(exponents, self.cap)).sum(axis=-1)

    def derivative(self, exponents: Array, by: Array) -> Array:
        """``sum_k coefficient_k by_k exp``: how m changes as exponents do at rates `by` (..., d, k)."""
        return (self.modes.coefficient * by * np.exp(np.minimum(exponents, self.cap))).sum(axis=-1)

    def state(self, z: Array) -> Array:
        return z

    def value(self, y: Array, t: Array | float) -> Array:
        if self.origin is None:
            return self._sum(self.exponents(y, t))
        # The decay that modes have in common scales their differences.
        lost = self.decayed(t)
        common = lost.min(axis=-1)
        change = (self.modes.rate.T * y[..., None, :]).swapaxes(-1, -2) - (lost - common[..., None])
        kept = np.exp(self.offset - common[..., None])
        # A change of an e-fold cancels no digits, and may exceed the range of floats where its exponent does not.
        large = _continued(self.offset + change - common[..., None], self.cap) - kept
        changed = np.where(change > 1.0, large, kept * np.expm1(np.minimum(change, 1.0)))
        summed: Array = np.exp(-common) * self.origin + (self.modes.coefficient * changed).sum(axis=-1)
        return summed

    def slope(self, y: Array, t: Array | float) -> Array:
        return self.derivative(self.exponents(y, t), self.modes.rate)

    def drift(self, y: Array, t: Array | float) -> Array:
        return -self.derivative(self.exponents(y, t), self.decaying(t))

    def weights(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        return self.modes.weights((self.exponents(y, t) / 2).swapaxes(-1, -2))

    def conserved(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        """Values and logarithms; -inf where a quantity is exactly zero.

        Terms that the e_k cancel are omitted, not summed: the exponents may be 10^6, and z drops out of the sum.
        """
        start, slope, decay = self._conservation
        log: Array = start + slope * y[..., None] - decay * np.asarray(t)[..., None, None]
        if self.schedule is not None:
            powers = (self.modes.conserved * self.modes.present[:, None, :]).sum(axis=-1)
            log = log - powers * integrals(self.schedule, t)[..., None, None]
        signs = np.where(self.modes.conserved % 2 == 0, 1.0, self.modes.sign[:, None, :]).prod(axis=-1)
        return signed_exp(signs, log).swapaxes(-1, -2), log.swapaxes(-1, -2)

    @property
    def is_constant(self) -> bool:
        return self.schedule is None and not any(change.any() for change in self._conservation[1:])

    def law(self, t: Array) -> Array:
        return self.conserved(np.zeros((len(t), 1)), t)[1]

    @cached_property
    def _conservation(self) -> tuple[Array, Array, Array]:
        """Start, slope in z and decay of the ln of every conserved quantity, (d, k - 1)."""
        enters = self.modes.conserved != 0
        vanishing = (enters & (self.modes.sign == 0)[:, None, :]).any(axis=-1)
        start = (self.modes.conserved * np.where(enters, self.offset[:, None, :], 0.0)).sum(axis=-1) / 2
        slopes = self.modes.conserved * self.modes.rate[:, None, :]
        slope = slopes.sum(axis=-1)
        # Zero up to the rounding of exponents that are not small fractions.
        slope[np.abs(slope) <= ZERO * np.abs(slopes).sum(axis=-1)] = 0.0
        decay = (self.modes.conserved * self.decay[:, None, :]).sum(axis=-1) / 2
        return np.where(vanishing, -np.inf, start), slope / 2, decay

    def separable(self) -> dict[str, Array]:
        return self._rows

    @cached_property
    def _rows(self) -> dict[str, Array]:
        """Logarithms and signs of the coefficients, rates and decays, (k, d)."""
        modes = self.modes
        rows = (self.log_coefficient, np.sign(modes.coefficient), modes.rate, self.decay)
        names = ("log_coefficient", "sign", "slope", "decay")
        if modes.d <= _WRITTEN_OUT:
            written = np.empty((len(rows), rows[0].shape[1], modes.d))
            for to, each in zip(written, rows, strict=True):
                to[...] = each.T
            return dict(zip(names, written, strict=True))
        return {name: np.broadcast_to(each.T, (each.shape[1], modes.d)) for name, each in zip(names, rows, strict=True)}

    def until_visible(self, z: Array, t: float, speed: Array, level: float, past: float) -> float:
        exponents, visible = self.exponents(z, t), float(np.log(level))
        growth = self.modes.rate * speed[:, None] - self.decaying(t)
        hidden = (growth > 0) & (exponents < visible) & (self.modes.coefficient != 0)
        return float(((visible + past - exponents[hidden]) / growth[hidden]).min()) if hidden.any() else np.inf

    def range_error(self, z: Array, t: float) -> str | None:
        if ((self.exponents(z, t) > self.cap) & (self.modes.coefficient != 0)).any():
            return (
                f"a weight grew beyond exp({self.cap / 2:g}); the step that led there cannot be trusted: tighten "
                "`rtol`, or leave `method` to 'auto'"
            )
        return None


def _continued(exponents: Array, cap: float) -> Array:
    """exp, linear above `cap`."""
    grown: Array = np.exp(np.minimum(exponents, cap)) * (1.0 + np.maximum(exponents - cap, 0.0))
    return grown


def _undamped(modes: Modes, log_alpha: float) -> ExponentialMap:
    return ExponentialMap(modes, 2 * log_alpha * modes.present, modes.damping)


#: The same for a single row, shared between calls.
_undamped_row = lru_cache(maxsize=256)(_undamped)
