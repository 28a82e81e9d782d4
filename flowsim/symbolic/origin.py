r"""The lowest homogeneous part of a formula at the origin, where every vanishing initialisation starts.

The lowest homogeneous part ``phi_L`` of the Taylor series determines how a coordinate leaves 0: order 1 at once, order
2 exponentially, order L >= 3 by a finite-time blow-up of ``x' = grad phi_L(x)``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from flowsim.network import Formula
from flowsim.symbolic.series import Series

if TYPE_CHECKING:
    import sympy

#: Orders beyond this are not searched for in formulas that are not polynomials.
MAX_ORDER = 12

#: A lowest part with more terms than this is not expanded.
MAX_TERMS = 5000


def order_at_origin(formula: Formula) -> int:
    """Lowest homogeneous degree of phi at 0: 0 if ``phi(0) != 0``, 2 for ``u*v``, L for a product of L weights.

    Raises ValueError if phi has a pole or a branch cut at 0, or is flat there.
    """
    return len(formula.weights) if formula.product_of is not None else _lowest(formula)[0]


@cache
def leading_part(formula: Formula) -> Series:
    """The lowest homogeneous part in the order of ``formula.weights``, whatever its degree; correct to rounding."""
    if formula.product_of is not None:
        return Series(np.ones((1, len(formula.weights)), np.int64), np.ones(1))
    import sympy

    symbols = [sympy.Symbol(name, real=True) for name in formula.weights]
    powers, coefficients = zip(*sympy.Poly(polynomial_at(formula), *symbols).terms(), strict=True)
    return Series(np.array(powers, dtype=np.int64), np.array([float(sympy.N(c, 30)) for c in coefficients]))


def polynomial_at(formula: Formula) -> sympy.Expr:
    """The lowest homogeneous part, exactly and expanded."""
    import sympy

    from flowsim.symbolic.expectation import term_bound

    lowest = _lowest(formula)[1]
    if term_bound(lowest) > MAX_TERMS:
        raise ValueError(f"`formula` {formula.text!r} has too many terms of lowest degree at the origin to expand.")
    return sympy.expand(lowest)


@cache
def _lowest(formula: Formula) -> tuple[int, sympy.Expr]:
    import sympy

    try:
        return _part(formula.expression, frozenset(sympy.Symbol(name, real=True) for name in formula.weights))
    except _SingularError:
        raise ValueError(
            f"`formula` {formula.text!r} has a pole or a branch cut at the origin: it has no Taylor series there."
        ) from None
    except _FlatError:
        raise ValueError(f"`formula` {formula.text!r} is flat at the origin up to order {MAX_ORDER}.") from None


class _SingularError(Exception):
    pass


class _FlatError(Exception):
    pass


def _part(e: sympy.Expr, x: frozenset[sympy.Symbol]) -> tuple[int, sympy.Expr]:
    """Degree and expression of the lowest homogeneous part, from those of the subexpressions."""
    import sympy

    from flowsim.symbolic.stable import vanishes

    if not e.free_symbols & x:
        if e == 0:
            raise _FlatError
        return 0, e
    if e in x:
        return 1, e
    if e.is_Mul:
        # Polynomials form an integral domain: a product of lowest parts is not zero.
        parts = [_part(factor, x) for factor in e.args]
        return sum(degree for degree, _ in parts), sympy.Mul(*(part for _, part in parts))
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        degree, part = _part(e.base, x)
        return degree * int(e.exp), part**e.exp
    if e.is_Add:
        parts = [_part(term, x) for term in e.args]
        lowest = min(degree for degree, _ in parts)
        total = sympy.Add(*(part for degree, part in parts if degree == lowest))
        return (lowest, total) if not vanishes(total) else _along_ray(e, x)
    base, exponent = (e.base, e.exp) if e.is_Pow else (e.args[0], None)
    at_zero = base.subs(dict.fromkeys(x, 0))
    if _is_singular(at_zero):
        raise _SingularError
    outer = (lambda value: value**exponent) if e.is_Pow else e.func
    constant = outer(at_zero)
    if _is_singular(constant):
        raise _SingularError
    if not vanishes(constant):
        return 0, constant
    free = sympy.Dummy(real=True)
    slope = outer(free).diff(free).subs(free, at_zero)
    if _is_singular(slope):
        raise _SingularError
    if vanishes(slope):
        return _along_ray(e, x)
    degree, part = _part(base - at_zero, x)
    return degree, slope * part


def _along_ray(e: sympy.Expr, x: frozenset[sympy.Symbol]) -> tuple[int, sympy.Expr]:
    """The lowest part by derivatives of ``e(t w)`` in t, for sums whose lowest parts cancel."""
    import sympy

    from flowsim.symbolic.stable import vanishes

    ray = sympy.Dummy(real=True)
    along = e.subs({symbol: ray * symbol for symbol in x}, simultaneous=True)
    for order in range(MAX_ORDER + 1):
        term = along.subs(ray, 0)
        if _is_singular(term):
            raise _SingularError
        if not vanishes(term):
            return order, sympy.expand(term) / sympy.factorial(order)
        along = along.diff(ray)
    raise _FlatError


def _is_singular(e: sympy.Expr) -> bool:
    import sympy

    return bool(e.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I))
