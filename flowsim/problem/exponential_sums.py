r"""Slopes of losses as sums of exponentials of the prediction, whose expectation under weight noise is a product.

.. math:: \ell'(f, y) = b(y) + \mathrm{Re} \sum_q a_q(y)\, e^{s_q(y) f}.

The exponential and the Poisson loss are such sums. The logistic loss and log-cosh are Fourier integrals,

.. math:: \tanh\frac f2 = 2 \int_0^\infty \frac{\sin \omega f}{\sinh \pi\omega}\, d\omega ,

summed by the midpoint rule: with a step h the sum is the function continued antiperiodically, with period 2 pi/h and
change of sign every half period (Poisson summation), exact to rounding for |f| up to pi/h minus the tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.problem.losses import EXPONENTIAL, LOG_COSH, LOGISTIC, POISSON, Loss

#: exp(-_TAIL) is rounding.
_TAIL = 37.0


@dataclass(frozen=True, eq=False)
class ExponentialSum:
    """``b + Re sum_q a_q exp(s_q f)`` for n targets."""

    constant: Array  #: (n,)
    #: (n, q), real, or complex with an imaginary rate
    amplitude: NDArray[np.inexact]
    rate: NDArray[np.inexact]
    reach: float = math.inf  #: bound on |f| up to which the sum is exact to rounding

    @property
    def is_exact(self) -> bool:
        """Whether the sum is a closed form, not a quadrature."""
        return math.isinf(self.reach)

    def slope(self, f: Array) -> Array:
        """The sum at predictions (n,)."""
        terms = self.amplitude * np.exp(self.rate * f[:, None])
        return self.constant + terms.real.sum(axis=1)


def exponential_sum(loss: Loss, y: Array, reach: float = 25.0) -> ExponentialSum | None:
    """The sum of a loss at targets y (n,), or None if none converges fast.

    `reach` bounds the predictions for which a quadrature must be exact.
    """
    one = np.ones((len(y), 1))
    if loss is EXPONENTIAL:
        return ExponentialSum(np.zeros_like(y), -y[:, None] * one, -y[:, None] * one)
    if loss is POISSON:
        return ExponentialSum(-y, one, one)
    if loss is LOGISTIC:
        frequency, amplitude = _tanh(0.5, reach)
        return _fourier(-y / 2, 0.5 * amplitude * one, frequency * one, reach)
    if loss is LOG_COSH:
        frequency, amplitude = _tanh(1.0, reach + float(np.abs(y).max()))
        return _fourier(np.zeros_like(y), amplitude * np.exp(-1j * frequency * y[:, None]), frequency * one, reach)
    return None


def _tanh(c: float, reach: float) -> tuple[Array, Array]:
    """Frequencies and amplitudes (q,) with ``tanh(c x) = sum a sin(omega x)`` for |x| <= reach."""
    # In units of 1/(2c): tanh(c x) = 2 int sin(2 c x v) / sinh(pi v) dv, and exp(-2 c |x|) is its tail.
    step = math.pi / (2 * c * reach + _TAIL)
    nodes = np.asarray(step * (np.arange(math.ceil(_TAIL / math.pi / step)) + 0.5), dtype=float)
    amplitudes: Array = 2 * step / np.sinh(math.pi * nodes)
    frequencies: Array = 2 * c * nodes
    return frequencies, amplitudes


def _fourier(constant: Array, amplitude: NDArray[np.inexact], frequency: Array, reach: float) -> ExponentialSum:
    # The sine is the imaginary part: Re(-i a exp(i omega f)).
    return ExponentialSum(constant, -1j * amplitude, 1j * frequency, reach)
