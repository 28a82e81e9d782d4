"""Linear solves with the iteration matrix of many active coordinates, by a factor in the coordinates or the rows of A.

Few flows need it: the loop calls it by address, and it is compiled on first
use.
"""

from __future__ import annotations

import math
from functools import cache

from numba import carray

from flowsim.solvers.compilation import FAST, compiled_callback, padded, part
from flowsim.solvers.compiled_algebra import factor, invert, substitute
from flowsim.solvers.multistep.constants import BY_ROWS, FIRST, SMALL
from flowsim.solvers.multistep.iteration_matrix import PREPARE
from flowsim.solvers.multistep.products import subtract_rows
from flowsim.solvers.multistep.workspace import Active, Matrix, Problem, Sizes, Workspace
from flowsim.solvers.simd import view


@part(fastmath=FAST)
def _prepare_by_rows(ws):
    """Compute the inverse or the factor of ``I + A W A^T / n``."""
    problem, sizes, active, matrix = view(Problem, ws), view(Sizes, ws), view(Active, ws), view(Matrix, ws)
    r, stride, design, weighted = sizes.rows, sizes.padded, problem.design, matrix.work
    M, pivots = carray(matrix.factor, (sizes.factor, sizes.factor)), matrix.pivots
    for p in range(r):
        for s in range(active.padded):
            weighted[s] = matrix.weight[s] * design[p * stride + s]
        for q in range(p + 1):
            total = 0.0
            for s in range(active.padded):
                total += weighted[s] * design[q * stride + s]
            if sizes.loss != 0:
                total *= math.sqrt(matrix.curvature[p] * matrix.curvature[q])
            M[p, q] = M[q, p] = total
        M[p, p] += 1.0
    return invert(M, r, padded(r), matrix.second) if r < SMALL else factor(M, pivots, r)


@part(fastmath=FAST)
def _weighted_entry(ws, i, j):
    """An entry of the Hessian of a loss."""
    sizes, design, curvature, total = view(Sizes, ws), view(Problem, ws).design, view(Matrix, ws).curvature, 0.0
    for q in range(sizes.rows):
        total += curvature[q] * design[q * sizes.padded + i] * design[q * sizes.padded + j]
    return total


@part(fastmath=FAST)
def _prepare_by_coordinates(ws):
    """Compute the factor of ``I + W^1/2 G W^1/2``."""
    problem, sizes, active, matrix = view(Problem, ws), view(Sizes, ws), view(Active, ws), view(Matrix, ws)
    M, root, gram = carray(matrix.factor, (sizes.factor, sizes.factor)), matrix.root, problem.gram
    for s in range(active.n):
        root[s] = math.sqrt(matrix.weight[s])
    for s in range(active.n):
        for j in range(s + 1):
            entry = gram[s * sizes.padded + j] if sizes.by_design == 0 else _weighted_entry(ws, s, j)
            M[s, j] = root[s] * entry * root[j]
        M[s, s] += 1.0
    return factor(M, matrix.pivots, active.n)


@part(fastmath=FAST)
def _solve_by_rows(ws, v):
    problem, sizes, active, matrix = view(Problem, ws), view(Sizes, ws), view(Active, ws), view(Matrix, ws)
    r, stride, design = sizes.rows, sizes.padded, problem.design
    M, weighted = carray(matrix.factor, (sizes.factor, sizes.factor)), matrix.work
    in_rows, solved = matrix.rows, matrix.solution
    for s in range(active.padded):
        weighted[s] = matrix.weight[s] * v[s]
    for q in range(r):
        total = 0.0
        for s in range(active.padded):
            total += design[q * stride + s] * weighted[s]
        in_rows[q] = total
    if sizes.loss != 0:
        for q in range(r):
            in_rows[q] *= math.sqrt(matrix.curvature[q])
    if r < SMALL:
        for p in range(r):
            total = 0.0
            for q in range(r):
                total += M[p, q] * in_rows[q]
            solved[p] = total
    else:
        for q in range(r):
            solved[q] = in_rows[q]
        substitute(M, matrix.pivots, solved, r)
    for q in range(r):
        value = solved[q] if sizes.loss == 0 else solved[q] * math.sqrt(matrix.curvature[q])
        for s in range(active.padded):
            v[s] -= value * design[q * stride + s]


@part(fastmath=FAST)
def _solve_by_coordinates(ws, v):
    problem, sizes, active, matrix = view(Problem, ws), view(Sizes, ws), view(Active, ws), view(Matrix, ws)
    M, x, root = carray(matrix.factor, (sizes.factor, sizes.factor)), matrix.work, matrix.root
    for s in range(active.n):
        x[s] = root[s] * v[s]
    substitute(M, matrix.pivots, x, active.n)
    for s in range(active.n):
        x[s] *= root[s]
    if sizes.by_design == 0:
        subtract_rows(problem.gram, sizes.padded, x, active.n, FIRST, active.padded, v, v)
        return
    for q in range(sizes.rows):
        total = 0.0
        for s in range(active.n):
            total += problem.design[q * sizes.padded + s] * x[s]
        matrix.rows[q] = matrix.curvature[q] * total
    subtract_rows(problem.design, sizes.padded, matrix.rows, sizes.rows, FIRST, active.padded, v, v)


@cache
def address() -> int:
    """Address of the function ``(task, buffer, table, v)``, which returns 0 for a singular matrix."""

    def factored(task, buffer, table, v):
        ws = Workspace(buffer, table)
        by_rows = view(Active, ws).solver == BY_ROWS
        if task == PREPARE:
            return int(_prepare_by_rows(ws) if by_rows else _prepare_by_coordinates(ws))
        if by_rows:
            _solve_by_rows(ws, v)
        else:
            _solve_by_coordinates(ws, v)
        return 1

    found = compiled_callback("int64(int64, CPointer(float64), CPointer(int64), CPointer(float64))")(factored)
    return int(found.address)
