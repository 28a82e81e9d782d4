r"""One step of Gauss collocation for ``Z' = S(t) Z``, S given at the nodes.

The stages of ``Z_1' = G Z_2 - a Z_1`` are eliminated, which leaves a linear system for those of Z_2, of size
stages * p. With equal damping the propagator R satisfies ``R^T J R = J`` whatever the values of G: Gauss methods keep
quadratic invariants. Damping enters through the scalar method of each row, ``(1 + h a A)^{-1}``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.compilation import compiled
from flowsim.solvers.gauss import GaussTableau

__all__ = ["Damping", "Stages", "damping_of", "finish", "perturb", "products", "sensitivities", "stages"]

Array = NDArray[np.float64]


class Damping(NamedTuple):
    """The scalar method of each row: ``stage = start * ones + h * matrix @ forcing``; one row stands for all equal."""

    rows: Array
    row_ones: Array
    columns: Array
    column_ones: Array
    weights: Array
    rates_rows: Array
    rates_columns: Array


class Stages(NamedTuple):
    """Stage values (s, R, q) and (s, p, q), and the matrix of the eliminated system."""

    Z1: Array
    Z2: Array
    matrix: Array


def damping_of(tableau: GaussTableau, h: float, rates_rows: Array, rates_columns: Array) -> Damping:
    """For steps of length h; rates (1,) or one a row."""
    inverse = [
        np.linalg.inv(np.eye(tableau.stages) + h * rates[:, None, None] * tableau.a)
        for rates in (rates_rows, rates_columns)
    ]
    matrices = [np.ascontiguousarray(each @ tableau.a) for each in inverse]
    ones = [np.ascontiguousarray(each.sum(axis=2)) for each in inverse]
    return Damping(matrices[0], ones[0], matrices[1], ones[1], tableau.b, rates_rows, rates_columns)


@compiled()
def stages(G, h, damping, Z1, Z2):
    """All stages of the step from (Z1, Z2)."""
    s, R, p = G.shape
    q = Z1.shape[1]
    flat = np.empty((s * p, R))
    for j in range(s):
        for i in range(R):
            for c in range(p):
                flat[j * p + c, i] = G[j, i, c]
    matrix = np.zeros((s * p, s * p))
    equal = damping.rows.shape[0] == 1
    if equal:
        inner = np.dot(flat, flat.T)
        pulled = np.dot(flat, Z1)
    else:
        inner = np.empty((s * p, s * p))
        pulled = np.empty((s * p, q))
        scaled = np.empty((p, R))
        blocks = flat.reshape(s, p, R)
        for j in range(s):
            mine = blocks[j]
            for i in range(R):
                for c in range(p):
                    scaled[c, i] = mine[c, i] * damping.row_ones[i, j]
            pulled[j * p : (j + 1) * p] = np.dot(scaled, Z1)
            for m in range(s):
                for i in range(R):
                    for c in range(p):
                        scaled[c, i] = mine[c, i] * damping.rows[i, j, m]
                inner[j * p : (j + 1) * p, m * p : (m + 1) * p] = np.dot(scaled, blocks[m].T)
    right = np.zeros((s * p, q))
    for i in range(s):
        for c in range(p):
            own = 0 if damping.columns.shape[0] == 1 else c
            row = i * p + c
            matrix[row, row] = 1.0
            right[row] = damping.column_ones[own, i] * Z2[c]
            for j in range(s):
                weight = h * damping.columns[own, i, j]
                right[row] += (weight * damping.row_ones[0, j] if equal else weight) * pulled[j * p + c]
                for m in range(s):
                    factor = h * weight * damping.rows[0, j, m] if equal else h * weight
                    for d in range(p):
                        matrix[row, m * p + d] -= factor * inner[j * p + c, m * p + d]
    Y2 = np.ascontiguousarray(np.linalg.solve(matrix, right)).reshape(s, p, q)
    pushed = np.empty((s, R, q))
    for j in range(s):
        pushed[j] = np.dot(G[j], Y2[j])
    return Stages(_rows(pushed, h, damping, Z1), Y2, matrix)


@compiled()
def _rows(pushed, h, damping, Z1):
    """``ones * Z1 + h * matrix @ pushed`` row by row."""
    s, R, q = pushed.shape
    out = np.empty((s, R, q))
    for i in range(s):
        for r in range(R):
            own = 0 if damping.rows.shape[0] == 1 else r
            for c in range(q):
                total = damping.row_ones[own, i] * Z1[r, c]
                for j in range(s):
                    total += h * damping.rows[own, i, j] * pushed[j, r, c]
                out[i, r, c] = total
    return out


@compiled()
def finish(G, h, damping, at, Z1, Z2):
    """The end of the step."""
    E1, E2 = Z1.copy(), Z2.copy()
    for j in range(G.shape[0]):
        weight = h * damping.weights[j]
        E1 += weight * np.dot(G[j], at.Z2[j])
        E2 += weight * np.dot(G[j].T, at.Z1[j])
        for i in range(E1.shape[0]):
            rate = damping.rates_rows[0 if damping.rates_rows.shape[0] == 1 else i]
            if rate != 0.0:
                E1[i] -= weight * rate * at.Z1[j, i]
        for c in range(E2.shape[0]):
            rate = damping.rates_columns[0 if damping.rates_columns.shape[0] == 1 else c]
            if rate != 0.0:
                E2[c] -= weight * rate * at.Z2[j, c]
    return E1, E2


@compiled()
def products(Z1, Z2, gram, factors):
    """``factor * Z1 gram Z2^T`` at every stage."""
    s, R = Z1.shape[:2]
    out = np.empty((s, R, Z2.shape[1]))
    for j in range(s):
        out[j] = factors[j] * np.dot(Z1[j], np.dot(gram, Z2[j].T))
    return out


@compiled()
def perturb(G, h, damping, at, change):
    """The derivative of the stages along a change of G at the nodes, (s, R, q) and (s, p, q)."""
    s, R, p = G.shape
    q = at.Z1.shape[2]
    pushed = np.empty((s, R, q))
    for j in range(s):
        pushed[j] = np.dot(change[j], at.Z2[j])
    source = _rows(pushed, h, damping, np.zeros((R, q)))
    pulled = np.empty((s, p, q))
    for j in range(s):
        pulled[j] = np.dot(change[j].T, at.Z1[j]) + np.dot(G[j].T, source[j])
    right = np.zeros((s * p, q))
    for i in range(s):
        for c in range(p):
            own = 0 if damping.columns.shape[0] == 1 else c
            for j in range(s):
                right[i * p + c] += h * damping.columns[own, i, j] * pulled[j, c]
    d2 = np.ascontiguousarray(np.linalg.solve(at.matrix, right)).reshape(s, p, q)
    for j in range(s):
        pushed[j] = np.dot(G[j], d2[j])
    return source + _rows(pushed, h, damping, np.zeros((R, q))), d2


@compiled()
def sensitivities(G, h, damping, at, gram, factors):
    """The derivative of the products at the nodes along every entry of G at the nodes, (s R p, s, R, p)."""
    s, R, p = G.shape
    out = np.empty((s * R * p, s, R, p))
    change = np.zeros((s, R, p))
    for j in range(s):
        for i in range(R):
            for c in range(p):
                change[j, i, c] = 1.0
                d1, d2 = perturb(G, h, damping, at, change)
                change[j, i, c] = 0.0
                row = (j * R + i) * p + c
                first, second = products(d1, at.Z2, gram, factors), products(at.Z1, d2, gram, factors)
                for m in range(s):
                    out[row, m] = first[m] + second[m]
    return out
