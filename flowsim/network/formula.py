"""A safe parser of formulas.

A formula is text from a user, a file or a web form, and SymPy's own parser evaluates Python. This one
knows names, numbers, ``+ - * / **``, brackets and a short list of functions; it never calls ``eval``, and
it bounds length, nesting and powers, so hostile text costs no more than an error message.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowsim.text_table import shortened

if TYPE_CHECKING:
    import sympy
    from numpy.typing import NDArray

#: Functions allowed in formulas, by their names in SymPy.
FUNCTIONS = (
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
)
CONSTANTS = ("pi",)

_MAX_LENGTH = 2000
_MAX_DEPTH = 60
_MAX_EXPONENT = 64
#: Bound on the degree a formula can reach by multiplying and raising: keeps expansion finite.
_MAX_DEGREE = 512
_MAX_DIGITS = 40
#: Bound on the height of the syntax tree, so that walking it never meets Python's recursion limit.
_MAX_HEIGHT = 250
#: Largest power of ten in a number.
_MAX_MAGNITUDE = 300
#: Total number of digits of all numbers under roots, which SymPy factorises.
_MAX_ROOT_DIGITS = 4000
_BITS_PER_DIGIT = 3.3219

_TOKEN = re.compile(
    r"(?P<number>(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3}(?!\d))?)|(?P<name>[A-Za-z]\w*)|(?P<op>\*\*|[-+*/(),])", re.ASCII
)

Node = tuple[Any, ...]


@dataclass(frozen=True)
class Formula:
    """One coordinate of the predictor, ``beta_i = phi(weights_i)``."""

    text: str  #: the text as given
    #: its syntax: ``("num", Fraction)``, ``("var", name)``, ``("pi",)``, ``("+", a, b)``, ``("-", a, b)``, ``("*", a,
    #: b)``, ``("/", a, b)``, ``("neg", a)``, ``("**", a, Fraction)``, ``("call", name, a)``
    tree: Node
    weights: tuple[str, ...]  #: the names in the formula, in order of first appearance

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Read a formula.

        Raises ValueError with the position, for anything outside the grammar; also if no weight occurs.
        """
        if not isinstance(text, str):
            raise ValueError(f"`formula` must be text such as 'u*v'; received {type(text).__name__}.")
        if len(text) > _MAX_LENGTH:
            raise ValueError(f"`formula` must have at most {_MAX_LENGTH} characters; received {len(text)}.")
        reader = _Reader(text)
        tree = reader.read()
        _check_constants(tree, text)
        weights = tuple(dict.fromkeys(reader.names))
        if not weights:
            raise ValueError(f"`formula` must contain at least one weight; received {text!r}.")
        return cls(text.strip(), tree, weights)

    @cached_property
    def expression(self) -> sympy.Expr:
        """The formula as a SymPy expression in real symbols."""
        return to_sympy(self)

    @property
    def product_of(self) -> tuple[str, ...] | None:
        """The weights if the formula is their plain product (``u*v``, ``w1*w2*w3``), each once; else None."""
        factors: list[str] = []
        stack = [self.tree]
        while stack:
            node = stack.pop()
            if node[0] == "*":
                stack += [node[2], node[1]]
            elif node[0] == "var":
                factors.append(node[1])
            else:
                return None
        return tuple(factors) if len(set(factors)) == len(factors) else None

    def __str__(self) -> str:
        return self.text


