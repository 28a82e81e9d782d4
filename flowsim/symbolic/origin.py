r"""What a formula does near the origin, where every vanishing initialisation starts.

The lowest homogeneous part ``phi_L`` of the Taylor series decides how a coordinate leaves 0: order 1 at once, order
2 exponentially, order L >= 3 by a finite-time blow-up of ``x' = grad phi_L(x)``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flowsim.network import Formula

if TYPE_CHECKING:
    import sympy

__all__ = ["LeadingPart", "leading_part", "order_at_origin", "polynomial_at"]

#: Orders beyond this are not searched for in formulas that are not polynomials.
MAX_ORDER = 12

#: exponents of the weights -> coefficient
LeadingPart = dict[tuple[int, ...], float]


def order_at_origin(formula: Formula) -> int:
    """Lowest homogeneous degree of phi at 0: 0 if ``phi(0) != 0``, 2 for ``u*v``, L for a product of L weights.

    Raises
    ------
    ValueError
        If phi has a pole or a branch cut at 0, or is flat there.
    """
    return sum(next(iter(leading_part(formula))))


@cache
def leading_part(formula: Formula) -> LeadingPart:
    """The lowest homogeneous part, as a table of its terms in the order of ``formula.weights``."""
    if formula.product_of is not None:
        return {(1,) * len(formula.weights): 1.0}
    import sympy

    symbols = [sympy.Symbol(name, real=True) for name in formula.weights]
    lowest = sympy.Poly(polynomial_at(formula), *symbols)
    return {tuple(map(int, powers)): float(sympy.N(c, 30)) for powers, c in lowest.terms()}


@cache
def polynomial_at(formula: Formula) -> sympy.Expr:
    """The lowest homogeneous part, exactly."""
    import sympy

    phi = formula.expression
    symbols = [sympy.Symbol(name, real=True) for name in formula.weights]
    if phi.is_polynomial(*symbols):
        polynomial = sympy.Poly(phi, *symbols)
        if polynomial.is_zero:
            raise ValueError(f"`formula` {formula.text!r} is zero everywhere.")
        lowest = min(map(sum, polynomial.monoms()))
        return sympy.Add(
            *(
                c * sympy.Mul(*(x**n for x, n in zip(symbols, powers, strict=True)))
                for powers, c in polynomial.terms()
                if sum(powers) == lowest
            )
        )
    ray = sympy.Symbol("flowsim_ray", real=True)
    along = phi.subs({x: ray * x for x in symbols}, simultaneous=True)
    for order in range(MAX_ORDER + 1):
        term = along.subs(ray, 0)
        if term.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I) or not term.is_polynomial(*symbols):
            problem = "a pole or a branch cut"
            raise ValueError(f"`formula` {formula.text!r} has {problem} at the origin: it has no Taylor series there.")
        term = sympy.expand(term) / sympy.factorial(order)
        if term != 0 and sympy.simplify(term) != 0:
            return term
        along = along.diff(ray)
    raise ValueError(f"`formula` {formula.text!r} is flat at the origin up to order {MAX_ORDER}.")
