"""A convex loss from an expression in f and y: derivatives by SymPy, evaluated by NumPy and compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import sympy

from flowsim.arrays import Array
from flowsim.network.formula import Formula
from flowsim.problem.convexity import first_fault
from flowsim.problem.losses import EXPONENTIAL, LOG_COSH, LOGISTIC, Loss, no_fault
from flowsim.symbolic.codegen import load_generated
from flowsim.version import __version__

#: A formula must be convex at one of these targets at least; targets of data are checked by the problem.
_TARGETS = np.array([1.0, -1.0, 0.5, 2.0])
#: Predictions at which the limits of the slope are evaluated.
_FAR, _STEEP = 1e8, 1e6
_RANGE = 600.0
_BISECTIONS = 80


def _function(name: str, derivative: Callable[[Any], Any] | None = None) -> Any:
    """A function of one argument that keeps its name in expressions, with its derivative."""
    known = {} if derivative is None else {"fdiff": lambda self, argindex=1: derivative(self.args[0])}
    return type(name, (sympy.Function,), {**known, "__module__": __name__})


softplus: Any = _function("softplus", lambda x: sigmoid(x))  # log(1 + exp(x))
sigmoid: Any = _function("sigmoid", lambda x: sigmoid(x) * sigmoid(-x))  # 1/(1 + exp(-x))
logcosh: Any = _function("logcosh", lambda x: tangent(x))
tangent: Any = _function("tangent", lambda x: sech2(x))  # tanh(x), with an accurate derivative
sech2: Any = _function("sech2")  # 1/cosh(x)^2


_ZERO_TARGET = np.zeros(1)
_SAFE: dict[str, Callable[[Array], Array]] = {
    "softplus": lambda x: LOGISTIC.value(-x, np.ones(1)).reshape(np.shape(x)),
    "sigmoid": lambda x: LOGISTIC.slope(x, -np.ones(1)).reshape(np.shape(x)),
    "logcosh": lambda x: LOG_COSH.value(x, _ZERO_TARGET).reshape(np.shape(x)),
    "tangent": np.tanh,
    "sech2": lambda x: LOG_COSH.curvature(x, _ZERO_TARGET).reshape(np.shape(x)),
}

_HELPERS = """
@compiled()
def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@compiled()
def sigmoid(x):
    tail = math.exp(-abs(x))
    return (1.0 if x >= 0 else tail) / (1.0 + tail)


@compiled()
def logcosh(x):
    return abs(x) + math.log1p(math.exp(-2.0 * abs(x))) - math.log(2.0)


@compiled()
def tangent(x):
    return math.tanh(x)


@compiled()
def sech2(x):
    tail = math.exp(-2.0 * abs(x))
    return 4.0 * tail / ((1.0 + tail) * (1.0 + tail))


@compiled("void(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1])")
def derivatives(fs, ys, ws, d1, d2):
    for i in range(len(fs)):
        f, y = fs[i], ys[i]
