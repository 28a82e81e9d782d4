r"""Taylor polynomial of a formula at the origin, in any linear coordinates of its weights.

.. math:: \phi(Q c) = \sum_{|e| \le M} a_e \, c^e

Truncated polynomial arithmetic on the syntax tree: no cancellation between orders, so that the part of the gradient
beyond the linear one is known to rounding where weights are tiny.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from flowsim.arrays import Array, Bools, Integers
from flowsim.network import Formula

#: Highest degree kept while pairs of monomials are at most this many, and the least degree kept.
_HIGHEST, _LEAST, _PRODUCTS = 12, 4, 20_000
#: A sum smaller than its terms by this factor is an exact zero.
ZERO = 32 * float(np.finfo(float).eps)


class SingularError(ValueError):
    """The formula has no Taylor series at the origin."""


@dataclass(frozen=True, eq=False)
class Series:
    """``sum_e coefficient_e x^e``.

    `exponents` (E, k) by ascending degree, `coefficient` (E,).
    """

    exponents: Integers
    coefficient: Array

    @property
    def degree(self) -> Integers:
        """Degree of each monomial, (E,)."""
        return self.exponents.sum(axis=1)

    def part(self, keep: Bools) -> Series:
        """Some of the monomials."""
        return Series(self.exponents[keep], self.coefficient[keep])

    def derivative(self, a: int) -> Series:
        """By the a-th variable."""
        used = (self.exponents[:, a] > 0) & (self.coefficient != 0)
        exponents = self.exponents[used].copy()
        coefficient = self.coefficient[used] * exponents[:, a]
        exponents[:, a] -= 1
        return Series(exponents, coefficient)

    @cached_property
    def _slopes(self) -> tuple[Array, Array]:
        """Exponents (k, E, k) and coefficients (k, E) of all derivatives."""
        lowered = self.exponents - np.eye(self.exponents.shape[1], dtype=np.int64)[:, None]
        return np.maximum(lowered, 0).astype(float), self.coefficient * self.exponents.T

    def gradient(self, x: Array) -> Array:
        """The gradient at one x (k,)."""
        exponents, coefficient = self._slopes
        return np.asarray((coefficient * np.prod(x**exponents, axis=2)).sum(axis=1))

    def __call__(self, x: Array) -> Array:
        """Values at x (k, P), shape (P,)."""
        return np.asarray(self.coefficient @ self.terms(x))

    def terms(self, x: Array) -> Array:
        """The monomials at x (k, P), shape (E, P)."""
        powers = np.ones((int(self.exponents.max(initial=0)) + 1, *x.shape))
        for n in range(1, len(powers)):
            powers[n] = powers[n - 1] * x
        out: Array = powers[self.exponents[:, 0], 0]
        for a in range(1, len(x)):
            out *= powers[self.exponents[:, a], a]
        return out


def taylor_series(formula: Formula, basis: Array) -> Series:
    """The series in c where the weights, in the formula's order, are ``basis @ c``.

    Raises SingularError at a pole, a branch cut or a root at the origin.
    """
    k = basis.shape[1]
    # Pairs of monomials in k variables are monomials in 2 k.
    fits = (m for m in range(_HIGHEST, _LEAST, -1) if math.comb(m + 2 * k, m) <= _PRODUCTS)
    ring = _ring(k, next(fits, _LEAST))
    leaves = {}
    for name, row in zip(formula.weights, basis, strict=True):
        leaf = np.zeros(len(ring.exponents))
        leaf[ring.linear] = row
        leaves[name] = leaf
    with np.errstate(all="ignore"):
        value = ring.evaluate(formula.tree, leaves)
    if not np.isfinite(value).all():
        raise SingularError(f"{formula.text!r} has no Taylor series at the origin")
    return Series(ring.exponents, value)


@dataclass(frozen=True, eq=False)
class _Ring:
    """Polynomials of bounded degree; an element is its coefficients (E,)."""

    exponents: Integers
    linear: Integers
    left: Integers
    right: Integers
    product: Integers
    degree: int

    def times(self, a: Array, b: Array) -> Array:
        terms = a[self.left] * b[self.right]
        size = len(a)
        out = np.asarray(np.bincount(self.product, terms, size), dtype=np.float64)
        return _exact(out, np.asarray(np.bincount(self.product, np.abs(terms), size), dtype=np.float64))

    def constant(self, value: float) -> Array:
        out = np.zeros(len(self.exponents))
        out[0] = value
        return out

    def compose(self, outer: list[float], inner: Array) -> Array:
        """``sum_j outer_j (inner - inner(0))^j``."""
        rest = inner.copy()
        rest[0] = 0.0
        out = self.constant(outer[-1])
        for coefficient in reversed(outer[:-1]):
            out = self.times(out, rest)
            out[0] += coefficient
        return out

    def power(self, a: Array, exponent: Any) -> Array:
        if exponent.denominator == 1 and exponent >= 0:
            return functools.reduce(self.times, [a] * int(exponent), self.constant(1.0))
        if a[0] == 0 or (a[0] < 0 and exponent.denominator > 1):
            raise SingularError(f"power {exponent} of an expression that is not positive at the origin")
        p = float(exponent)
        outer, factor = [], 1.0
        for j in range(self.degree + 1):
            outer.append(factor * a[0] ** (p - j) if exponent.denominator > 1 else factor * a[0] ** int(p - j))
            factor *= (p - j) / (j + 1)
        return self.compose(outer, a)

    def call(self, name: str, a: Array) -> Array:
        import mpmath

        function = getattr(mpmath, name)
        try:
            with mpmath.workdps(50):
                found = mpmath.taylor(function, mpmath.mpf(float(a[0])), self.degree)
            outer = [float(value) for value in found]
        except (ValueError, ZeroDivisionError, TypeError, mpmath.libmp.ComplexResult):
            raise SingularError(f"{name} at {a[0]:g}") from None
        largest = max(map(abs, outer))
        return self.compose([0.0 if abs(value) <= 1e-15 * largest else value for value in outer], a)

    def evaluate(self, node: Any, leaves: dict[str, Array]) -> Array:
        kind = node[0]
        if kind == "num":
            return self.constant(float(node[1]))
        if kind == "pi":
            return self.constant(np.pi)
        if kind == "var":
            return leaves[node[1]]
        if kind == "neg":
            return -self.evaluate(node[1], leaves)
        if kind == "**":
            return self.power(self.evaluate(node[1], leaves), node[2])
        if kind == "call":
            return self.call(node[1], self.evaluate(node[2], leaves))
        a, b = self.evaluate(node[1], leaves), self.evaluate(node[2], leaves)
        if kind == "*":
            return self.times(a, b)
        if kind == "/":
            if b[0] == 0:
                raise SingularError("division by an expression that is 0 at the origin")
            return self.times(a, self.compose([(-1.0) ** j / b[0] ** (j + 1) for j in range(self.degree + 1)], b))
        return _exact(a + b if kind == "+" else a - b, np.abs(a) + np.abs(b))


def _exact(total: Array, size: Array) -> Array:
    total[np.abs(total) <= ZERO * size] = 0.0
    return total


@cache
def _ring(k: int, degree: int) -> _Ring:
    exponents = [e for e in itertools.product(range(degree + 1), repeat=k) if sum(e) <= degree]
    exponents.sort(key=lambda e: (sum(e), [-n for n in e]))
    place = {e: number for number, e in enumerate(exponents)}
    table = np.array(exponents, dtype=np.int64)
    totals = table.sum(axis=1)
    left: list[int] = []
    right: list[int] = []
    product: list[int] = []
    for i, e in enumerate(exponents):
        fits = int(np.searchsorted(totals, degree - totals[i], side="right"))
        left += [i] * fits
        right += range(fits)
        product += [place[tuple(map(int, row))] for row in (table[:fits] + e)]
    linear = np.array([place[tuple(int(a == b) for b in range(k))] for a in range(k)])
    return _Ring(table, linear, np.array(left), np.array(right), np.array(product), degree)
