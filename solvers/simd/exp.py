"""The exponential of a vector of eight floats."""

from __future__ import annotations

import math

from flowsim.solvers.compilation import bare
from flowsim.solvers.simd.vector import constant, greater, times_power

#: Arguments are clipped to this magnitude.
WITHIN = 700.0
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
    k = shifted - constant(_ROUND)
    r = x - _LN2_HIGH * k - _LN2_LOW * k
    tail = constant(_C12) + _C13 * r
    tail = constant(_C11) + tail * r
    tail = constant(_C10) + tail * r
    tail = constant(_C9) + tail * r
    tail = constant(_C8) + tail * r
    tail = constant(_C7) + tail * r
    tail = constant(_C6) + tail * r
    tail = constant(_C5) + tail * r
    tail = constant(_C4) + tail * r
    tail = constant(_C3) + tail * r
    tail = constant(_C2) + tail * r
    return times_power(constant(1.0) + r * (constant(1.0) + r * tail), shifted)
