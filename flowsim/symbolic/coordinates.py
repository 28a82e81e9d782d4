"""Generated code of one coordinate: the body of each kernel for one formula.

There are two kinds. A product of weights is a few loops over its factors, in which every term is
non-negative or a product, so that nothing cancels at any depth. Any other formula is straight-line code
derived by SymPy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flowsim.network import Formula, Noise
from flowsim.symbolic.quadrature import quadrature_lines

if TYPE_CHECKING:
    from flowsim.symbolic.expectation import Expectation, Quadrature

#: Size of the weights at which the accuracy of generated code is measured.
TINY = "1e-20"
#: Conserved polynomials are searched up to this degree by default.
INVARIANT_DEGREE = 4


class Coordinate(ABC):
    """Kernel bodies for coordinate i."""

    rows: tuple[int, ...]
    invariants: dict[str, str]  #: name -> Python expression in ``x{row}``
    parts: Sequence[Quadrature] = ()  #: what is computed by quadrature
    growth: Sequence[tuple[int, float]] = ()  #: for Laplace noise: (row, rate), ``rate * std < sqrt(2)`` must hold
    tiny_error: float = 0.0  #: of the gradient's code at weights of size `TINY`, relative; 1 if unknown

    @abstractmethod
    def body(self, kernel: str) -> list[str]:
        """The lines of a kernel."""


def coordinate(formula: Formula, weights: Sequence[str], noise: Noise | None) -> Coordinate:
    """The generator of code for a formula in a network with these weights."""
    rows = tuple(weights.index(name) for name in formula.weights)
    if formula.product_of is not None:
        return ProductCoordinate(formula.weights, rows, len(weights), noise)
    return ExpressionCoordinate(formula, rows, len(weights), noise)


def _zero_unused(rows: Sequence[int], k: int, kernel: str) -> list[str]:
    unused = [row for row in range(k) if row not in rows]
    if kernel in ("hessian", "field_jacobian"):
        return ["out[:, :, i] = 0.0"] if unused else []
    if kernel in ("gradient", "mean_gradient", "field"):
        return [f"out[{row}, i] = 0.0" for row in unused]
    return []


class ProductCoordinate(Coordinate):
    r"""``w_1 ... w_L``. With independent noise, ``m = prod w`` and, with ``b = w^2`` and e the excess by noise,

    .. math:: V = \prod (b_l + e_l) - \prod b_l, \qquad e_l = s_l^2 \;(\text{or } s_l^2 w_l^2),

    by the recurrence ``D <- D (b + e) + P e``, ``P <- P b``, whose terms are all non-negative.
    """

    def __init__(self, names: Sequence[str], rows: Sequence[int], k: int, noise: Noise | None) -> None:
        self.names, self.rows, self.k, self.noise = tuple(names), tuple(rows), k, noise
        first = rows[0]
        # Factored: w_1^2 - w_l^2 keeps its relative accuracy when the two weights are close.
        self.invariants = {
            f"{names[0]}**2 - {name}**2": f"(x{first} - x{row})*(x{first} + x{row})"
            for name, row in zip(names[1:], rows[1:], strict=True)
        }

    def body(self, kernel: str) -> list[str]:
        noisy = self.noise is not None
        text = {
            "value": _PRODUCT_VALUE,
            "mean": _PRODUCT_VALUE,
            "gradient": _PRODUCT_GRADIENT,
            "mean_gradient": _PRODUCT_GRADIENT,
            "hessian": _PRODUCT_HESSIAN,
            "variance": _PRODUCT_VARIANCE if noisy else "out[i] = 0.0\n",
            "field": _PRODUCT_FIELD if noisy else _PRODUCT_GRADIENT + _SCALE_VECTOR,
            "field_jacobian": _PRODUCT_JACOBIAN if noisy else _PRODUCT_HESSIAN + _SCALE_MATRIX,
        }[kernel]
        multiplicative = noisy and self.noise.multiplicative  # type: ignore[union-attr]
        # Conserved squares: the noise adds s^2 (additive) or s^2 w^2 (multiplicative, tau = s^2) to w^2.
        text = text.replace("EXCESS(b)", "std[ROW(b)]**2" + ("*x*x" if multiplicative else ""))
        text = text.replace("TAU(a)", "std[ROW(a)]**2" if multiplicative else "0.0")
        text = text.replace("TAU(b)", "std[ROW(b)]**2" if multiplicative else "0.0")
        text = text.replace("LAYERS", str(len(self.rows)))
        for index in "abl":
            row = index if self.rows == tuple(range(len(self.rows))) else f"({self.rows!r})[{index}]"
            text = text.replace(f"ROW({index})", row)
        return [*_zero_unused(self.rows, self.k, kernel), *text.strip("\n").splitlines()]


_PRODUCT_VALUE = """
p = 1.0
for l in range(LAYERS):
    p *= w[ROW(l), i]
