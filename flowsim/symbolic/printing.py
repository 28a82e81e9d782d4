"""SymPy expressions as lines of scalar Python for Numba."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import sympy
from sympy.codegen.cfunctions import expm1, log1p

from flowsim.network import FUNCTIONS
from flowsim.symbolic.stable import stable

_FUNCTIONS = {getattr(sympy, name): f"math.{name}" for name in (*FUNCTIONS, "atan2") if name != "sqrt"}
_FUNCTIONS |= {expm1: "math.expm1", log1p: "math.log1p"}


def straight_line(expressions: Sequence[sympy.Expr], variables: Sequence[sympy.Symbol]) -> tuple[list[str], list[str]]:
    """Assignments of shared subexpressions, and one Python expression for each of the given ones.

    `variables`: those that may be tiny (see :mod:`flowsim.symbolic.stable`).
    """
    shared, reduced = sympy.cse(
        stable(expressions, variables), symbols=sympy.numbered_symbols("t", real=True), order="canonical"
    )
    return [f"{name} = {to_python(value)}" for name, value in shared], [to_python(value) for value in reduced]


def to_python(e: sympy.Expr) -> str:
    """One expression in floats; integer powers stay integer, so that Numba multiplies instead of calling pow.

    Raises ValueError if a constant is not a real number within the range of floats, or a function has no counterpart.
    """
    if e.is_Symbol:
        return str(e.name)
    if e.is_number:
        return _number(e)
    if e.is_Add:
        terms = [to_python(term) for term in e.as_ordered_terms()]
        return "(" + terms[0] + "".join(_signed(term) for term in terms[1:]) + ")"
    if e.is_Mul:
        return _product(e.as_ordered_factors())
    if e.is_Pow:
        return _power(e.base, e.exp)
    if e.func in _FUNCTIONS:
        return f"{_FUNCTIONS[e.func]}({', '.join(to_python(argument) for argument in e.args)})"
    raise ValueError(f"`formula` leads to {e.func.__name__}, which has no real analytic counterpart.")


def _product(factors: Iterable[sympy.Expr]) -> str:
    above, below, sign = [], [], ""
    for factor in factors:
        if factor.is_Pow and factor.exp.is_Rational and factor.exp < 0:
            below.append(_power(factor.base, -factor.exp))
        elif factor == -1:
            sign = "-"
        else:
            above.append(to_python(factor))
    top = "*".join(above) or "1.0"
    if not below:
        return sign + top
    return f"{sign}{top}/{below[0]}" if len(below) == 1 else f"{sign}{top}/({'*'.join(below)})"


def _power(base: sympy.Expr, exponent: sympy.Expr) -> str:
    text = to_python(base)
    if not (base.is_Symbol or base.is_Add or base.is_Function):
        text = f"({text})"
    if exponent == 1:
        return text
    if exponent == sympy.Rational(1, 2):
        return f"math.sqrt({text})"
    if exponent.is_Rational and exponent < 0:
        return f"1.0/{_power(base, -exponent)}" if exponent == -1 else f"(1.0/{_power(base, -exponent)})"
    if exponent.is_Integer:
        return f"{text}**{int(exponent)}"
    return f"math.pow({text}, {_number(exponent)})"


def _signed(term: str) -> str:
    return f" - {term[1:]}" if term.startswith("-") else f" + {term}"


def _number(e: sympy.Expr) -> str:
    if e.is_Rational:
        try:
            value = float(Fraction(int(e.p), int(e.q)))
        except OverflowError:
            value = math.inf
    else:
        exact = sympy.N(e, 30)
        if not exact.is_real:
            raise ValueError(f"`formula` contains the constant {e}, which is not a real number.")
        value = float(exact)
    if not math.isfinite(value):
        raise ValueError("`formula` contains a constant outside the range of floats.")
    return repr(value)
