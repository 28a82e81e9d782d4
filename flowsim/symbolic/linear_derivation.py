"""Derivation of two-layer linear networks ``beta = U V^T``, as SymPy matrix expressions and step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import sympy
from sympy import Identity, MatrixExpr, MatrixSymbol, Trace, ZeroMatrix

from flowsim.network import LinearNetwork
from flowsim.symbolic.render import Line, Rendered, Step, say

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False, repr=False)
class LinearDerivation(Rendered):
    """The result of :func:`derive` for a two-layer linear network."""

    net: LinearNetwork

    n, D, m, h = sympy.symbols("n D m h", integer=True, positive=True)
    U, V = MatrixSymbol("U", D, h), MatrixSymbol("V", m, h)
    X, Y = MatrixSymbol("X", n, D), MatrixSymbol("Y", n, m)

    @cached_property
    def std(self) -> tuple[sympy.Expr, sympy.Expr]:
        """Std of the noise on U and on V: one symbol if they are equal, 0 without noise."""
        if self.net.noise is None:
            return sympy.S.Zero, sympy.S.Zero
        values = self.net.stds
        if values[0] == values[1]:
            return (sympy.Symbol("eta", positive=True),) * 2
        names = [sympy.Symbol(f"eta_{name}", positive=True) for name in self.net.weights]
        return tuple(s if value > 0 else sympy.S.Zero for s, value in zip(names, values, strict=True))

    @cached_property
    def decay(self) -> sympy.Expr:
        """The weight decay, a symbol or 0."""
        return sympy.Symbol("lambda", positive=True) if self.net.weight_decay else sympy.S.Zero

    @property
    def covariance(self) -> MatrixExpr:
        """``Sigma = X^T X / n``."""
        return self.X.T * self.X / self.n

    @property
    def force(self) -> MatrixExpr:
        """``G = X^T (Y - X U V^T) / n``, the negative gradient of the loss in beta."""
        return self.X.T * (self.Y - self.X * self.U * self.V.T) / self.n

    @cached_property
    def damping(self) -> tuple[MatrixExpr, sympy.Expr]:
        """a (D, D) and b: noise and decay add ``tr U^T a U / 2 + b |V|^2 / 2`` to the loss."""
        a: MatrixExpr = ZeroMatrix(self.D, self.D)
        b = sympy.S.Zero
        if self.std[1] != 0:
            a = a + self.std[1] ** 2 * self.m * self.covariance
        if self.std[0] != 0:
            b = b + self.std[0] ** 2 * Trace(self.covariance)
        if self.decay != 0:
            a, b = a + self.decay * Identity(self.D), b + self.decay
        return a, b

    @cached_property
    def field(self) -> dict[str, MatrixExpr]:
        """``U' = G V - a U`` and ``V' = G^T U - b V``, by name of weight."""
        a, b = self.damping
        fields = {"U": self.force * self.V, "V": self.force.T * self.U}
        if a != ZeroMatrix(self.D, self.D):
            fields["U"] -= a * self.U
        if b != 0:
            fields["V"] -= b * self.V
        return fields

    @cached_property
    def generator(self) -> sympy.BlockMatrix:
        """S with ``Z' = S Z``, ``Z = (U; V)``."""
        a, b = self.damping
        return sympy.BlockMatrix([[-a, self.force], [self.force.T, -b * Identity(self.m)]])

    @property
    def imbalance(self) -> MatrixExpr:
        """``U^T U - V^T V``, conserved without noise and decay."""
        return self.U.T * self.U - self.V.T * self.V

    @cached_property
    def imbalance_rate(self) -> MatrixExpr:
        """``d/dt (U^T U - V^T V)``."""
        a, b = self.damping
        if self.net.noise is None:
            return -2 * self.decay * self.imbalance if self.decay != 0 else ZeroMatrix(self.h, self.h)
        return -2 * self.U.T * a * self.U + 2 * b * self.V.T * self.V

    @cached_property
    def threshold(self) -> sympy.Expr:
        """The soft threshold of noise on the singular values of ``Sigma^(-1/2) X^T Y / n``."""
        return self.std[0] * self.std[1] * sympy.sqrt(self.m * Trace(self.covariance))

    def chapters(self) -> Sequence[tuple[str, list[Step]]]:
        steps: list[Step] = [
            ("Model", self._model()),
            ("Gradient flow", self._flow()),
            ("Conserved quantities", self._conserved()),
            ("Growth at vanishing initialisation", self._growth()),
            ("Saddles and end of the limit", self._saddles()),
        ]
        return [("U V^T", steps)]

    def _model(self) -> list[Line]:
        lines = [
            Line((r"\beta", "beta"), (r"U V^\top", "U V^T")),
            say(f"$U$ is $(D, h)$, $V$ is $(m, h)$, $h = {self.net.width}$; loss $L = |Y - X beta|^2 / (2n)$"),
            say("$Sigma = X^T X / n$; no part of $U$ outside the row space of $X$ is moved by the loss"),
        ]
        noise = self.net.noise
        if noise is not None:
            names = ", ".join(dict.fromkeys(map(str, self.std)))
            values = noise.std if isinstance(noise.std, float) else noise.stds(self.net.weights).tolist()
            lines += [
                say(f"gradients are taken at $w + xi$, $xi$ {noise.name} with mean 0 and std ${names} = {values}$"),
                Line((r"\mathrm{E} L - L", "E L - L"), self._expected()),
            ]
        if self.decay != 0:
            value = self.net.weight_decay
            told = f"$lambda = {value}$" if isinstance(value, float) else "$lambda$ a function of time"
            lines.append(say(f"weight decay adds $lambda/2 (|U|^2 + |V|^2)$, {told}"))
        return lines

    def _expected(self) -> tuple[str, str]:
        u, v = (f"{s}^2" for s in self.std)
        tu, tv = (f"{sympy.latex(s)}^2" for s in self.std)
        return (
            rf"\tfrac12\big( {tv} m \operatorname{{tr}} U^\top \Sigma U"
            rf" + {tu} \operatorname{{tr}}\Sigma\, \|V\|^2 \big) + \text{{const}}",
            f"({v} m tr(U^T Sigma U) + {u} tr(Sigma) |V|^2)/2 + const",
        )

    def _damping_terms(self) -> dict[str, list[tuple[str, str]]]:
        """The terms of a and b, in LaTeX and plain text."""
        terms: dict[str, list[tuple[str, str]]] = {"a": [], "b": []}
        if self.std[1] != 0:
            terms["a"].append((rf"{sympy.latex(self.std[1])}^2 m \Sigma", f"{self.std[1]}^2 m Sigma"))
        if self.std[0] != 0:
            terms["b"].append(
                (rf"{sympy.latex(self.std[0])}^2 \operatorname{{tr}}\Sigma", f"{self.std[0]}^2 tr(Sigma)")
            )
        if self.decay != 0:
            for each in terms.values():
                each.append((r"\lambda", "lambda"))
        return terms

    def _flow(self) -> list[Line]:
        terms = self._damping_terms()
        a_u, b_v = (" - a U" if terms["a"] else ""), (" - b V" if terms["b"] else "")
        lines = [
            Line(("G", "G"), (r"X^\top (Y - X U V^\top) / n", "X^T (Y - X U V^T) / n")),
            Line((r"\dot U", "U'"), (f"G V{a_u}",) * 2),
            Line((r"\dot V", "V'"), (rf"G^\top U{b_v}", f"G^T U{b_v}")),
        ]
        for name, each in terms.items():
            if each:
                lines.append(Line((name, name), tuple(" + ".join(texts) for texts in zip(*each, strict=True))))
        a, b = ("-a" if terms["a"] else "0"), ("-b" if terms["b"] else "0")
        lines += [
            say("with $Z = (U; V)$ the flow is linear in $Z$ for a given path of $beta$:"),
            Line((r"\dot Z", "Z'"), (r"S(\beta) Z", "S(beta) Z")),
            Line(
                ("S", "S"), (rf"\begin{{pmatrix}} {a} & G \\ G^\top & {b} \end{{pmatrix}}", f"[[{a}, G], [G^T, {b}]]")
            ),
            say("$S$ at different times does not commute: the order of growth matters, not its sum"),
        ]
        return lines

    def _conserved(self) -> list[Line]:
        lines = [Line(("I", "I"), (r"U^\top U - V^\top V", "U^T U - V^T V"))]
        if self.net.noise is None:
            if self.decay == 0:
                return [*lines, say("conserved, whatever the data")]
            return [*lines, Line((r"\dot I", "I'"), (r"-2 \lambda I", "-2 lambda I"))]
        return [
            *lines,
            Line((r"\dot I", "I'"), (r"-2\, U^\top a U + 2 b V^\top V", "-2 U^T a U + 2 b V^T V")),
            say("at rest $U^T a U = b V^T V$: noise balances the factors in its own metric"),
        ]

    def _growth(self) -> list[Line]:
        return [
            say("clock: $t = t~ ln(1/alpha)$; a direction of level $s$ has size $exp((s - 1) ln(1/alpha))$"),
            say("all levels start at 0; active directions have level 1 and $S Z = 0$"),
            say("on a plateau the others rise at the eigenvalues of $S$ on the complement of the active ones,"),
            say("sorted: the highest level takes the largest; the direction whose level reaches 1 is activated next"),
            say(self._first()),
        ]

    def _first(self) -> str:
        if self.net.noise is None and self.decay == 0:
            return "first jump at $t~ = 1/sigma_1(X^T Y / n)$; whitened data: at every $1/sigma_i$"
        return "first jump at 1 over the largest eigenvalue of $S(0)$"

    def _saddles(self) -> list[Line]:
        lines = [
            Line(
                (r"\Sigma^{-1/2} X^\top Y / n", "Sigma^(-1/2) X^T Y / n"),
                (r"\sum_i s_i a_i b_i^\top", "sum_i s_i a_i b_i^T"),
            )
        ]
        if self.decay != 0:
            words = (
                "saddle $r$: a minimum of $L + $ the penalty below over rank $r$; the end: its minimum over all beta"
            )
            root = (
                "sqrt(b)$ times the nuclear norm of $sqrt(a) beta"
                if self.net.noise is not None
                else "lambda$ times the nuclear norm of $beta"
            )
            return [*lines, say(words), say(f"penalty: ${root}$")]
        shrunk_tex, shrunk = "s_i", "s_i"
        if self.threshold != 0:
            product = r"\eta^2" if self.std[0] == self.std[1] else r"\eta_U \eta_V"
            text = "eta^2" if self.std[0] == self.std[1] else "eta_U eta_V"
            lines.append(
                Line(
                    (r"\tau", "tau"), (rf"{product} \sqrt{{m \operatorname{{tr}} \Sigma}}", f"{text} sqrt(m tr(Sigma))")
                )
            )
            shrunk_tex, shrunk = r"(s_i - \tau)_+", "(s_i - tau)_+"
        lines.append(
            Line(
                (r"\beta_r", "beta_r"),
                (
                    rf"\Sigma^{{-1/2}} \sum_{{i \le r}} {shrunk_tex}\, a_i b_i^\top",
                    f"Sigma^(-1/2) sum_(i <= r) {shrunk} a_i b_i^T",
                ),
            )
        )
        last = f"the end has rank $min(h, rank)$, $h = {self.net.width}$"
        if self.threshold == 0:
            return [
                *lines,
                say(f"reduced-rank regression; {last}: the least-squares solution of least norm if $h$ allows"),
            ]
        return [
            *lines,
            say("singular-value soft-thresholding: the end minimises $L + tau$ times the nuclear norm of the fit"),
            say(last),
        ]