out[i] = p
"""

_PRODUCT_GRADIENT = """
p = 1.0
for l in range(LAYERS):
    out[ROW(l), i] = p
    p *= w[ROW(l), i]
p = 1.0
for l in range(LAYERS - 1, -1, -1):
    out[ROW(l), i] *= p
    p *= w[ROW(l), i]
"""

_PRODUCT_HESSIAN = """
for a in range(LAYERS):
    out[ROW(a), ROW(a), i] = 0.0
    p = 1.0
    for b in range(LAYERS):
        if b != a:
            out[ROW(a), ROW(b), i] = p
            p *= w[ROW(b), i]
    p = 1.0
    for b in range(LAYERS - 1, -1, -1):
        if b != a:
            out[ROW(a), ROW(b), i] *= p
            p *= w[ROW(b), i]
for a in range(LAYERS):
    for b in range(a):
        out[ROW(a), ROW(b), i] = out[ROW(b), ROW(a), i]
"""

_SCALE_VECTOR = """
for l in range(LAYERS):
    out[ROW(l), i] *= -g[i]
"""

_SCALE_MATRIX = """
for a in range(LAYERS):
    for b in range(LAYERS):
        out[ROW(a), ROW(b), i] *= -g[i]
"""

_PRODUCT_VARIANCE = """
d = 0.0
p = 1.0
for b in range(LAYERS):
    x = w[ROW(b), i]
    e = EXCESS(b)
    d = d*(x*x + e) + p*e
    p *= x*x
out[i] = d
"""

_PRODUCT_FIELD = """
for a in range(LAYERS):
    q = 1.0
    d = 0.0
    p = 1.0
    for b in range(LAYERS):
        if b != a:
            x = w[ROW(b), i]
            e = EXCESS(b)
            q *= x
            d = d*(x*x + e) + p*e
            p *= x*x
    out[ROW(a), i] = -(g[i]*q + s2[i]*w[ROW(a), i]*(d + TAU(a)*(d + p)))
"""

_PRODUCT_JACOBIAN = """
for a in range(LAYERS):
    for c in range(a, LAYERS):
        q = 1.0
        d = 0.0
        p = 1.0
        for b in range(LAYERS):
            if b != a and b != c:
                x = w[ROW(b), i]
                e = EXCESS(b)
                q *= x
                d = d*(x*x + e) + p*e
                p *= x*x
        if a == c:
            out[ROW(a), ROW(a), i] = -s2[i]*(d + TAU(a)*(d + p))
        else:
            b = c
            t = TAU(a) + TAU(b) + TAU(a)*TAU(b)
            v = -(g[i]*q + s2[i]*2.0*w[ROW(a), i]*w[ROW(b), i]*(d + t*(d + p)))
            out[ROW(a), ROW(b), i] = v
            out[ROW(b), ROW(a), i] = v
