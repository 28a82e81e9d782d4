"""Modes of a quadratic form: the components in which flow and descent multiply.

For ``phi(w) = w^T M w`` with eigenvectors q_k and eigenvalues mu_k the components ``c_k = q_k^T w`` each move on their
own given the gradient: ``c_k' = -2 mu_k g c_k``. For ``u*v`` they are u + v and u - v.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowsim.network.formula import Formula
from flowsim.network.quadratic import quadratic_form

__all__ = ["ZERO", "components", "conserved_exponents", "diagonalise", "invariant_names"]

Array = NDArray[np.float64]

#: What is below this many roundings of the terms it is made of is an exact zero.
ZERO = 16 * np.finfo(float).eps


@lru_cache(maxsize=1024)
def diagonalise(formula: Formula, weights: tuple[str, ...]) -> tuple[Array, Array]:
    """Eigenvalues (k,) and orthogonal, not normalised, eigenvectors (k, k) over the network's weights.

    Shared between calls, read-only.
    """
    form = quadratic_form(formula)
    assert form is not None
    own = [weights.index(name) for name in formula.weights]
    if form.shape == (2, 2) and not np.diag(form).any():
        # u + v and u - v without square roots: a start with u = ±v cancels exactly.
        values, vectors = form[0, 1] * np.array([1.0, -1.0]), np.array([[1.0, 1.0], [1.0, -1.0]])
    elif not (form - np.diag(np.diag(form))).any():
        values, vectors = np.diag(form).copy(), np.eye(len(form))
    else:
        values, vectors = np.linalg.eigh(form)
        values[np.abs(values) <= ZERO * np.abs(values).max()] = 0.0
    all_values, all_vectors = np.zeros(len(weights)), np.zeros((len(weights), len(weights)))
    all_values[: len(own)] = values
    all_vectors[own, : len(own)] = vectors
    for column, other in enumerate((a for a in range(len(weights)) if a not in own), start=len(own)):
        all_vectors[other, column] = 1.0
    for each in (all_values, all_vectors):
        each.setflags(write=False)
    return all_values, all_vectors


def components(vectors: Array, w: Array) -> Array:
    """``c_k = q_k^T w`` for weights (k, d): exactly zero where only rounding of a cancellation is left."""
    c: Array = vectors.T @ w
    if (vectors != np.round(vectors)).any():  # sums and differences of weights cancel exactly by themselves
        c[np.abs(c) <= ZERO * (np.abs(vectors).T @ np.abs(w))] = 0.0
    return c


def conserved_exponents(values: Array) -> Array:
    """Rows e with ``e . values = 0``, pairing the first component with each other one."""
    rows = np.zeros((len(values) - 1, len(values)))
    for row, k in enumerate(range(1, len(values))):
        if values[k] == 0:
            rows[row, k] = 1.0
        elif values[0] == 0:
            rows[row, 0] = 1.0
        else:
            ratio = Fraction(float(values[k] / values[0])).limit_denominator(64)
            exact = abs(float(ratio) - values[k] / values[0]) <= ZERO * abs(values[k] / values[0])
            rows[row, 0], rows[row, k] = (
                (-ratio.numerator, ratio.denominator) if exact else (-values[k] / values[0], 1.0)
            )
    return rows


def invariant_names(formula: Formula, weights: tuple[str, ...], vectors: Array, exponents: Array) -> tuple[str, ...]:
    def component(k: int) -> str:
        terms = [(vectors[a, k], name) for a, name in enumerate(weights) if vectors[a, k] != 0]
        if len(terms) == 1:
            return terms[0][1]
        text = " ".join(f"{'-' if value < 0 else '+'} {_times(abs(value), name)}" for value, name in terms)
        return f"({text.removeprefix('+ ')})"

    def power(k: int, exponent: float) -> str:
        return component(k) if exponent == 1 else f"{component(k)}**{exponent:g}"

    factors = formula.product_of
    names = []
    for row in exponents:
        if factors is not None and len(factors) == 2 and (row[:2] == 1).all() and not row[2:].any():
            names.append(f"{factors[0]}**2 - {factors[1]}**2")
        else:
            names.append("*".join(power(k, e) for k, e in enumerate(row) if e != 0))
    return tuple(names)


def _times(value: float, name: str) -> str:
    return name if value == 1 else f"{value:.4g}*{name}"
