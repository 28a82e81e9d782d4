"""Formulas of two weights from any scale of initialisation: one angle per coordinate.

Each formula here conserves some ``F(v) - G(u)``, F and G half a square to leading order at 0. In ``s = +-sqrt(2 F(v))``
and ``r = +-sqrt(2 G(u))``, signs of v and u, the weights move on the hyperbola ``s + r = P e^q, s - r = Q e^-q``, and

    q' = -g H / (s r),    H = F'(v) dphi/dv = G'(u) dphi/du,

whose right-hand side is of the size of g however small the start is: alpha is in P and Q alone.
"""

from __future__ import annotations

from collections.abc import Callable

import gmpy2
from gmpy2 import mpfr

from tests.fuzz.oracles import Number

#: Below it a function is its first term, to the digits that a flow is compared in; and Newton's last correction.
_TINY, _CONVERGED = mpfr("1e-16"), mpfr("1e-24")


def _signed_root(square: Number, like: Number) -> Number:
    return gmpy2.copy_sign(gmpy2.sqrt(square), like)


def _over(f: Number, x: Number) -> Number:
    """f / x, where f is x to leading order."""
    return f / x if abs(x) > _TINY else mpfr(1)


def _itself(w: Number) -> Number:
    return w


def _root_of(half: Callable[[Number], Number]) -> Callable[[Number], Number]:
    return lambda w: _signed_root(2 * half(w), w)


def _inverse(G: Callable[[Number], Number], slope: Callable[[Number], Number], r: Number, pole: float) -> Number:
    """u with ``+-sqrt(2 G(u)) = r``, ``slope = G'``, by Newton's method in u > pole; NaN where there is none."""
    u = max(r, mpfr(pole) * 6 / 10)
    if abs(r) < _TINY:
        return r
    for _ in range(60):
        here = _signed_root(2 * G(u), u)
        new = u - (here - r) * here / slope(u)
        new = new if new > pole else (u + pole) / 2
        if abs(new - u) <= _CONVERGED * abs(new):
            return new
        u = new
    return mpfr("nan")


def _cubic(u: Number) -> Number:
    return u * u / 6 + gmpy2.log1p(3 * u * u) / 9


def _logarithmic(u: Number) -> Number:
    return (1 + u) ** 2 / 2 * gmpy2.log1p(u) - ((1 + u) ** 2 - 1) / 4


def _exponential(u: Number) -> Number:
    return u - gmpy2.log1p(u)


def _u_of_cubic(r: Number) -> Number:
    return _inverse(_cubic, lambda u: (u + u**3) / (1 + 3 * u * u), r, -1e30)


def _u_of_logarithmic(r: Number) -> Number:
    return _inverse(_logarithmic, lambda u: (1 + u) * gmpy2.log1p(u), r, -1.0)


def _u_of_exponential(r: Number) -> Number:
    return _inverse(_exponential, lambda u: u / (1 + u), r, -1.0)


def _times_v(f: Callable[[Number], Number]) -> Callable[[Number, Number], tuple[Number, Number]]:
    """phi = f(r) v with s = v: ``H = v f``."""

    def pair(r: Number, s: Number) -> tuple[Number, Number]:
        value = f(r)
        return value * s, _over(value, r)

    return pair


def _of_the_product(
    f: Callable[[Number], Number], slope: Callable[[Number], Number]
) -> Callable[[Number, Number], tuple[Number, Number]]:
    """phi = f(u v): ``H = u v f'(u v)``."""
    return lambda r, s: (f(r * s), slope(r * s))


def _two_sinh(r: Number, s: Number) -> tuple[Number, Number]:
    a, b = (_signed_root(gmpy2.expm1(x * x), x) for x in (r, s))
    return a * b, _over(a, r) * _over(b, s)


def _log_cosh(w: Number) -> Number:
    return gmpy2.log(gmpy2.cosh(w))


def _sine(r: Number) -> Number:
    return _signed_root(-gmpy2.expm1(-r * r), r)


#: formula -> r of u, s of v, and (phi, H / (s r)) of r and s.
FORMULAS = {
    "u*v": (_itself, _itself, _times_v(_itself)),
    "tanh(u)*v": (gmpy2.sinh, _itself, _times_v(lambda r: r / gmpy2.sqrt(1 + r * r))),
    "sin(u)*v": (_root_of(lambda u: -gmpy2.log(gmpy2.cos(u))), _itself, _times_v(_sine)),
    "u*v+u**3*v": (_root_of(_cubic), _itself, _times_v(lambda r: (u := _u_of_cubic(r)) + u**3)),
    "log(1+u)*v": (_root_of(_logarithmic), _itself, _times_v(lambda r: gmpy2.log1p(_u_of_logarithmic(r)))),
    "u*v*exp(u)": (_root_of(_exponential), _itself, _times_v(lambda r: (u := _u_of_exponential(r)) * gmpy2.exp(u))),
    "sinh(u)*sinh(v)": (_root_of(_log_cosh), _root_of(_log_cosh), _two_sinh),
    "sin(u*v)": (_itself, _itself, _of_the_product(gmpy2.sin, gmpy2.cos)),
    "u*v+u**2*v**2": (_itself, _itself, _of_the_product(lambda x: x + x * x, lambda x: 1 + 2 * x)),
    "exp(u*v)-1": (_itself, _itself, _of_the_product(gmpy2.expm1, gmpy2.exp)),
}


class Angles:
    """Coordinates of weights ``start`` (2, d): one angle q each; ``beta_i = phi``, ``q_i' = -g_i H / (s r)``.

    P and Q need four times the digits of the smallest weight: what only higher orders tell from 0 is seen.
    """

    def __init__(self, formula: str, start: list[list]) -> None:
        r_of, s_of, self.pair = FORMULAS[formula]
        r, s = [r_of(u) for u in start[0]], [s_of(v) for v in start[1]]
        self.P, self.Q = [b + a for a, b in zip(r, s, strict=True)], [b - a for a, b in zip(r, s, strict=True)]
        self.start = [mpfr(0)] * len(r)

    def _pairs(self, q: list) -> list[tuple[Number, Number]]:
        sums = [(+p * e, +m / e) for p, m, e in zip(self.P, self.Q, map(gmpy2.exp, q), strict=True)]
        return [self.pair((p - m) / 2, (p + m) / 2) for p, m in sums]

    def beta(self, q: list) -> list:
        return [phi for phi, _ in self._pairs(q)]

    def speed(self, q: list) -> list:
        return [slope for _, slope in self._pairs(q)]
