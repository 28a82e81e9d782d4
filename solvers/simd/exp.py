"""The exponential of a vector of eight floats."""

from __future__ import annotations

import math

from flowsim.solvers.compilation import bare
from flowsim.solvers.simd.vector import below, constant, greater, times_power

#: Arguments are clipped to this magnitude.
WITHIN = 700.0
#: Exponentials of more than this are infinite, of less than minus this zero.
_BEYOND = 800.0
_LOG2_E = 1.4426950408889634
#: Adding this constant rounds to an integer, which is then in the low bits of the sum.
_ROUND = 6755399441055744.0
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1.0 / math.factorial(k) for k in range(2, 14))


@bare(forceinline=True)
def exponential(x):
    """``exp(x)`` to 1 unit in the last place, x clipped to magnitude 700."""
    return exponential_within(constant(0.0) - greater(constant(0.0) - greater(x, constant(-WITHIN)), constant(-WITHIN)))


@bare(forceinline=True)
def exponential_within(x):
    """``exp(x) = 2^k exp(r)`` for ``|x| <= 700``, with ``|r| <= ln(2)/2`` and exp(r) by its Taylor polynomial."""
    shifted = _LOG2_E * x + constant(_ROUND)
    return times_power(_remainder(x, shifted), shifted)


@bare(forceinline=True)
def exponential_beyond(x):
    """``exp(x)`` of any x: zero, subnormal or infinite where that is so, NaN of NaN."""
    x = below(x, constant(-_BEYOND), constant(-_BEYOND), x)
    x = below(constant(_BEYOND), x, constant(_BEYOND), x)
    shifted = _LOG2_E * x + constant(_ROUND)
    # Two powers of two, of which neither leaves the range of floats.
    half = 0.5 * (shifted - constant(_ROUND)) + constant(_ROUND)
    rest = (shifted - constant(_ROUND)) - (half - constant(_ROUND))
    return times_power(_remainder(x, shifted), half) * times_power(constant(1.0), rest + constant(_ROUND))


@bare(forceinline=True)
def _remainder(x, shifted):
    k = shifted - constant(_ROUND)
    r = x - _LN2_HIGH * k - _LN2_LOW * k
    s = r * r
    # In pairs (Estrin's scheme): a chain of 13 products takes longer than 16 that overlap.
    low = (constant(_C2) + _C3 * r) + (constant(_C4) + _C5 * r) * s
    middle = (constant(_C6) + _C7 * r) + (constant(_C8) + _C9 * r) * s
    high = (constant(_C10) + _C11 * r) + (constant(_C12) + _C13 * r) * s
    q = s * s
    tail = low + (middle + high * q) * q
    return constant(1.0) + (r + s * tail)