"""


class ExpressionCoordinate(Coordinate):
    """Any formula: straight-line code derived by SymPy, with loops over nodes where expectations need quadrature."""

    def __init__(self, formula: Formula, rows: Sequence[int], k: int, noise: Noise | None) -> None:
        import sympy

        self.formula, self.rows, self.k, self.noise = formula, tuple(rows), k, noise
        self.x = [sympy.Symbol(f"x{row}", real=True) for row in rows]
        self.e = [sympy.Symbol(f"e{row}", nonnegative=True) for row in rows]
        self.own = [sympy.Symbol(name, real=True) for name in formula.weights]
        self.phi = formula.expression.xreplace(dict(zip(self.own, self.x, strict=True)))
        self.expectation = self._expectation()
        self.parts = self.expectation.quadratures
        self.growth = [(self.rows[index], rate) for index, rate in self.expectation.growth]
        self.invariants = self._invariants()
        self.tiny_error = self._tiny_error()

    def _expectation(self) -> Expectation:
        import sympy

        from flowsim.symbolic.expectation import expectation

        # Messages name the user's weights; dummies for the stds cannot clash with their names.
        stds = [sympy.Dummy(nonnegative=True) for _ in self.rows]
        found = expectation(self.formula.expression, self.own, stds, self.noise)
        rename = dict(zip([*self.own, *stds], [*self.x, *self.e], strict=True))
        return replace(
            found,
            mean=found.mean.xreplace(rename),
            variance=found.variance.xreplace(rename),
            quadratures=tuple(replace(part, phi=part.phi.xreplace(rename)) for part in found.quadratures),
        )

    def _tiny_error(self) -> float:
        """Largest relative error of the gradient's code at weights of size `TINY`, against 60 digits; 1 if unknown.

        Constants cancel symbolically, so that this is rounding unless terms of higher order cancel too, as in
        ``exp(u) - 1 - u - u**2/2``.
        """
        import sympy

        from flowsim.symbolic.printing import straight_line

        point = {x: sympy.Rational(7 - 3 * index, 10 + index) * sympy.Rational(TINY) for index, x in enumerate(self.x)}
        scope: dict[str, object] = {"math": math, **{x.name: float(value) for x, value in point.items()}}
        worst = 0.0
        slopes = [self.phi.diff(x) for x in self.x]
        lines, values = straight_line(slopes, self.x)
        try:
            exec("\n".join(lines), scope)  # generated code alone
            for slope, text in zip(slopes, values, strict=True):
                found, exact = float(eval(text, scope)), slope.evalf(60, subs=point, maxn=1000)
                if exact != 0:
                    worst = max(worst, abs(float(found / exact - 1)))
        except (ArithmeticError, ValueError, TypeError):
            return 1.0
        return worst

    def _invariants(self) -> dict[str, str]:
        import sympy

        from flowsim.symbolic.invariants import generators
        from flowsim.symbolic.printing import to_python

        back = dict(zip(self.x, self.own, strict=True))
        return {
            str(invariant.xreplace(back)): to_python(sympy.factor(invariant))
            for invariant in generators(self.phi, self.x, INVARIANT_DEGREE)
        }

    def body(self, kernel: str) -> list[str]:
        import sympy

        from flowsim.symbolic.printing import straight_line

        noisy = kernel not in ("value", "gradient", "hessian")
        m, v = (self.expectation.mean, self.expectation.variance) if noisy else (self.phi, sympy.S.Zero)
        summed = self.expectation.quadratures if noisy else ()
        x, rows = self.x, self.rows
        expressions: list[sympy.Expr] = []
        targets: list[str] = []
        if kernel in ("value", "mean", "variance"):
            expressions = [v if kernel == "variance" else m]
            targets = ["out[i] = {0}"]
        elif kernel in ("gradient", "mean_gradient", "field"):
            for symbol, row in zip(x, rows, strict=True):
                expressions += [m.diff(symbol), v.diff(symbol)]
                targets.append(f"out[{row}, i] = {_combined(kernel == 'field', expressions)}")
        else:
            for a, row in enumerate(rows):
                slopes = m.diff(x[a]), v.diff(x[a])
                for b in range(a, len(rows)):
                    expressions += [slope.diff(x[b]) for slope in slopes]
                    term = _combined(kernel == "field_jacobian", expressions)
                    targets.append(f"out[{row}, {rows[b]}, i] = {term}")
                    if a != b:
                        targets.append(f"out[{rows[b]}, {row}, i] = out[{row}, {rows[b]}, i]")
        lines, values = straight_line(expressions, x)
        used = {symbol for each in expressions for symbol in each.free_symbols}
        used = used.union(*({x[i], self.e[i]} for part in summed for i in part.indices))
        return [
            *_zero_unused(rows, self.k, kernel),
            *(f"x{row} = w[{row}, i]" for row, symbol in zip(rows, x, strict=True) if symbol in used),
            *(f"e{row} = std[{row}]" for row, symbol in zip(rows, self.e, strict=True) if symbol in used),
            *lines,
            *(target.format(*values) for target in targets),
            *(line for part in summed for line in quadrature_lines(part, kernel, x, rows, self.noise)),
        ]


def _combined(is_field: bool, expressions: Sequence) -> str:
    """Right-hand side for the last (mean, variance) pair of expressions."""
    index = len(expressions) - 2
    mean, variance = expressions[index:]
    if not is_field:
        return f"{{{index}}}"
    parts = []
    if mean != 0:
        parts.append(f"g[i]*({{{index}}})")
    if variance != 0:
        parts.append(f"0.5*s2[i]*({{{index + 1}}})")
    return f"-({' + '.join(parts)})" if parts else "0.0"
