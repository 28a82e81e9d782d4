"""Flows of many formulas in arbitrary precision, from 1 down to scales of initialisation far below floats.

What stands still of alpha in the unknowns is left to the right-hand side: quadratic forms move along their duals, whose
exponentials are taken in full, all others along angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gmpy2
import numpy as np
from gmpy2 import mpfr

from tests.flows.angles import FORMULAS, Angles
from tests.flows.collocation import Collocation
from tests.fuzz import oracles
from tests.fuzz.oracles import Data, Number, Products

DIGITS = 60
QUADRATIC = ("2*u**2-v**2", "u*v+w**2", "2*u**2+u*v-v**2")
PRODUCTS = ("u*v*w", "u*v*w*z")
ALL = (*FORMULAS, *QUADRATIC, *PRODUCTS)


def weights_of(formula: str) -> tuple[str, ...]:
    return {**dict.fromkeys(ALL, ("u", "v")), "u*v+w**2": ("u", "v", "w"), "u*v*w": ("u", "v", "w"),
            "u*v*w*z": ("u", "v", "w", "z")}[formula]  # fmt: skip


def accelerated_unit(formula: str, alpha: str) -> Number:
    """Of accelerated time; 1 at alpha = 1."""
    with oracles.precision(DIGITS):
        small, order = 1 / mpfr(alpha), len(weights_of(formula)) if formula in PRODUCTS else 2
        return mpfr(1) if small == 1 else gmpy2.log(small) if order == 2 else small ** (order - 2)


class Quadratic:
    """Coordinates of a quadratic form of weights ``start`` (k, d), by their duals."""

    def __init__(self, formula: str, start: list[list]) -> None:
        self.rates, self.squares = oracles.components(formula, weights_of(formula), start)
        self.start = [mpfr(0)] * len(start[0])

    def beta(self, z: list) -> list:
        return [
            sum(
                rate * own[i] * gmpy2.exp(4 * rate * dual)
                for rate, own in zip(self.rates, self.squares, strict=True) if own[i]
            )
            for i, dual in enumerate(z)
        ]  # fmt: skip

    def speed(self, z: list) -> list:
        return [mpfr(1)] * len(z)


def exact_flow(
    formula: str, X: np.ndarray, y: np.ndarray, alpha: str, start: np.ndarray, times: Sequence[float],
    log_scales: np.ndarray | None = None, unit: Any = 1.0,
) -> np.ndarray:  # fmt: skip
    """beta (T, d) at ``unit times`` from ``alpha exp(log_scales) start``, both (k, d), under squares."""
    logs = np.zeros(np.shape(start)) if log_scales is None else log_scales
    with oracles.precision(DIGITS):
        data = Data(np.asarray(X, dtype=float), np.asarray(y, dtype=float))
        small = -float(gmpy2.log10(mpfr(alpha))) - float(np.min(logs)) / np.log(10.0)
    growth: Any
    with oracles.precision(DIGITS + int(4 * max(15.0, small)) * (formula in FORMULAS)):
        weights = [
            [mpfr(alpha) * gmpy2.exp(mpfr(float(log))) * mpfr(float(w)) for w, log in zip(row, own, strict=True)]
            for row, own in zip(start, logs, strict=True)
        ]
        if formula in FORMULAS:
            growth = Angles(formula, weights)
        else:
            growth = Quadratic(formula, weights) if formula in QUADRATIC else Products(weights)

    def field(q: list) -> list:
        return [-g * s for g, s in zip(data.gradient(growth.beta(q)), growth.speed(q), strict=True)]

    with oracles.precision(DIGITS):
        flow = Collocation(field, growth.start)
        return np.array([[float(b) for b in growth.beta(flow.to(mpfr(unit) * mpfr(float(t))))] for t in times])
