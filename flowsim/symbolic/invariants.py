r"""Conserved polynomials, by linear algebra.

A coordinate moves along its own gradient, ``w' = -g grad phi(w)``, at a speed g that depends on the data.
A polynomial I is therefore conserved for all data if and only if

.. math:: \nabla I \cdot \nabla \varphi = 0,

which is linear in the coefficients of I: the polynomials of degree <= D form the null space of one matrix.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction

import sympy
from sympy.polys.domains import QQ
from sympy.polys.matrices import DomainMatrix

from flowsim.symbolic.expectation import term_bound

Symbols = Sequence[sympy.Symbol]

#: Largest number of unknown coefficients: beyond it the search stops at the degree reached.
MAX_UNKNOWNS = 160
#: A polynomial with more terms than this is sampled instead of expanded.
MAX_TERMS = 1000
_DIGITS = 60
_TOLERANCE = 1e-40


def invariant_basis(phi: sympy.Expr, x: Symbols, degree: int) -> list[sympy.Expr]:
    """A basis of all conserved polynomials in x of degree <= `degree` without constant term.

    Weights that phi does not depend on are left out: each is conserved by itself.
    """
    x = [symbol for symbol in x if symbol in phi.free_symbols]
    exponents = sorted(
        tuple(map(chosen.count, range(len(x))))
        for total in range(1, degree + 1)
        for chosen in itertools.combinations_with_replacement(range(len(x)), total)
    )
    monomials = [sympy.Mul(*(symbol**n for symbol, n in zip(x, powers, strict=True))) for powers in exponents]
    slopes = [phi.diff(symbol) for symbol in x]
    changes = [
        [n * monomial / symbol if n else sympy.S.Zero for symbol, n in zip(x, powers, strict=True)]
        for powers, monomial in zip(exponents, monomials, strict=True)
    ]
    is_small = phi.is_polynomial(*x) and term_bound(phi) <= MAX_TERMS
    if is_small and all(c.is_Rational for c in sympy.Poly(phi, *x).coeffs()):
        null = _polynomial_null_space(changes, slopes, x)
    else:
        null = _sampled_null_space(changes, slopes, x)
    return [_primitive(row, monomials) for row in null]


def generators(phi: sympy.Expr, x: Symbols, degree: int) -> list[sympy.Expr]:
    """Functionally independent conserved polynomials of the lowest degrees, at most one fewer than weights.

    Notes
    -----
    Products and powers of conserved quantities are conserved too; they are left out here, not in
    :func:`invariant_basis`. The search ends early where the number of unknowns would pass `MAX_UNKNOWNS`.
    """
    x = [symbol for symbol in x if symbol in phi.free_symbols]
    found: list[sympy.Expr] = []
    point = dict(zip(x, _points(len(x), 1)[0], strict=True))
    for d in range(1, degree + 1):
        if len(found) >= len(x) - 1 or sympy.binomial(len(x) + d, d) - 1 > MAX_UNKNOWNS:
            break
        for candidate in reversed(invariant_basis(phi, x, d)):
            jacobian = sympy.Matrix([[e.diff(symbol).subs(point) for symbol in x] for e in [*found, candidate]])
            if jacobian.rank() > len(found):
                found.append(candidate)
    return found


def _polynomial_null_space(changes: list[list[sympy.Expr]], slopes: list[sympy.Expr], x: Symbols) -> list[list]:
    columns = [
        dict(sympy.Poly(sum(a * b for a, b in zip(change, slopes, strict=True)), *x, domain=QQ).terms())
        for change in changes
    ]
    rows = sorted({powers for column in columns for powers in column})
    matrix = DomainMatrix(
        [[QQ.from_sympy(column[row]) if row in column else QQ.zero for column in columns] for row in rows],
        (len(rows), len(columns)),
        QQ,
    )
    reduced, _ = matrix.nullspace().rref()
    return [row for row in reduced.to_list() if any(row)]


def _sampled_null_space(changes: list[list[sympy.Expr]], slopes: list[sympy.Expr], x: Symbols) -> list[list]:
    """For analytic phi: the identity at more points than unknowns, to 60 digits, checked at further points."""
    import mpmath

    count = len(changes)
    with mpmath.workdps(_DIGITS):
        expression = [sum(a * b for a, b in zip(change, slopes, strict=True)) for change in changes]
        evaluate = sympy.lambdify(x, expression, "mpmath", cse=True)
        samples = []
        for point in _points(len(x), 2 * (count + 8)):
            try:
                values = [mpmath.mpf(value) for value in evaluate(*(mpmath.mpf(p.p) / p.q for p in point))]
            except (ZeroDivisionError, ValueError, TypeError):  # a pole, or outside the domain: take another point
                continue
            scale = max(map(abs, values))
            if scale:
                samples.append([value / scale for value in values])
        half = len(samples) // 2
        if half < count:
            return []
        rational = []
        for row in _null_rows([list(sample) for sample in samples[:half]], count):
            candidate = [Fraction(int(mpmath.nint(value * 2**160)), 2**160).limit_denominator(10**6) for value in row]
            exact = [mpmath.mpf(c.numerator) / c.denominator for c in candidate]
            if all(abs(mpmath.fdot(exact, sample)) < _TOLERANCE for sample in samples[half:]):
                rational.append([QQ(c.numerator, c.denominator) for c in candidate])
    if not rational:
        return []
    reduced, _ = DomainMatrix(rational, (len(rational), count), QQ).rref()
    return [row for row in reduced.to_list() if any(row)]


def _null_rows(matrix: list[list], count: int) -> list[list]:
    """Null vectors by Gauss-Jordan elimination with full row pivoting."""
    pivots: list[int] = []
    row = 0
    for column in range(count):
        best = max(range(row, len(matrix)), key=lambda r: abs(matrix[r][column]), default=None)
        if best is None or abs(matrix[best][column]) < _TOLERANCE:
            continue
        matrix[row], matrix[best] = matrix[best], matrix[row]
        head = matrix[row][column]
        matrix[row] = [value / head for value in matrix[row]]
        for other in range(len(matrix)):
            factor = matrix[other][column]
            if other != row and factor:
                matrix[other] = [a - factor * b for a, b in zip(matrix[other], matrix[row], strict=True)]
        pivots.append(column)
        row += 1
    free = [column for column in range(count) if column not in pivots]
    null = []
    for column in free:
        vector = [matrix[0][0] * 0 for _ in range(count)]
        vector[column] += 1
        for r, pivot in enumerate(pivots):
            vector[pivot] = -matrix[r][column]
        null.append(vector)
    return null


def _primitive(row: Sequence, monomials: Sequence[sympy.Expr]) -> sympy.Expr:
    """Integer coefficients without common factor, the last monomial's positive."""
    fractions = [Fraction(int(c.numerator), int(c.denominator)) for c in row]
    scale = Fraction(math.lcm(*(c.denominator for c in fractions)), math.gcd(*(c.numerator for c in fractions)))
    if next(c for c in reversed(fractions) if c) < 0:
        scale = -scale
    return sympy.Add(*(sympy.Integer(int(c * scale)) * m for c, m in zip(fractions, monomials, strict=True)))


def _points(k: int, count: int) -> list[list[sympy.Rational]]:
    """Reproducible rational points in general position, inside (0, 1) where most formulas are defined."""
    source = random.Random(20240229)
    return [[sympy.Rational(source.randrange(1000, 9000), 10007) for _ in range(k)] for _ in range(count)]
