"""Exact growth thresholds, and statements of what they imply."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from flowsim.network import Formula
from flowsim.symbolic.origin import leading_part, order_at_origin, polynomial_at
from flowsim.symbolic.thresholds import blow_up_time


@dataclass(frozen=True)
class ExactThresholds:
    r"""Growth thresholds of one formula."""

    order: int | None  #: lowest homogeneous degree at the origin; None if phi has no Taylor series there
    #: ``t^+``, ``t^-``: exact where closed forms exist, else a Float; None where there are none
    plus: sympy.Expr | None = None
    minus: sympy.Expr | None = None
    start: str = ""  #: the start directions for which they hold
    formula: str = ""  #: LaTeX for other starts, or empty
    statement: str = ""  #: a sentence; the reason if there are no thresholds

    @property
    def norm(self) -> tuple[list[tuple[sympy.Expr, str]], list[str]]:
        """The norm that a vanishing start minimises among all interpolators, and the signs that it allows.

        The terms are pairs of a factor and a part of the coefficient; there are none if the norm is not known.
        """
        if self.plus is None or self.minus is None:
            return [], []
        if self.plus == self.minus != sympy.oo:
            return [(self.plus, "|beta_i|")], []
        sides = ((self.plus, "beta_i^+", "beta_i <= 0"), (self.minus, "beta_i^-", "beta_i >= 0"))
        terms = [(value, part) for value, part, _ in sides if value != sympy.oo]
        return terms, [sign for value, _, sign in sides if value == sympy.oo]

    @property
    def bias(self) -> str:
        """The same as LaTeX; empty if not known."""
        terms, signs = self.norm
        if not terms:
            return ""
        inside = " + ".join(("" if value == 1 else rf"{sympy.latex(value)}\,") + part for value, part in terms)
        inside = rf"\big({inside}\big)" if len(terms) > 1 else inside
        text = rf"\min_beta \sum_i {inside} \quad\text{{subject to}}\quad {', '.join(['Xbeta = y', *signs])}"
        return text.replace("beta", r"\beta").replace("<=", r"\le").replace(">=", r"\ge")


def exact_thresholds(formula: Formula) -> ExactThresholds:
    """The thresholds, or the reason why there are none."""
    try:
        order = order_at_origin(formula)
    except ValueError as error:
        return ExactThresholds(None, statement=str(error))
    if order == 0:
        return ExactThresholds(0, statement="phi(0) != 0: a vanishing start is not beta = 0; no thresholds.")
    if order == 1:
        statement = "grad phi(0) != 0: the origin is no saddle; a coordinate moves at once; no thresholds."
        return ExactThresholds(1, statement=statement)
    if order == 2:
        return _second_order(formula)
    if formula.product_of is not None:
        return ExactThresholds(
            order,
            sympy.Rational(1, order - 2),
            sympy.oo,
            start="balanced and equal to 1 (the default start)",
            formula=(
                r"t^+ = \int_c^\infty \prod_{j \ne l} \frac{1}{\sqrt{x^2 + a_j^2 - a_l^2}}\, dx,\quad "
                r"t^- = \int_{-\infty}^c (\text{same}),\quad "
                r"l = \arg\min_j |a_j|,\quad c = a_l \prod_{j \ne l} \operatorname{sign}(a_j)"
            ),
            statement="balanced weights lock the sign: the side across 0 needs a weight of strictly smallest modulus.",
        )
    try:
        plus, minus, exact = _higher_order(formula)
    except ValueError as error:
        return ExactThresholds(order, statement=str(error))
    return ExactThresholds(
        order,
        plus,
        minus,
        start="all weights equal to 1 (the default start)",
        formula=rf"t^\pm = \text{{blow-up time of }} \dot x = \pm\nabla\varphi_{{{order}}}(x),\; x(0) = a",
        statement="" if exact else "no closed form is known: blow-up times are integrated on the sphere.",
    )


def _second_order(formula: Formula) -> ExactThresholds:
    symbols = [sympy.Symbol(name, real=True) for name in formula.weights]
    hessian = sympy.hessian(polynomial_at(formula), symbols)
    eigenvalues = _eigenvalues(hessian)
    plus, minus = sympy.oo, sympy.oo
    top, bottom = max(eigenvalues, key=sympy.N), min(eigenvalues, key=sympy.N)
    if sympy.N(top) > 0:
        plus = sympy.radsimp(1 / top)
    if sympy.N(bottom) < 0:
        minus = sympy.radsimp(-1 / bottom)
    statement = ""
    if plus == sympy.oo or minus == sympy.oo:
        side = "positive" if plus == sympy.oo else "negative"
        statement = f"no direction of growth on the {side} side: beta_i keeps its sign."
        if plus == minus:
            statement = "no direction of growth at all."
    return ExactThresholds(
        2,
        plus,
        minus,
        start="any start with a part along the leading eigenvectors",
        formula=r"t^+ = 1/\lambda_{\max}(\nabla^2\varphi(0)),\quad t^- = -1/\lambda_{\min}(\nabla^2\varphi(0))",
        statement=statement,
    )


def _eigenvalues(matrix: sympy.Matrix) -> list[sympy.Expr]:
    """Exact eigenvalues where the characteristic polynomial has factors of degree at most 2; else floats."""
    characteristic = matrix.charpoly()
    factors = sympy.factor_list(characteristic.as_expr(), *characteristic.gens)[1]
    variable = matrix.charpoly().gen
    if all(sympy.degree(factor, variable) <= 2 for factor, _ in factors):
        return [root for factor, _ in factors for root in sympy.roots(factor, variable)]
    import numpy as np

    return [sympy.Float(value) for value in np.linalg.eigvalsh(np.array(matrix, dtype=float))]


def _higher_order(formula: Formula) -> tuple[sympy.Expr, sympy.Expr, bool]:
    """Thresholds for a start of ones: closed form for sums of powers of single weights, else numerical."""
    import numpy as np

    symbols = [sympy.Symbol(name, real=True) for name in formula.weights]
    terms = sympy.Poly(polynomial_at(formula), *symbols).terms()
    order = sum(terms[0][0])
    if all(max(powers) == order for powers, _ in terms):
        sides = {1: sympy.oo, -1: sympy.oo}
        for _, c in terms:
            # x' = L c x^(L-1) from 1 blows up at 1/(L (L-2) c).
            side = 1 if c > 0 else -1
            sides[side] = sympy.Min(sides[side], 1 / (order * (order - 2) * abs(c)))
        return sides[1], sides[-1], True
    part = leading_part(formula)
    start = np.ones(len(symbols))
    values = [blow_up_time(part, start, sign) for sign in (1.0, -1.0)]
    plus, minus = (sympy.oo if value == np.inf else sympy.Float(value) for value in values)
    return plus, minus, False
