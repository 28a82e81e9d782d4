r"""Pieces of solutions as Chebyshev polynomials: Picard iteration on the nodes of one interval.

.. math:: y(x_j) = y(-1) + \frac h2 \int_{-1}^{x_j} f(y(\xi))\, d\xi

by spectral integration, which keeps relative accuracy near rounding where Runge-Kutta sums lose digits.

References
----------
Clenshaw & Norton, The Computer Journal 6 (1963) 88.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowsim.arrays import Array

DEGREE = 24
#: Extrema of the Chebyshev polynomial, ascending, (N + 1,).
NODES: Array = -np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)
_VALUES = np.polynomial.chebyshev.chebvander(NODES, DEGREE)
#: From values at the nodes to coefficients, (N + 1, N + 1).
COEFFICIENTS: Array = np.asarray(np.linalg.inv(_VALUES), dtype=np.float64)
_PRIMITIVES = np.polynomial.chebyshev.chebint(np.eye(DEGREE + 1), lbnd=-1, axis=0)
#: From values at the nodes to the integral from -1 to each node.
INTEGRAL: Array = np.polynomial.chebyshev.chebvander(NODES, DEGREE + 1) @ _PRIMITIVES @ COEFFICIENTS
INTEGRAL[0] = 0.0

_EPS = float(np.finfo(float).eps)
_ITERATIONS = 40
#: A piece is resolved when its last coefficients are below this share of its size.
_TAIL, _LAST = 2e-15, 2


def picard(f: Callable[[Array], Array], first: Array, half: float, rounding: float = 0.0) -> Array | None:
    """Values (k, N + 1) of ``y' = f(y)`` from y(-1) = first over an interval of half-length `half` (either sign).

    None where the iteration does not converge or is not finite. `rounding` is that of the integral of f,
    relative to y, where it is known to be more than that of y.
    """
    y = np.repeat(first[:, None], DEGREE + 1, axis=1)
    change = np.inf
    for _ in range(_ITERATIONS):
        new = first[:, None] + half * (f(y) @ INTEGRAL.T)
        if not np.isfinite(new).all():
            return None
        size = np.abs(new).max(axis=1, keepdims=True)
        last, change = change, float((np.abs(new - y) / np.where(size > 0, size, 1.0)).max())
        y = new
        if change <= max(4 * _EPS, rounding) or (change <= 64 * _EPS and change >= 0.5 * last):
            return y
    return None


def is_resolved(values: Array, rounding: float = 0.0) -> bool:
    """Whether values (k, N + 1) at the nodes are polynomials to rounding, relative or as given."""
    coefficients = np.abs(values @ COEFFICIENTS.T)
    return bool((coefficients[:, -_LAST:].max(axis=1) <= _TAIL * coefficients.max(axis=1) + rounding).all())