"""


def from_formula(text: str) -> Loss:
    """A loss from an expression in the prediction ``f`` and the target ``y``.

    Parameters
    ----------
    text : str
        Such as ``"log(1 + exp(-y*f))"``, with the grammar and functions of network formulas.
        ``log(1 + exp(.))``, ``log(cosh(.))`` and ``tanh`` are evaluated without overflow.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        For anything outside the grammar, names other than f and y, and a loss that is nowhere convex and finite.
        Convexity at the targets of the data is checked by the problem, on samples of the second derivative.

    Examples
    --------
    >>> import flowsim as fs
    >>> loss = fs.losses.from_formula("log(1 + exp(-y*f))")
    >>> float(loss.slope(0.0, 1.0)), float(loss.value(-1e4, 1.0))
    (-0.5, 10000.0)
    """
    return _known(Formula.parse(text).text)


@lru_cache(maxsize=256)
def _known(text: str) -> Loss:
    formula = Formula.parse(text)
    unknown = sorted(set(formula.weights) - {"f", "y"})
    if unknown:
        raise ValueError(f"`loss` {text!r} must be an expression in f and y; received the name {unknown[0]!r}.")
    if "f" not in formula.weights:
        raise ValueError(f"`loss` {text!r} must contain the prediction f.")
    loss = _derived(formula)
    faults = [first_fault(loss, np.array([y])) for y in _TARGETS]
    if None not in faults:
        raise ValueError(f"`loss` {text!r} {faults[0]}.")
    return loss


def loss_expressions(loss: Loss) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr]:
    """The loss, its slope and its curvature as SymPy expressions in f and y."""
    expression = Formula.parse(loss.formula).expression
    f = sympy.Symbol("f", real=True)
    slope = sympy.diff(expression, f)
    return expression, sympy.simplify(slope), sympy.simplify(sympy.diff(slope, f))


def latex(loss: Loss) -> dict[str, str]:
    """LaTeX of a loss, its slope and its curvature in f.

    Examples
    --------
    >>> import flowsim as fs
    >>> fs.losses.latex(fs.losses.SQUARED)["slope"]
    'f - y'
    """
    parts = zip(("value", "slope", "curvature"), loss_expressions(loss), strict=True)
    return {name: sympy.latex(each) for name, each in parts}


@dataclass(frozen=True, eq=False, repr=False)
class FormulaLoss(Loss):
    """A loss that is pickled as its formula."""

    origin: str = field(default="", kw_only=True)

    def __reduce__(self) -> Any:
        return from_formula, (self.origin,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FormulaLoss) and self.origin == other.origin

    def __hash__(self) -> int:
        return hash((FormulaLoss, self.origin))


def _derived(formula: Formula) -> Loss:
    f, y = symbols = [sympy.Symbol(name, real=True) for name in ("f", "y")]
    expression = _safe(formula.expression)
    first = sympy.diff(expression, f)
    second = _collected(sympy.diff(first, f))
    value, slope, curvature = (
        _elementwise(sympy.lambdify(symbols, each, modules=[_SAFE, "numpy"])) for each in (expression, first, second)
    )
    margin = {softplus(-y * f): LOGISTIC, sympy.exp(-y * f): EXPONENTIAL}.get(expression)
    return FormulaLoss(
        name=formula.text,
        formula=formula.text,
        value=value,
        slope=slope,
        curvature=curvature,
        recession=lambda y: _recession(slope, y),
        infimum=lambda y: _infimum(value, slope, y),
        log_value=None if margin is None else margin.log_value,
        fault=no_fault if margin is None else margin.fault,
        kernel=lambda: load_generated(_source(formula, first, second), "loss").derivatives,
        margin_logs=None if margin is None else margin.margin_logs,
        safe_prediction=EXPONENTIAL.safe_prediction,
        origin=formula.text,
    )


def _source(formula: Formula, first: sympy.Expr, second: sympy.Expr) -> str:
    """The module of the compiled derivatives."""
    shared, (slope, curvature) = sympy.cse(
        [first, second], symbols=sympy.numbered_symbols("t", real=True), order="canonical"
    )
    own = {name: name for name in _SAFE}
    lines = [
        *(f"{name} = {sympy.pycode(part, user_functions=own)}" for name, part in shared),
        f"d1[i] = ws[i]*({sympy.pycode(slope, user_functions=own)})",
        f"d2[i] = ws[i]*({sympy.pycode(curvature, user_functions=own)})",
    ]
    return (
        f'"""Generated by flowsim {__version__}: {formula.text[:80]!r}."""\n\nimport math\n\n'
        "from flowsim.solvers.compilation import compiled\n\n"
        + _HELPERS
        + "".join(f"        {line}\n" for line in lines)
    )


def _safe(e: sympy.Expr) -> sympy.Expr:
    """The expression in functions that do not overflow."""
    if not e.args:
        return e
    e = e.func(*(_safe(part) for part in e.args))
    if isinstance(e, sympy.tanh):
        return tangent(e.args[0])
    if isinstance(e, sympy.log):
        inside = e.args[0]
        if isinstance(inside, sympy.cosh):
            return logcosh(inside.args[0])
        if inside.is_Add and len(inside.args) == 2:
            first, second = (_log_of(term) for term in inside.args)
            if first is not None and second is not None:
                return first + softplus(sympy.expand(second - first))
    return e


def _log_of(term: sympy.Expr) -> sympy.Expr | None:
    """``ln term`` for a positive constant, an exponential, or their product."""
    if term.is_number:
        return sympy.log(term) if term.is_positive else None
    if isinstance(term, sympy.exp):
        return term.args[0]
    if term.is_Mul:
        logs = [_log_of(factor) for factor in term.args]
        return None if None in logs else sympy.Add(*logs)
    return None


def _collected(e: sympy.Expr) -> sympy.Expr:
    """The expression over a common denominator, if terms of the numerator then cancel symbolically."""
    above, below = sympy.fraction(sympy.together(e))
    if below == 1 or sympy.count_ops(above) > 200:
        return e
    return sympy.expand(above) / below


def _elementwise(function: Callable[[Array, Array], Any]) -> Callable[[Array, Array], Array]:
    def evaluate(f: Array, y: Array) -> Array:
        f, y = np.asarray(f, dtype=float), np.asarray(y, dtype=float)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            return np.asarray(function(f, y) + np.zeros(np.broadcast_shapes(f.shape, y.shape)))

    return evaluate


def _recession(slope: Callable[[Array, Array], Array], y: Array) -> tuple[Array, Array]:
    ends = []
    for side in (-1.0, 1.0):
        at = slope(np.full_like(y, side * _FAR), y)
        at = np.where(np.abs(at) > _STEEP, np.copysign(np.inf, at), np.where(np.abs(at) < 1 / _STEEP, 0.0, at))
        ends.append(np.where(np.isnan(at), side * np.inf, at))
    return ends[0], ends[1]


def _infimum(value: Callable[[Array, Array], Array], slope: Callable[[Array, Array], Array], y: Array) -> Array:
    """The least value in f: at the zero of the slope, or at an end of the range searched where the slope has none."""
    low, high = np.full_like(y, -_RANGE), np.full_like(y, _RANGE)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        falling = slope(middle, y) < 0
        low, high = np.where(falling, middle, low), np.where(falling, high, middle)
    return value((low + high) / 2, y)
