r"""Rewriting that keeps relative accuracy at tiny weights.

A formula is evaluated at weights of size 1e-100, where ``exp(b) - 1`` is 0 in floats. Every subexpression e is
therefore split into its value at the base point and a remainder that is computed without subtracting,

.. math:: e(x) = c + r(x), \qquad c = e(0), \; r(0) = 0,

``exp -> (1, expm1(x))``, ``cos -> (1, -2 sin(x/2)**2)`` and so on; constants then cancel symbolically,
and sums add remainders only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sympy
from sympy.codegen.cfunctions import expm1, log1p

#: An expression below this at 60 digits is zero, even if simplification does not show it.
_ZERO = sympy.Float("1e-45", 60)


class _Split(NamedTuple):
    """``value = constant + rest``; constant None where the base point is singular."""

    value: sympy.Expr
    constant: sympy.Expr | None
    rest: sympy.Expr | None


def stable(expressions: Iterable[sympy.Expr], variables: Sequence[sympy.Symbol]) -> list[sympy.Expr]:
    """The same functions, in a form in which no terms of order 0 in the variables cancel numerically.

    `variables`: the symbols that may be tiny; all others are parameters of ordinary size.
    """
    splitter = _Splitter(frozenset(variables))
    return [splitter.split(expression).value for expression in expressions]


def expanded_near(
    expressions: Iterable[sympy.Expr], variables: Sequence[sympy.Symbol]
) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """``(e(0), e(x) - e(0))`` for each expression, the difference without cancellation.

    Where the base point is singular the pair is ``(0, e)``.
    """
    splitter = _Splitter(frozenset(variables))
    pairs = []
    for expression in expressions:
        value, constant, rest = splitter.split(expression)
        pairs.append((sympy.S.Zero, value) if constant is None or rest is None else (constant, rest))
    return pairs


class _Splitter:
    def __init__(self, variables: frozenset[sympy.Symbol]) -> None:
        self.variables = variables
        self.known: dict[sympy.Expr, _Split] = {}

    def split(self, e: sympy.Expr) -> _Split:
        if e not in self.known:
            self.known[e] = self._split(e)
        return self.known[e]

    def _split(self, e: sympy.Expr) -> _Split:
        if not e.free_symbols & self.variables:
            return _Split(e, e, sympy.S.Zero)
        if e in self.variables:
            return _Split(e, sympy.S.Zero, e)
        if e.is_Add:
            return self._add([self.split(term) for term in e.args])
        if e.is_Mul:
            return self._mul([self.split(factor) for factor in e.args])
        if e.is_Pow:
            return self._pow(self.split(e.base), e.exp)
        return self._call(e, [self.split(argument) for argument in e.args])

    @staticmethod
    def _add(terms: list[_Split]) -> _Split:
        plain = sympy.Add(*(term.value for term in terms))
        if any(term.constant is None for term in terms):
            return _Split(plain, None, None)
        constant = sympy.Add(*(term.constant for term in terms))
        constant = sympy.S.Zero if vanishes(constant) else constant
        rest = sympy.Add(*(term.rest for term in terms))
        if constant == 0:
            return _Split(rest, constant, rest)
        if sum(term.constant != 0 for term in terms) > 1:
            return _Split(constant + rest, constant, rest)
        return _Split(plain, constant, rest)

    @staticmethod
    def _mul(factors: list[_Split]) -> _Split:
        value = sympy.Mul(*(factor.value for factor in factors))
        if any(factor.constant is None for factor in factors):
            return _Split(value, None, None)
        if any(factor.constant == 0 for factor in factors):
            return _Split(value, sympy.S.Zero, value)
        constant: Any = factors[0].constant
        rest: Any = factors[0].rest
        for factor in factors[1:]:
            rest = constant * factor.rest + rest * factor.value
            constant = constant * factor.constant
        return _Split(value, constant, rest)

    @staticmethod
    def _pow(base: _Split, n: sympy.Expr) -> _Split:
        v, c, r = base
        value = v**n
        if c is None or not n.is_Rational or (c == 0 and n < 0):
            return _Split(value, None, None)
        if c == 0:
            return _Split(value, sympy.S.Zero, value)
        if c.is_negative and not n.is_Integer:
            return _Split(value, None, None)
        constant = c**n
        if n == sympy.Rational(1, 2):
            return _Split(value, constant, r / (value + constant))
        if not n.is_Integer:
            return _Split(value, constant, constant * expm1(n * log1p(r / c)))
        m = abs(int(n))
        rest = _power_difference(v, c, r, m)
        return _Split(value, constant, rest if n > 0 else -rest / (v**m * c**m))

    @staticmethod
    def _call(e: sympy.Expr, arguments: list[_Split]) -> _Split:
        value = e.func(*(argument.value for argument in arguments))
        if len(arguments) != 1 or arguments[0].constant is None:
            return _Split(value, None, None)
        v, c, r = arguments[0]
        constant = e.func(c)
        if constant.is_finite is False or constant.has(sympy.I, sympy.zoo, sympy.nan):
            return _Split(value, None, None)
        rest = _difference(e.func, v, c, r)
        if rest is None:
            # No closed form of f(c + r) - f(c): for odd functions at 0 the value itself is the remainder.
            rest = value if constant == 0 else value - constant
        return _Split(rest if constant == 0 and rest is not None and c != 0 else value, constant, rest)


def _difference(f: type[sympy.Expr], v: sympy.Expr, c: sympy.Expr, r: sympy.Expr) -> sympy.Expr | None:
    """``f(c + r) - f(c)`` without cancellation, v = c + r."""
    sin, cos, sinh, cosh, tanh = sympy.sin, sympy.cos, sympy.sinh, sympy.cosh, sympy.tanh
    if f is sympy.exp:
        return sympy.exp(c) * expm1(r)
    if f is sympy.log:
        return log1p(r / c)
    if f is sin:
        return cos(c) * sin(r) - 2 * sin(c) * sin(r / 2) ** 2
    if f is cos:
        return -sin(c) * sin(r) - 2 * cos(c) * sin(r / 2) ** 2
    if f is sinh:
        return cosh(c) * sinh(r) + 2 * sinh(c) * sinh(r / 2) ** 2
    if f is cosh:
        return sinh(c) * sinh(r) + 2 * cosh(c) * sinh(r / 2) ** 2
    if f is sympy.tan:
        return sin(r) / (cos(c) * cos(v))
    if f is tanh:
        return tanh(r) / cosh(c) ** 2 / (1 + tanh(c) * tanh(r))
    if f is sympy.atan:
        return sympy.atan(r) if c == 0 else sympy.atan2(r, 1 + c * v)
    return None


def _power_difference(v: sympy.Expr, c: sympy.Expr, r: sympy.Expr, m: int) -> sympy.Expr:
    """``v^m - c^m`` with r = v - c, by doubling: ``(v^h - c^h)(v^h + c^h)``."""
    if m == 1:
        return r
    if m % 2:
        return _power_difference(v, c, r, m - 1) * v + c ** (m - 1) * r
    half = m // 2
    return _power_difference(v, c, r, half) * (v**half + c**half)


def vanishes(e: sympy.Expr) -> bool:
    """Whether an expression is zero to 60 digits, at two values of its symbols."""
    if e.is_Rational:
        return bool(e == 0)
    plain = e.replace(expm1, lambda a: sympy.exp(a) - 1).replace(log1p, lambda a: sympy.log(1 + a))
    symbols = sorted(plain.free_symbols, key=str)
    points = ({s: sympy.Rational(shift + 10 * k, 97) for k, s in enumerate(symbols)} for shift in (3, 17))
    return all(bool(abs(sympy.N(plain.subs(point), 60)) < _ZERO) for point in points)