class _Reader:
    """Recursive descent with one token of look-ahead; every method returns (node, degree bound)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: list[str] = []
        self.depth = 0
        self.root_digits = 0.0
        self.heights: dict[int, tuple[Node, int]] = {}
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text):
            if text[position].isspace():
                position += 1
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                hint = " (write powers as **)" if text[position] == "^" else ""
                raise self._error(f"unexpected {text[position]!r}{hint}", position)
            self.tokens.append((str(match.lastgroup), match.group(), position))
            position = match.end()
        self.index = 0

    def read(self) -> Node:
        node, _ = self._sum()
        kind, token, position = self._peek()
        if kind != "end":
            hint = " (write products with *)" if kind in ("name", "number") or token == "(" else ""
            raise self._error(f"unexpected {token!r}{hint}", position)
        return node

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.index] if self.index < len(self.tokens) else ("end", "end of formula", len(self.text))

    def _next(self) -> tuple[str, str, int]:
        token = self._peek()
        self.index += 1
        return token

    def _accept(self, *operators: str) -> str | None:
        kind, token, _ = self._peek()
        if kind == "op" and token in operators:
            self.index += 1
            return token
        return None

    def _error(self, problem: str, position: int) -> ValueError:
        return ValueError(f"`formula` {shortened(self.text, 80)!r}: {problem} at position {position}.")

    def _sum(self) -> tuple[Node, int]:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH} levels", self._peek()[2])
        node, degree = self._product()
        while symbol := self._accept("+", "-"):
            right, other = self._product()
            node, degree = self._node(symbol, node, right), max(degree, other)
        self.depth -= 1
        return node, degree

    def _product(self) -> tuple[Node, int]:
        node, degree = self._signed()
        while symbol := self._accept("*", "/"):
            position = self._peek()[2]
            right, other = self._signed()
            if symbol == "/" and _constant(right) == 0:
                raise self._error("division by zero", position)
            node, degree = self._node(symbol, node, right), self._bounded(degree + other, position)
        return node, degree

    def _signed(self) -> tuple[Node, int]:
        negative = False
        while symbol := self._accept("+", "-"):
            negative ^= symbol == "-"
        node, degree = self._power()
        return (self._node("neg", node) if negative else node), degree

    def _power(self) -> tuple[Node, int]:
        base, degree = self._atom()
        if not self._accept("**"):
            return base, degree
        position = self._peek()[2]
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH} levels", position)
        exponent, _ = self._signed()  # binds to the right, as in Python
        self.depth -= 1
        value = _constant(exponent)
        if value is None:
            raise self._error("an exponent must be a number", position)
        if abs(value) > _MAX_EXPONENT or value.denominator > _MAX_EXPONENT:
            raise self._error(f"an exponent must lie within ±{_MAX_EXPONENT}", position)
        if value < 0 and _constant(base) == 0:
            raise self._error("division by zero", position)
        if value.denominator > 1:
            self._count_root(base, position)
        return self._node("**", base, value), self._bounded(degree * max(1, int(abs(value))), position)

    def _atom(self) -> tuple[Node, int]:
        kind, token, position = self._next()
        if kind == "number":
            if len(token) > _MAX_DIGITS:
                raise self._error(f"a number of more than {_MAX_DIGITS} digits", position)
            value = Fraction(token)
            if value and not Fraction(1, 10**_MAX_MAGNITUDE) <= value <= 10**_MAX_MAGNITUDE:
                raise self._error(f"a number outside 1e-{_MAX_MAGNITUDE} to 1e{_MAX_MAGNITUDE}", position)
            return ("num", value), 1
        if kind == "name":
            if self._peek()[1] == "(" and self._peek()[0] == "op":
                if token not in FUNCTIONS:
                    raise self._error(f"unknown function {token!r}; known: {', '.join(FUNCTIONS)}", position)
                self.index += 1
                argument, degree = self._sum()
                self._close(position)
                if token == "sqrt":
                    self._count_root(argument, position)
                return self._node("call", token, argument), degree
            if token in CONSTANTS:
                return (token,), 1
            if token in FUNCTIONS:
                raise self._error(f"{token!r} is a function and needs brackets", position)
            self.names.append(token)
            return ("var", token), 1
        if token == "(" and kind == "op":
            inner = self._sum()
            self._close(position)
            return inner
        raise self._error(f"unexpected {token!r}" if kind != "end" else "unexpected end", position)

    def _close(self, opened: int) -> None:
        kind, token, position = self._next()
        if token != ")" or kind != "op":
            raise self._error(f"expected ')' to close the bracket opened at {opened}, found {token!r}", position)

    def _node(self, *parts: Any) -> Node:
        """A node, if the tree it heads is not too high."""
        height = 1 + max((self.heights[id(part)][1] for part in parts if id(part) in self.heights), default=0)
        if height > _MAX_HEIGHT:
            raise self._error(f"more than {_MAX_HEIGHT} operations in a row", self._peek()[2])
        node = tuple(parts)
        self.heights[id(node)] = node, height  # the node is kept, so that its id is not reused
        return node

    def _count_root(self, base: Node, position: int) -> None:
        number = _constant(base)
        if number is not None:
            bits = number.numerator.bit_length() + number.denominator.bit_length()
            self.root_digits += bits / _BITS_PER_DIGIT
        if self.root_digits > _MAX_ROOT_DIGITS:
            raise self._error(f"more than {_MAX_ROOT_DIGITS} digits under roots", position)

    def _bounded(self, degree: int, position: int) -> int:
        if degree > _MAX_DEGREE:
            raise self._error(f"a degree above {_MAX_DEGREE}", position)
        return degree


def exact_value(node: Node, weights: Mapping[str, NDArray[Any]]) -> Any:
    """The values of a polynomial at arrays of integers (dtype object); None for functions, roots and other names.

    Divisors and bases of negative powers must be constants other than 0.
    """
    kind = node[0]
    if kind == "num":
        return node[1]
    if kind in ("var", "pi", "call"):
        return weights.get(node[1]) if kind == "var" else None
    if (kind == "/" and not _constant(node[2])) or (kind == "**" and node[2] < 0 and not _constant(node[1])):
        return None
    if kind == "**":
        base = exact_value(node[1], weights)
        return None if base is None or node[2].denominator > 1 else base ** int(node[2])
    below = [exact_value(child, weights) for child in node[1:]]
    return None if any(value is None for value in below) else _OPERATORS[kind](*below)


def _constant(node: Node) -> Fraction | None:
    """The exact value of a node without names or functions, else None."""
    found: Fraction | None = exact_value(node, {})
    return found


def to_sympy(formula: Formula) -> sympy.Expr:
    """Build the SymPy expression node by node.

    Raises ValueError if the expression is undefined everywhere (``1/(u - u)``).
    """
    import sympy

    def build(node: Node) -> sympy.Expr:
        kind = node[0]
        if kind == "num":
            return sympy.Rational(node[1].numerator, node[1].denominator)
        if kind == "var":
            return sympy.Symbol(node[1], real=True)
        if kind == "pi":
            return sympy.pi
        if kind == "call":
            return getattr(sympy, node[1])(build(node[2]))
        if kind == "**":
            return build(node[1]) ** sympy.Rational(node[2].numerator, node[2].denominator)
        return _OPERATORS[kind](*map(build, node[1:]))

    expression = build(formula.tree)
    if expression.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ValueError(f"`formula` {formula.text!r} is undefined: it divides by zero.")
    if expression.has(sympy.I):
        raise ValueError(f"`formula` {formula.text!r} is not real: it equals {expression}.")
    if expression.has(sympy.Abs, sympy.sign, sympy.Piecewise, sympy.re, sympy.im, sympy.arg):
        raise ValueError(f"`formula` {formula.text!r} is not analytic: it equals {expression}.")
    return expression


_OPERATORS: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def _check_constants(tree: Node, text: str) -> None:
    """Evaluate every part without weights in floats.

    Raises ValueError if one is not a finite real number (``log(-1)``, ``exp(exp(9))``), on which SymPy might not
    terminate.
    """

    def value(node: Node) -> float | None:
        found = compute(node)
        if isinstance(found, complex) or (found is not None and not math.isfinite(found)):
            raise OverflowError
        return found

    def compute(node: Node) -> Any:
        kind = node[0]
        if kind == "num":
            return float(node[1])
        if kind == "pi":
            return math.pi
        if kind == "var":
            return None
        below = [value(child) for child in node[1:] if isinstance(child, tuple)]
        if None in below:
            return None
        if kind == "call":
            return getattr(math, node[1])(below[0])
        if kind == "**":
            return below[0] ** float(node[2])  # type: ignore[operator]
        return _OPERATORS[kind](*below)

    try:
        value(tree)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise ValueError(f"`formula` {text!r}: a constant in it is not a finite real number.") from None
