r"""Exponential polynomials: sums of ``c x^n exp(lambda . x)`` with exact, possibly complex, lambda.

They include polynomials, exp, sin, cos, sinh, cosh of linear arguments and all products of these, and are closed under
expectation: with ``M(lambda) = E exp(lambda xi)``,

.. math:: \mathrm{E}\,(x + \xi)^n e^{\lambda (x + \xi)}
          = \sum_j \binom nj x^{n-j} e^{\lambda x} \, \partial_\lambda^j M(\lambda).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy

Symbols = Sequence[sympy.Symbol]
#: (powers, lambdas) -> coefficient
Table = dict[tuple[tuple[int, ...], tuple[sympy.Expr, ...]], sympy.Expr]
#: j, lambda, std -> d^j M / d lambda^j
Transform = Callable[[int, sympy.Expr, sympy.Symbol], sympy.Expr]

#: Largest number of terms of a table.
TERMS = 150


class NotExponentialError(Exception):
    """The expression is not an exponential polynomial, or has too many terms."""


def table(e: sympy.Expr, x: Symbols) -> Table:
    """The table of an expression; raises NotExponentialError where it has none."""
    zero = (0,) * len(x), (sympy.S.Zero,) * len(x)
    if not e.free_symbols & set(x):
        return {zero: e} if e != 0 else {}
    if e in x:
        powers = tuple(int(symbol == e) for symbol in x)
        return {(powers, zero[1]): sympy.S.One}
    if e.is_Add:
        return _collect(item for term in e.args for item in table(term, x).items())
    if e.is_Mul:
        product: Table = {zero: sympy.S.One}
        for factor in e.args:
            product = multiply(product, table(factor, x))
        return product
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        base = table(e.base, x)
        product = base
        for _ in range(int(e.exp) - 1):
            product = multiply(product, base)
        return product
    if e.func is sympy.exp:
        return _exponential(e.args[0], x, sympy.S.One, sympy.S.One)
    half, i = sympy.Rational(1, 2), sympy.I
    # f(a) = sum of c exp(k a)
    sums = {
        sympy.sinh: [(half, 1), (-half, -1)],
        sympy.cosh: [(half, 1), (half, -1)],
        sympy.sin: [(-i * half, i), (i * half, -i)],
        sympy.cos: [(half, i), (half, -i)],
    }
    if e.func in sums:
        return _collect(item for c, k in sums[e.func] for item in _exponential(e.args[0], x, c, k).items())
    raise NotExponentialError(e)


def _exponential(argument: sympy.Expr, x: Symbols, coefficient: sympy.Expr, factor: sympy.Expr) -> Table:
    """``coefficient * exp(factor * argument)`` for a linear argument."""
    argument = sympy.expand(argument)
    slopes = [argument.coeff(symbol, 1) for symbol in x]
    constant = sympy.expand(argument - sum(slope * symbol for slope, symbol in zip(slopes, x, strict=True)))
    if constant.free_symbols & set(x) or any(slope.free_symbols for slope in slopes):
        raise NotExponentialError(argument)
    lambdas = tuple(sympy.expand(factor * slope) for slope in slopes)
    return {((0,) * len(x), lambdas): sympy.expand(coefficient * sympy.exp(factor * constant), complex=True)}


def multiply(a: Table, b: Table) -> Table:
    if len(a) * len(b) > TERMS**2:
        raise NotExponentialError("too many terms")
    return _collect(
        (
            (
                tuple(map(int.__add__, powers, other_powers)),
                tuple(sympy.expand(p + q) for p, q in zip(lambdas, other_lambdas, strict=True)),
            ),
            c * other,
        )
        for (powers, lambdas), c in a.items()
        for (other_powers, other_lambdas), other in b.items()
    )


def subtract(a: Table, b: Table) -> Table:
    return _collect([*a.items(), *((key, -c) for key, c in b.items())])


def expect(terms: Table, s: Symbols, transform: Transform) -> Table:
    """The expectation under independent additive noise with stds s."""
    for index, std in enumerate(s):
        terms = _collect(
            (
                ((*powers[:index], powers[index] - j, *powers[index + 1 :]), lambdas),
                c * sympy.binomial(powers[index], j) * transform(j, lambdas[index], std),
            )
            for (powers, lambdas), c in terms.items()
            for j in range(powers[index] + 1)
        )
    return terms


def as_expression(terms: Table, x: Symbols, tidy: Callable[[sympy.Expr], sympy.Expr]) -> sympy.Expr:
    """The real expression; `tidy` rewrites each coefficient."""
    total = []
    for (powers, lambdas), c in terms.items():
        real, imaginary = sympy.expand_complex(c).as_real_imag()
        if real.has(sympy.I) or imaginary.has(sympy.I):
            raise NotExponentialError("a coefficient whose real part SymPy does not find")
        split = [value.as_real_imag() for value in lambdas]
        growth = sum(a * symbol for (a, _), symbol in zip(split, x, strict=True))
        angle = sum(b * symbol for (_, b), symbol in zip(split, x, strict=True))
        monomial = sympy.Mul(*(symbol**n for symbol, n in zip(x, powers, strict=True))) * sympy.exp(growth)
        total += [tidy(real) * monomial * sympy.cos(angle), -tidy(imaginary) * monomial * sympy.sin(angle)]
    return sympy.Add(*total)


def _collect(items) -> Table:
    out: Table = {}
    for key, c in items:
        out[key] = out.get(key, sympy.S.Zero) + c
    if len(out) > TERMS:
        raise NotExponentialError("too many terms")
    return {key: c for key, c in ((key, sympy.expand(c)) for key, c in out.items()) if c != 0}
