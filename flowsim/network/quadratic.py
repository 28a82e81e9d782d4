"""Recognising quadratic forms: the formulas whose flows are exact in growth coordinates."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowsim.network.formula import Formula, Node

Monomial = tuple[tuple[str, int], ...]
Polynomial = dict[Monomial, Fraction]

#: A sum below this many rounding errors of its terms is an exact zero.
ZERO = 16 * float(np.finfo(float).eps)
#: A quadratic form in k weights has k (k + 1) / 2 terms; an expansion with many more is abandoned.
_MAX_TERMS = 500


@lru_cache(maxsize=1024)
def quadratic_form(formula: Formula) -> NDArray[np.float64] | None:
    """The symmetric M (k, k) with ``phi(w) = w^T M w`` over ``formula.weights``, or None if phi is not quadratic.

    The array is shared between calls and read-only.
    """
    polynomial = _expand(formula.tree)
    if polynomial is None:
        return None
    index = {name: position for position, name in enumerate(formula.weights)}
    form = np.zeros((len(index), len(index)))
    for monomial, coefficient in polynomial.items():
        if coefficient == 0:
            continue
        names = [name for name, power in monomial for _ in range(power)]
        if len(names) != 2:
            return None
        a, b = index[names[0]], index[names[1]]
        form[a, b] += float(coefficient) / 2
        form[b, a] += float(coefficient) / 2
    form.setflags(write=False)
    return form


def _expand(node: Node) -> Polynomial | None:
    kind = node[0]
    if kind == "num":
        return {(): node[1]}
    if kind == "var":
        return {((node[1], 1),): Fraction(1)}
    if kind == "neg":
        return _scale(_expand(node[1]), Fraction(-1))
    if kind in ("+", "-"):
        left, right = _expand(node[1]), _expand(node[2])
        if left is None or right is None:
            return None
        sign = 1 if kind == "+" else -1
        total = dict(left)
        for monomial, coefficient in right.items():
            total[monomial] = total.get(monomial, Fraction(0)) + sign * coefficient
        return total if len(total) <= _MAX_TERMS else None
    if kind == "*":
        return _multiply(_expand(node[1]), _expand(node[2]))
    if kind == "/":
        divisor = _expand(node[2])
        if divisor is None or any(monomial for monomial in divisor) or not divisor.get((), Fraction(0)):
            return None
        return _scale(_expand(node[1]), 1 / divisor[()])
    if kind == "**" and node[2].denominator == 1 and node[2] >= 0:
        base = _expand(node[1])
        power: Polynomial = {(): Fraction(1)}
        for _ in range(int(node[2])):
            product = _multiply(power, base)
            if product is None:
                return None
            power = product
        return power
    return None


def _scale(polynomial: Polynomial | None, factor: Fraction) -> Polynomial | None:
    return None if polynomial is None else {monomial: factor * value for monomial, value in polynomial.items()}


def _multiply(left: Polynomial | None, right: Polynomial | None) -> Polynomial | None:
    if left is None or right is None or len(left) * len(right) > _MAX_TERMS**2:
        return None
    total: Polynomial = {}
    for first, a in left.items():
        for second, b in right.items():
            powers = dict(first)
            for name, power in second:
                powers[name] = powers.get(name, 0) + power
            monomial = tuple(sorted(powers.items()))
            total[monomial] = total.get(monomial, Fraction(0)) + a * b
    return total if len(total) <= _MAX_TERMS else None
