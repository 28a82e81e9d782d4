r"""Quadratic networks under a step of descent, which multiplies each component c_a of a coordinate.

.. math:: c_a \leftarrow (1 - h \lambda_a g - h \kappa_a)\, c_a, \qquad
          \lambda_a = 2 \mu_a, \quad \kappa_a = \eta^2 \sigma_i^2 \lambda_a^2 + \text{weight decay},

for the modes of :mod:`flowsim.growth.modes`; the noise term belongs to the expected gradient under weight noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, Integers, log_abs
from flowsim.growth.exponential import admits_growth
from flowsim.growth.modes import Modes
from flowsim.network import DiagonalNetwork, InitialScale, Start, decay_of


def why_not_growth(net: DiagonalNetwork, *, expected: bool) -> str | None:
    """None if a step multiplies the components of the network, else the reason why it does not."""
    reason = admits_growth(net)
    if reason is None and not expected and net.is_noisy:
        return "weight noise is added to the weights"
    return reason


@dataclass(frozen=True, eq=False)
class Multipliers:
    r"""Rates and starts of the components of every coordinate; arrays (k, d) unless stated otherwise."""

    modes: Modes  #: modes of the network at alpha = 1
    #: lambda and kappa
    rate: Array
    kappa: Array
    per_variance: Array  #: the contribution of noise to kappa, over sigma_i^2
    coefficient: Array  #: ``phi = sum_a coefficient_a c_a^2``
    shift: Array  #: (d,), ``E phi(w + xi) - phi(w)``
    powers: Array  #: (k - 1, k, d), the flow conserves ``prod_a c_a^powers_a``
    #: the start, ``c = mantissa * 2**exponent``
    mantissa: Array
    exponent: Integers
    weight_decay: float = 0.0  #: the contribution of weight decay to kappa; for a schedule, at its beginning

    @classmethod
    def of(cls, net: DiagonalNetwork, variances: Array, scale: InitialScale, direction: Array | Start) -> Multipliers:
        """At the start ``alpha * direction`` (k, d), for features of the given variances (d,)."""
        modes, d = Modes.of(net, direction), direction.shape[1]

        def columns(rows: Array) -> Array:
            return np.broadcast_to(np.moveaxis(rows, 0, -1), (*rows.shape[1:], d)).copy()

        per_variance, decay = columns(modes.damping / 2), decay_of(net.weight_decay).rate(0.0)
        return cls(
            modes,
            columns(modes.rate / 2),
            per_variance * variances + decay,
            per_variance,
            columns(modes.coefficient),
            columns(modes.shift),
            columns(modes.conserved),
            *_scaled(columns(modes.start), columns(modes.log_start), isinstance(direction, Start), scale),
            decay,
        )

    @property
    def is_paired(self) -> bool:
        """Whether every coordinate has two components with opposite rates, as in ``u*v``."""
        return len(self.rate) == 2 and bool(np.all(self.rate[0] == -self.rate[1]) and np.all(self.powers == 1.0))

    def start(self) -> tuple[Array, Array]:
        """Signs and logarithms (k, d) of the components at the start."""
        return np.sign(self.mantissa), log_abs(self.mantissa) + self.exponent * math.log(2.0)

    def beta(self, sign: Array, logs: Array) -> Array:
        """phi (T, d) from components (T, k, d)."""
        return (self.coefficient * np.where(sign != 0, np.exp(2 * logs), 0.0)).sum(axis=1)


def _scaled(start: Array, log_squares: Array, in_logs: bool, scale: InitialScale) -> tuple[Array, Integers]:
    """``alpha * start`` as mantissas and powers of two; `in_logs` where `start` holds signs alone."""
    if in_logs:
        logs = (log_squares / 2 + scale.log) / math.log(2.0)
        power = np.floor(logs)
        return start * np.exp2(logs - power) / 2, np.where(start == 0, 0, power.astype(np.int64) + 1)
    whole = math.floor(scale.log / math.log(2.0))
    mantissa, exponent = np.frexp(start * math.exp(scale.log - whole * math.log(2.0)))
    return mantissa, np.where(mantissa == 0.0, 0, exponent.astype(np.int64) + whole)
