"""The steps of a derivation, in text and equations."""

from __future__ import annotations

import sympy

from flowsim.network import Noise, quadratic_form
from flowsim.symbolic.coordinate_derivation import CoordinateDerivation, Law
from flowsim.symbolic.expectation import term_bound
from flowsim.symbolic.render import Line, Step, say
from flowsim.symbolic.sharpness import SHORT


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
        say(f"weights ${', '.join(d.formula.weights)}$; loss $L(beta) = |X beta - y|^2 / (2n)$"),
        say(f"${d.g} = (X^T (X beta - y) / n)_i$, ${d.sigma}^2 = (X^T X / n)_ii$"),
    ]
    return lines + [say(remark) for remark in d.remarks]


def _expectation(d: CoordinateDerivation) -> list[Line]:
    if d.noise is None:
        return [say("no weight noise: $m = phi$, $V = 0$")]
    return [
        say(_noise_words(d.noise, d)),
        Line(("m = \\mathrm{E}\\,\\varphi", "m = E phi"), d.mean),
        Line(("V = \\operatorname{Var}\\varphi", "V = Var phi"), d.variance),
        say(f"expected loss: $L(m) + sum_i {d.sigma}_i^2 V_i/2$"),
        *(say("${}$: {}".format(*method.rsplit(": ", 1))) for method in d.methods),
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
        lines.append(say(f"weight decay ${d.decay}{value}$: the loss gains $lambda/2 |theta|^2$"))
    where = "X^T (X m - y) / n" if d.noise is not None else "X^T (X beta - y) / n"
    lines.append(say(f"coordinates are coupled through ${d.g} = ({where})_i$ alone"))
    if len(d.weights) <= 4:
        lines.append(Line(("J_{\\text{block}}", "Jacobian block"), d.jacobian))
    lines.append(say("Jacobian: these blocks, minus $dm_i/dw_a Sigma_ij dm_j/dw_b$, of rank at most that of $X$"))
    return lines


def _invariants(d: CoordinateDerivation) -> list[Line]:
    if len(d.weights) == 1:
        return [say("one weight: none")]
    if not d.invariants:
        return [say(f"no polynomial of degree $<= {d.degree}$ is conserved")]
    lines = []
    for law in d.laws:
        lines.append(Line(("I", "I"), law.quantity))
        if d.noise is not None or d.weight_decay:
            lines.append(_law(law))
    return lines if d.noise is not None or d.weight_decay else [*lines, say("conserved, whatever the data")]


def _law(law: Law) -> Line:
    if law.kind == "conserved":
        return say("  survives the noise")
    if law.kind == "decay" and law.rate is not None:
        return Line((r"\dot I / I", "  I'/I"), -law.rate)
    if law.kind == "driven":
        return Line((r"\dot I", "  not conserved under noise or decay: I'"), law.derivative)
    return say("  under the noise: not decided, the expectation has no closed form")


def _sharpness(d: CoordinateDerivation) -> list[Line]:
    s = d.sharpness
    lines = [Line((r"\operatorname{tr}\nabla^2 L\big|_i", "tr Hess L, share of i"), _tidy(s.trace))]
    if d.formula.product_of is not None:
        lines.append(say("least trace for a given product: all weights of equal modulus"))
    if d.noise is not None:
        lines.append(Line((r"\tfrac{\sigma^2}{2} V", "E L(w + xi) - L(w), share of i"), s.average))
        if s.bias != 0:
            lines.append(say("plus $L(m) - L(phi)$, since the noise moves the predictor:"))
            lines.append(Line((r"m - \varphi", "m - phi"), s.bias))
    return lines


def _tidy(e: sympy.Expr) -> sympy.Expr:
    short = e.is_polynomial(*e.free_symbols) and term_bound(e) <= SHORT
    return sympy.factor(e) if short else e


def _thresholds(d: CoordinateDerivation) -> list[Line]:
    t = d.thresholds
    if t.plus is None:
        return [say(t.statement)]
    lines = [
        say(f"lowest homogeneous degree at 0: {t.order}" + (", noise left aside" if d.noise else "")),
        Line(("t^+", "t+"), t.plus),
        Line(("t^-", "t-"), t.minus),
        say(f"for {t.start}"),
    ]
    if t.formula:
        lines.append(Line((t.formula, ""), None))
    return lines + ([say(t.statement)] if t.statement else [])


def _limit(d: CoordinateDerivation) -> list[Line]:
    t = d.thresholds
    if t.plus is None:
        return [say("no saddle at the origin, no limit process")]
    power = "" if t.order == 3 else f"^{(t.order or 0) - 2}"
    clock = "t = t~ ln(1/alpha)" if t.order == 2 else f"t = t~ / alpha{power}"
    lines = [say(f"clock: ${clock}$")]
    if d.weight_decay and d.noise is None:
        if t.order == 2 and quadratic_form(d.formula) is not None:
            lines.append(say(f"end point: the Lasso with penalties ${d.decay} t+$ and ${d.decay} t-$"))
        else:
            lines.append(say("with weight decay: no closed form of the end point is claimed"))
    elif d.noise is None:
        lines.append(say("saddles joined by jumps: coordinate $i$ leaves 0 when $-int g_i dt~$ reaches $t+$ or $-t-$"))
        if t.bias:
            lines.append(Line((t.bias, ""), None))
            terms, signs = t.norm
            norm = " + ".join(part if value == 1 else f"{value} {part}" for value, part in terms)
            lines.append(say(f"end point: least sum of ${', '.join([norm, *signs])}$ with $X beta = y$"))
    elif t.order == 2:
        if d.formula.product_of is not None and not d.noise.multiplicative:
            stds = "*".join(map(str, d.std)) if len(set(d.std)) > 1 else f"{d.std[0]}^2"
            lines.append(say(f"end point: the Lasso with penalties ${stds} {d.sigma}_i^2$"))
        else:
            lines.append(say("with noise: no closed form of the end point is claimed"))
    elif d.formula.product_of is not None and not d.noise.multiplicative:
        lines.append(say("with additive noise of fixed std the origin attracts: $alpha -> 0$ ends at $beta = 0$"))
    else:
        lines.append(say("with noise: no closed form of the end point is claimed"))
    return lines
