r"""One step of Gauss collocation for ``Z' = S(t) Z``, S given at the nodes.

The stages of ``Z_1' = G Z_2 - a Z_1`` are eliminated, which leaves a linear system for those of Z_2, of size
stages * p. With equal damping the propagator R satisfies ``R^T J R = J`` whatever the values of G: Gauss methods keep
quadratic invariants. Damping enters through the scalar method of each row, ``(1 + h a A)^{-1}``.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import FAST, bare
from flowsim.solvers.gauss import GaussTableau, gauss_tableau
from flowsim.solvers.matrices.algebra import (
    add,
    add_combinations,
    add_product,
    copy,
    product,
    product_nt,
    product_tn,
    scale_blocks,
    solve,
)
from flowsim.solvers.matrices.bare_arrays import call_at, shaped
from flowsim.solvers.matrices.calls import Entry, separate
from flowsim.solvers.matrices.scratch import empty, in_use, release, zeros


class Damping(NamedTuple):
    """The scalar method of each row: ``stage = start * ones + h * matrix @ forcing``; one row stands for all equal.

    Matrices are (rows, s, s), ones (rows, s, 1), weights (s,), rates (rows,).
    """

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
    """The scalar methods for steps of length h; rates (1,) or one per row."""
    if len(rates_rows) == len(rates_columns) == 1 and not (rates_rows.any() or rates_columns.any()):
        return _undamped(tableau)
    return _damped(tableau, h, rates_rows, rates_columns)


@cache
def _undamped(tableau: GaussTableau) -> Damping:
    return _damped(tableau, 0.0, np.zeros(1), np.zeros(1))


def _damped(tableau: GaussTableau, h: float, rates_rows: Array, rates_columns: Array) -> Damping:
    inverse = [
        np.linalg.inv(np.eye(tableau.stages) + h * rates[:, None, None] * tableau.a)
        for rates in (rates_rows, rates_columns)
    ]
    matrices = [np.ascontiguousarray(each @ tableau.a) for each in inverse]
    ones = [np.ascontiguousarray(each.sum(axis=2, keepdims=True)) for each in inverse]
    return Damping(matrices[0], ones[0], matrices[1], ones[1], tableau.b, rates_rows, rates_columns)


@bare()
def _pulled(work, G, damping, Z1):
    """``G_j^T (ones_j Z_1)`` of all stages, (s p, q), and ``G_j^T matrix_jm G_m`` of all pairs, (s p, s p)."""
    s, R, p = G.shape
    if damping.rows.shape[0] == 1:
        flat = empty(work, (R, s * p))
        for j in range(s):
            for i in range(R):
                for c in range(p):
                    flat[i, j * p + c] = G[j, i, c]
        return product_tn(work, flat, Z1), product_tn(work, flat, flat)
    inner, pulled = empty(work, (s * p, s * p)), empty(work, (s * p, Z1.shape[1]))
    scaled = empty(work, (R, p))
    for j in range(s):
        for i in range(R):
            for c in range(p):
                scaled[i, c] = G[j, i, c] * damping.row_ones[i, j, 0]
        block = product_tn(work, scaled, Z1)
        for c in range(p):
            for a in range(Z1.shape[1]):
                pulled[j * p + c, a] = block[c, a]
        for m in range(s):
            for i in range(R):
                for c in range(p):
                    scaled[i, c] = G[j, i, c] * damping.rows[i, j, m]
            block = product_tn(work, scaled, G[m])
            for c in range(p):
                for e in range(p):
                    inner[j * p + c, m * p + e] = block[c, e]
    return pulled, inner


@bare()
def _eliminated(work, h, damping, pulled, inner, Z2, s):
    """Matrix and right-hand side of the system for the stages of Z_2; changes `pulled` and `inner`."""
    p, q = Z2.shape
    matrix, right = zeros(work, (s * p, s * p)), zeros(work, (s * p, q))
    if damping.rows.shape[0] == 1:
        scale_blocks(inner, damping.rows[0])
        scale_blocks(pulled, damping.row_ones[0])
    add_combinations(right, 1.0, damping.column_ones, Z2)
    add_combinations(right, h, damping.columns, pulled)
    add_combinations(matrix, -h * h, damping.columns, inner)
    for row in range(s * p):
        matrix[row, row] += 1.0
    return matrix, right


@bare()
def _rows(pushed, h, damping, Z1, out):
    """Add ``ones * Z1 + h * matrix @ pushed`` to `out`, by the scalar method of each row."""
    add_combinations(out, 1.0, damping.row_ones, Z1)
    add_combinations(out, h, damping.rows, pushed)


@bare()
def _finish(work, G, h, damping, pushed, start, at, end):
    """Compute the end of the step from its stages; `pushed`: ``G_j Z_2`` of all stages."""
    s, b = len(G), damping.weights
    copy(start[0], end[0])
    copy(start[1], end[1])
    add_combinations(end[0], h, shaped(b, 0, (1, 1, s), 0.0), pushed)
    for j in range(s):
        add(end[1], h * b[j], product_tn(work, G[j], at.Z1[j]))
    _add_damping(work, h, damping.rates_rows, b, at.Z1, end[0])
    _add_damping(work, h, damping.rates_columns, b, at.Z2, end[1])


@bare()
def _add_damping(work, h, rates, b, stages, end):
    weights = empty(work, (len(rates), 1, len(b)))
    for own in range(len(rates)):
        for j in range(len(b)):
            weights[own, 0, j] = rates[own] * b[j]
    add_combinations(end, -h, weights, stages)


def _examples() -> tuple[Any, ...]:
    G, matrix = np.zeros((1, 1, 1)), np.zeros((1, 1))
    return G, 0.0, _undamped(gauss_tableau(1)), (matrix, matrix), Stages(G, G, matrix), (matrix, matrix)


@separate(_examples)
@bare()
def propagation(work, G, h, damping, start, at, end):
    """Fill the stages `at`, Z1 zero before, of the step from the halves `start`, and the halves `end` unless empty."""
    s, R = G.shape[:2]
    q, used = start[0].shape[1], in_use(work)
    pulled, inner = _pulled(work, G, damping, start[0])
    matrix, right = _eliminated(work, h, damping, pulled, inner, start[1], s)
    copy(matrix, at.matrix)
    copy(solve(work, matrix, right), at.Z2)
    pushed = zeros(work, (s, R, q))
    for j in range(s):
        add_product(G[j], at.Z2[j], pushed[j])
    _rows(pushed, h, damping, start[0], at.Z1)
    if end[0].size > 0:
        _finish(work, G, h, damping, pushed, start, at, end)
    release(work, used)


@bare()
def propagated(work, propagator, G, h, damping, Z1, Z2):
    """The stages of the step from (Z1, Z2), and its end; `propagator`: :func:`propagation`."""
    at, end = _stages_like(work, G, Z1), (empty(work, Z1.shape), empty(work, Z2.shape))
    call_at(propagator, (work, G, h, damping, (Z1, Z2), at, end))
    return at, end


@bare()
def stages(work, propagator, G, h, damping, Z1, Z2):
    """The stages alone."""
    at, nothing = _stages_like(work, G, Z1), (empty(work, (0, 0)), empty(work, (0, 0)))
    call_at(propagator, (work, G, h, damping, (Z1, Z2), at, nothing))
    return at


@bare()
def _stages_like(work, G, Z1):
    (s, R, p), q = G.shape, Z1.shape[1]
    return Stages(zeros(work, (s, R, q)), empty(work, (s, p, q)), empty(work, (s * p, s * p)))


def _propagating_examples() -> tuple[Any, ...]:
    G, h, damping, halves, _, _ = _examples()
    return 0, G, h, damping, *halves


_propagate = Entry(propagated, _propagating_examples)


def propagate(G: Array, h: float, damping: Damping, Z1: Array, Z2: Array) -> tuple[Stages, tuple[Array, Array]]:
    """The stages of the step from (Z1, Z2), and its end, of arrays."""
    found: tuple[Stages, tuple[Array, Array]] = _propagate(propagation, G, h, damping, Z1, Z2)
    return found


@bare(fastmath=FAST)
def products(work, Z1, Z2, gram, factors):
    """``factor * Z1 gram Z2^T`` at every stage; an empty `gram` is the identity."""
    s, R = Z1.shape[:2]
    p = Z2.shape[1]
    out = empty(work, (s, R, p))
    for j in range(s):
        other = Z2[j] if gram.shape[0] == 0 else product(work, Z2[j], gram)
        whole = product_nt(work, Z1[j], other)
        for i in range(R):
            for c in range(p):
                out[j, i, c] = factors[j] * whole[i, c]
    return out


@bare(fastmath=FAST)
def perturb(work, G, h, damping, at, change):
    """The derivative of the stages along a change of G at the nodes, (s, R, q) and (s, p, q)."""
    s, R, p = G.shape
    q = at.Z1.shape[2]
    pushed, nothing = zeros(work, (s, R, q)), zeros(work, (R, q))
    for j in range(s):
        add_product(change[j], at.Z2[j], pushed[j])
    source, moved = zeros(work, (s, R, q)), zeros(work, (s, R, q))
    _rows(pushed, h, damping, nothing, source)
    pulled, right = empty(work, (s, p, q)), zeros(work, (s * p, q))
    for j in range(s):
        copy(product_tn(work, change[j], at.Z1[j]), pulled[j])
        add(pulled[j], 1.0, product_tn(work, G[j], source[j]))
    add_combinations(right, h, damping.columns, pulled)
    d2 = shaped(solve(work, at.matrix, right), 0, (s, p, q), 0.0)
    pushed = zeros(work, (s, R, q))
    for j in range(s):
        add_product(G[j], d2[j], pushed[j])
    _rows(pushed, h, damping, nothing, moved)
    add(moved, 1.0, source)
    return moved, d2


def _stages_examples() -> tuple[Any, ...]:
    G, h, damping, _, at, _ = _examples()
    return G, h, damping, at, G


#: Entry points for Python.
multiply = Entry(products, lambda: (np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros(1)))
differentiate = Entry(perturb, _stages_examples)
