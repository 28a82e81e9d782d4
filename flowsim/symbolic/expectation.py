r"""Mean and variance of a coordinate under weight noise.

.. math:: m(w) = \mathrm{E}\,\varphi(w + \xi), \qquad V(w) = \mathrm{Var}\,\varphi(w + \xi)

(``w (1 + xi)`` for multiplicative noise). For a polynomial, expectation is a differential operator,

.. math:: \mathrm{E}\,\varphi(w + \xi) = \prod_a \Big[ \sum_j \frac{s_a^j \mu_j}{j!} \partial_a^j \Big] \varphi,

s_a the std and mu_j the moments of the noise scaled to unit std: exact, for any distribution with those moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy
from sympy.polys.rings import ring

from flowsim.network import Noise

__all__ = ["polynomial_moments"]

Symbols = Sequence[sympy.Symbol]


def polynomial_moments(phi: sympy.Expr, x: Symbols, s: Symbols, noise: Noise) -> tuple[sympy.Expr, sympy.Expr]:
    """m and V of a polynomial phi in the weights x, the stds s kept as symbols."""
    domain = sympy.Poly(phi, *x, field=True).get_domain()
    polynomials, *generators = ring([*x, *s], domain)
    own = polynomials.from_expr(sympy.expand(phi))
    pairs = list(zip(generators[: len(x)], generators[len(x) :], strict=True))
    mean = _expect(own, pairs, noise)
    # Exact arithmetic: what cancels between the two terms cancels here, not in floats.
    variance = _expect(own**2, pairs, noise) - mean**2
    return mean.as_expr(), variance.as_expr()


def _expect(polynomial: Any, pairs: Sequence[tuple[Any, Any]], noise: Noise) -> Any:
    domain = polynomial.ring.domain
    for weight, std in pairs:
        total, derivative, j = polynomial, polynomial, 0
        while derivative := derivative.diff(weight):
            j += 1
            moment = noise.moment(j) / math.factorial(j)
            if moment:
                scale = (std * weight) ** j if noise.multiplicative else std**j
                coefficient = domain.convert(sympy.QQ(moment.numerator, moment.denominator), sympy.QQ)
                total = total + derivative * scale * coefficient
        polynomial = total
    return polynomial
