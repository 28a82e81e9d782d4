"""A derivation as a text that is read step by step: LaTeX for notebooks, Unicode for terminals."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

from flowsim.network import Noise, quadratic_form
from flowsim.symbolic.expectation import term_bound
from flowsim.symbolic.sharpness import SHORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowsim.symbolic.derivation import CoordinateDerivation, Law

__all__ = ["Line", "Rendered", "Step", "steps"]

#: Expressions with more operations than this are named, not shown.
_LONG = 220
_WIDTH = 110


@dataclass(frozen=True)
class Line:
    """One equation ``left = right``, or words. `left` is (LaTeX, plain text); `right` an expression or such a pair."""

    left: tuple[str, str] = ("", "")
    right: Any = None
    words: str = ""


#: A title and its lines.
Step = tuple[str, list[Line]]


class Rendered:
    """Equations that show themselves, step by step: a subclass has :meth:`chapters`."""

    def chapters(self) -> Sequence[tuple[str, list[Step]]]:
        """Each a heading and its steps."""
        raise NotImplementedError

    def latex(self) -> str:
        """One ``aligned`` block: titles in bold, one line for each equation or sentence."""
        lines = []
        for _, steps in self.chapters():
            for title, body in steps:
                lines.append(rf"& \textbf{{{title}}}")
                lines += [_latex_line(line) for line in body if line.words or line.left[0]]
        text = " \\\\\n".join(lines)
        return f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex()}\n$$"

    def __str__(self) -> str:
        """The steps on lines of Unicode mathematics."""
        return "".join(text for text, _ in _pieces(self.chapters()))

    def __repr__(self) -> str:
        return f"derive({self.net!r})"  # type: ignore[attr-defined]

    def __rich__(self) -> Any:
        """The same for a terminal, with colours."""
        from rich.text import Text

        text = Text()
        for piece, style in _pieces(self.chapters()):
            text.append(piece, style=style)
        text.rstrip()
        return text


def steps(derivation: CoordinateDerivation) -> list[Step]:
    """The steps in order, each a title and its lines."""
    return [
        ("Model", _model(derivation)),
        ("Expectation", _expectation(derivation)),
        ("Gradient flow", _field(derivation)),
        ("Conserved quantities", _invariants(derivation)),
        ("Sharpness", _sharpness(derivation)),
        ("Growth thresholds at vanishing initialisation", _thresholds(derivation)),
        ("Limit of vanishing initialisation", _limit(derivation)),
    ]


def _model(d: CoordinateDerivation) -> list[Line]:
    lines = [
        Line((r"\beta_i = \varphi", "beta_i = phi"), d.phi),
        Line(words=f"weights ${', '.join(d.formula.weights)}$; loss $L(beta) = |X beta - y|^2 / (2n)$"),
        Line(words=f"${d.g} = (X^T (X beta - y) / n)_i$, ${d.sigma}^2 = (X^T X / n)_ii$"),
    ]
    return lines + [Line(words=remark) for remark in d.remarks]


def _expectation(d: CoordinateDerivation) -> list[Line]:
    if d.noise is None:
        return [Line(words="no weight noise: $m = phi$, $V = 0$")]
    return [
        Line(words=_noise_words(d.noise, d)),
        Line(("m = \\mathrm{E}\\,\\varphi", "m = E phi"), d.mean),
        Line(("V = \\operatorname{Var}\\varphi", "V = Var phi"), d.variance),
        Line(words=f"expected loss: $L(m) + sum_i {d.sigma}_i^2 V_i/2$"),
        *(Line(words="${}$: {}".format(*method.rsplit(": ", 1))) for method in d.methods),
    ]


def _noise_words(noise: Noise, d: CoordinateDerivation) -> str:
    place = "$w (1 + xi)$" if noise.multiplicative else "$w + xi$"
    stds = ", ".join(dict.fromkeys(f"{symbol}" for symbol in d.std))
    values = noise.std if isinstance(noise.std, float) else noise.stds(d.formula.weights).tolist()
    return f"gradients are taken at {place}, $xi$ {noise.name} with mean 0 and std ${stds} = {values}$"


def _field(d: CoordinateDerivation) -> list[Line]:
    lines = [Line((rf"\dot {sympy.latex(sympy.Symbol(name))}", f"{name}'"), slope) for name, slope in d.field.items()]
    if d.weight_decay:
        value = f" = {d.weight_decay}" if isinstance(d.weight_decay, float) else ", a function of time"
        lines.append(Line(words=f"weight decay ${d.decay}{value}$: the loss gains $lambda/2 |theta|^2$"))
    where = "X^T (X m - y) / n" if d.noise is not None else "X^T (X beta - y) / n"
    lines.append(Line(words=f"every coordinate on its own but for ${d.g} = ({where})_i$"))
    if len(d.weights) <= 4:
        lines.append(Line(("J_{\\text{block}}", "Jacobian block"), d.jacobian))
    lines.append(
        Line(words="Jacobian: these blocks, minus $dm_i/dw_a Sigma_ij dm_j/dw_b$, of rank at most that of $X$")
    )
    return lines


def _invariants(d: CoordinateDerivation) -> list[Line]:
    if len(d.weights) == 1:
        return [Line(words="one weight: none")]
    if not d.invariants:
        return [Line(words=f"no polynomial of degree $<= {d.degree}$ is conserved")]
    lines = []
    for law in d.laws:
        lines.append(Line(("I", "I"), law.quantity))
        if d.noise is not None or d.weight_decay:
            lines.append(_law(law))
    return lines if d.noise is not None or d.weight_decay else [*lines, Line(words="conserved, whatever the data")]


def _law(law: Law) -> Line:
    if law.kind == "conserved":
        return Line(words="  survives the noise")
    if law.kind == "decay" and law.rate is not None:
        return Line((r"\dot I / I", "  I'/I"), -law.rate)
    if law.kind == "driven":
        return Line((r"\dot I", "  not conserved under noise or decay: I'"), law.derivative)
    return Line(words="  under the noise: not decided, the expectation has no closed form")


def _sharpness(d: CoordinateDerivation) -> list[Line]:
    s = d.sharpness
    lines = [Line((r"\operatorname{tr}\nabla^2 L\big|_i", "tr Hess L, share of i"), _tidy(s.trace))]
    if d.formula.product_of is not None:
        lines.append(Line(words="least trace for a given product: all weights of equal modulus"))
    if d.noise is not None:
        lines.append(Line((r"\tfrac{\sigma^2}{2} V", "E L(w + xi) - L(w), share of i"), s.average))
        if s.bias != 0:
            lines.append(Line(words="plus $L(m) - L(phi)$, since the noise moves the predictor:"))
            lines.append(Line((r"m - \varphi", "m - phi"), s.bias))
    return lines


def _tidy(e: sympy.Expr) -> sympy.Expr:
    short = e.is_polynomial(*e.free_symbols) and term_bound(e) <= SHORT
    return sympy.factor(e) if short else e


def _thresholds(d: CoordinateDerivation) -> list[Line]:
    t = d.thresholds
    if t.plus is None:
        return [Line(words=t.statement)]
    lines = [
        Line(words=f"lowest homogeneous degree at 0: {t.order}" + (", noise left aside" if d.noise else "")),
        Line(("t^+", "t+"), t.plus),
        Line(("t^-", "t-"), t.minus),
        Line(words=f"for {t.start}"),
    ]
    if t.formula:
        lines.append(Line((t.formula, ""), None))
    return lines + ([Line(words=t.statement)] if t.statement else [])


def _limit(d: CoordinateDerivation) -> list[Line]:
    t = d.thresholds
    if t.plus is None:
        return [Line(words="no saddle at the origin, no limit process")]
    power = "" if t.order == 3 else f"^{(t.order or 0) - 2}"
    clock = "t = t~ ln(1/alpha)" if t.order == 2 else f"t = t~ / alpha{power}"
    lines = [Line(words=f"clock: ${clock}$")]
    if d.weight_decay and d.noise is None:
        if t.order == 2 and quadratic_form(d.formula) is not None:
            lines.append(Line(words=f"end point: the Lasso with penalties ${d.decay} t+$ and ${d.decay} t-$"))
        else:
            lines.append(Line(words="with weight decay: no closed form of the end point is claimed"))
    elif d.noise is None:
        lines.append(
            Line(words="saddles joined by jumps: coordinate $i$ leaves 0 when $-int g_i dt~$ reaches $t+$ or $-t-$")
        )
        if t.bias:
            lines.append(Line((t.bias, ""), None))
            lines.append(Line(words=f"end point: least sum of ${_norm_words(t)}$ with $X beta = y$"))
    elif t.order == 2:
        if d.formula.product_of is not None and not d.noise.multiplicative:
            stds = "*".join(map(str, d.std)) if len(set(d.std)) > 1 else f"{d.std[0]}^2"
            lines.append(Line(words=f"end point: the Lasso with penalties ${stds} {d.sigma}_i^2$"))
        else:
            lines.append(Line(words="with noise: no closed form of the end point is claimed"))
    elif d.formula.product_of is not None and not d.noise.multiplicative:
        lines.append(
            Line(words="with additive noise of fixed std the origin attracts: $alpha -> 0$ ends at $beta = 0$")
        )
    else:
        lines.append(Line(words="with noise: no closed form of the end point is claimed"))
    return lines


def _norm_words(t: Any) -> str:
    def term(value: Any, side: str) -> str:
        return side if value == 1 else f"{value} {side}"

    if t.plus == t.minus:
        return term(t.plus, "|beta_i|")
    sides = [(t.plus, "beta_i^+"), (t.minus, "beta_i^-")]
    words = " + ".join(term(value, side) for value, side in sides if value != sympy.oo)
    kept = [sign for (value, _), sign in zip(sides, ("beta_i <= 0", "beta_i >= 0"), strict=True) if value == sympy.oo]
    return words + (f", {', '.join(kept)}" if kept else "")


# Writing


def _latex_line(line: Line) -> str:
    if line.words:
        pieces = line.words.split("$")
        pieces[0::2] = [_escape(piece) for piece in pieces[0::2]]
        pieces[1::2] = [f"${_latex_math(piece)}$" for piece in pieces[1::2]]
        return rf"& \quad\text{{{''.join(pieces)}}}"
    if line.right is None:
        return rf"& \quad {line.left[0]}"
    if isinstance(line.right, tuple):
        return f"{line.left[0]} &= {line.right[0]}"
    if _is_long(line.right):
        return rf"{line.left[0]} &= \text{{{sympy.count_ops(line.right)} operations, not shown}}"
    return f"{line.left[0]} &= {sympy.latex(line.right)}"


_GREEK = re.compile(r"(?<![A-Za-z])(alpha|beta|eta|lambda|phi|sigma|tau|theta|xi|Sigma)(?![A-Za-z])")
_REPLACED = (
    (_GREEK, r"\\\1 "),
    (re.compile(r"\b(sum|int|ln|exp|sin|cos|tan|sinh|cosh|tanh|log)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"_([a-z]{2,})"), r"_{\1}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^(\d\d+)"), r"^{\1}"),
    (re.compile(r"\*"), r"\\,"),
    (re.compile(r"\^T\b"), r"^\\top "),
    (re.compile(r"\bt~"), r"\\tilde t"),
    (re.compile(r"\bt([+-])"), r"t^\1"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"->"), r"\\to "),
)


def _latex_math(text: str) -> str:
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return text


def _escape(words: str) -> str:
    return words.replace("\\", "").replace("_", r"\_").replace("^", r"\string^").replace("`", "")


def _pieces(chapters: Sequence[tuple[str, list[Step]]]) -> Iterator[tuple[str, str]]:
    for heading, body in chapters:
        yield f"{heading}\n", "bold"
        for number, (title, lines) in enumerate(body, 1):
            yield f"\n{number}. {title}\n", "bold cyan"
            for line in lines:
                for text in _plain_line(line):
                    yield text + "\n", "dim" if line.words else ""
        yield "\n", ""


def _plain_line(line: Line) -> list[str]:
    if line.words:
        return _wrapped("   ", _unicode(line.words))
    if line.right is None:
        return []
    left = f"   {_unicode(line.left[1])} = "
    if isinstance(line.right, tuple):
        return _wrapped(left, _unicode(line.right[1]))
    if isinstance(line.right, sympy.MatrixBase):
        table = [[_unicode(entry) for entry in line.right.row(row)] for row in range(line.right.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        if len(left) + sum(widths) + 3 * len(widths) + 1 > _WIDTH:
            return [f"{left}{line.right.rows} x {line.right.cols}, too wide to show; see `.jacobian`"]
        rows = ["[ " + "   ".join(e.ljust(w) for e, w in zip(row, widths, strict=True)) + " ]" for row in table]
        return [(left if row == 0 else " " * len(left)) + text for row, text in enumerate(rows)]
    if _is_long(line.right):
        return [f"{left}... ({sympy.count_ops(line.right)} operations, not shown)"]
    return _wrapped(left, _unicode(line.right))


def _is_long(e: Any) -> bool:
    return bool(sympy.count_ops(e) > _LONG)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LETTERS = {
    "alpha": "α",
    "beta": "β",
    "eta": "η",
    "lambda": "λ",
    "tau": "τ",
    "phi": "φ",
    "sigma": "σ",
    "Sigma": "Σ",
    "theta": "θ",
    "xi": "ξ",
}


def _unicode(e: Any) -> str:
    """One line: powers raised, products with a dot."""
    text = "∞" if e == sympy.oo else str(e).replace("$", "")
    text = _GREEK.sub(lambda found: _LETTERS[found[1]], text)
    text = re.sub(r"(?:\*\*|\^)(\d+)\b", lambda found: found[1].translate(_SUPERSCRIPTS), text)
    return text.replace("**", "^").replace("*", "·")
