"""Write the problem of a flow to the workspace."""

from __future__ import annotations

import math

import numpy as np
from numba import boolean, float64, types

from flowsim.solvers.compilation import INTEGERS, TABLE, VECTOR, bare, compiled, padded
from flowsim.solvers.multistep.constants import FIRST, HISTORY, MISSING, NEGLIGIBLE
from flowsim.solvers.multistep.loss import note_reach
from flowsim.solvers.multistep.products import subtract_rows
from flowsim.solvers.multistep.workspace import (
    Exponentials,
    History,
    Index,
    Loss,
    Problem,
    Scales,
    Sizes,
    Terms,
    Workspace,
)
from flowsim.solvers.simd import EIGHT, constant, load, magnitude, pointer, store, view, wider, widest

_CALL = (
    TABLE,
    types.UniTuple(VECTOR, 3),
    float64,
    float64[:, :, ::1],
    VECTOR,
    float64,
    VECTOR,
    INTEGERS,
    VECTOR,
    boolean,
)


@compiled(explicit=True, declared=_CALL)
def write_problem(A, by_rows, n, exponentials, reach, tol, buffer, table, known, is_whole):
    """Write a problem to a workspace, in the state before a run; returns the offset of its beginning in `buffer`.

    ``A / sqrt(n)``, ``A^T b / n``, terms, and scales.

    Parameters
    ----------
    by_rows : tuple of arrays
        b, and for a loss weights and offsets, of size 0 if absent.
    exponentials : array (4, K, w)
    reach : array (w,)
        Bound on the rate of change of any z by beta of a coordinate; of size 0 to compute it from ``A^T A / n``.
    buffer : array
        Zeros, apart from ``A^T A / n`` if it is used but not computed here.
    known : array
        A workspace that is copied to `buffer`, which then has a spare cache line, if it has the same data; else -1 is
        returned.
    is_whole : bool
        Of a known workspace, whether its terms and scales are right too; else whether ``A^T A / n`` is to be computed.
    """
    if len(known) == 0:
        ws = Workspace(pointer(buffer, 0), pointer(table, 0))
        _write_data(ws, A, by_rows, n, is_whole)
        _write_terms(ws, exponentials, reach, tol)
        return 0
    if not _holds(Workspace(pointer(known, 0), pointer(table, 0)), A, by_rows, n):
        return -1
    first = -(buffer.ctypes.data // 8) % EIGHT
    ws = Workspace(pointer(buffer, first), pointer(table, 0))
    for b in range(0, len(known), EIGHT):
        store(ws.buffer, b, load(known, b))
    if not is_whole:
        _write_terms(ws, exponentials, reach, tol)
    return first


@bare()
def _write_data(ws, A, by_rows, n, compute_gram):
    sizes, problem, loss = view(Sizes, ws), view(Problem, ws), view(Loss, ws)
    b, weights, offset = by_rows
    stride = sizes.padded
    r, w = A.shape
    problem.count[0] = n
    scale, column = 1.0 / math.sqrt(n), problem.row_work
    for q in range(r):
        loss.target[q], loss.curvature[q] = b[q], 1.0
        loss.weight[q] = weights[q] if len(weights) > 0 else 1.0
        loss.offset[q] = offset[q] if len(offset) > 0 else 0.0
        for i in range(w):
            problem.design[q * stride + i] = scale * A[q, i]
            if sizes.has_columns != 0:
                problem.columns[i * padded(r) + q] = -scale * A[q, i]
        problem.target[q] = scale * b[q]
        column[q] = -problem.target[q]
    subtract_rows(problem.design, stride, column, r, FIRST, stride, problem.drive, problem.drive)
    if compute_gram:
        for i in range(w):
            for q in range(r):
                column[q] = -problem.design[q * stride + i]
            row = pointer(problem.gram, i * stride)
            subtract_rows(problem.design, stride, column, r, FIRST, stride, row, row)
    for i in range(w):
        if sizes.has_gram != 0:
            problem.diagonal[i] = problem.gram[i * stride + i]
            continue
        for q in range(r):
            problem.diagonal[i] += problem.design[q * stride + i] ** 2


@bare()
def _holds(ws, A, by_rows, n):
    """Whether a workspace has bitwise the same data."""
    sizes, problem, loss = view(Sizes, ws), view(Problem, ws), view(Loss, ws)
    b, weights, offset = by_rows
    scale, same = 1.0 / math.sqrt(n), problem.count[0] == n
    r, w = A.shape
    for q in range(r):
        same &= (loss.target[q] == b[q]) & (loss.weight[q] == (weights[q] if len(weights) > 0 else 1.0))
        same &= loss.offset[q] == (offset[q] if len(offset) > 0 else 0.0)
        for i in range(w):
            same &= problem.design[q * sizes.padded + i] == scale * A[q, i]
    return same


@bare()
def _write_terms(ws, exponentials, reach, tol):
    """Write the exponentials and quantities that depend on them."""
    sizes, to = view(Sizes, ws), view(Exponentials, ws)
    w, stride = sizes.width, sizes.padded
    for k in range(sizes.terms):
        for i in range(w):
            at = k * stride + i
            to.log_coefficient[at], to.sign[at] = exponentials[0, k, i], exponentials[1, k, i]
            to.slope[at], to.decay[at] = exponentials[2, k, i], exponentials[3, k, i]
        for i in range(w, stride):
            to.log_coefficient[k * stride + i] = -np.inf
    _write_scales(ws, reach, tol)


@bare()
def _write_scales(ws, reach, tol):
    """Write levels of activity and weights of errors; reset the order of coordinates and the history."""
    sizes, scales, index, exponentials = view(Sizes, ws), view(Scales, ws), view(Index, ws), view(Exponentials, ws)
    gram, unlisted, spans = view(Problem, ws).gram, view(Terms, ws).unlisted, view(History, ws).spans
    stride = sizes.padded
    for i in range(stride):
        scales.level[i] = np.inf
    for i in range(sizes.width):
        if len(reach) > 0:
            most = reach[i]
        else:
            entries = constant(0.0)
            for b in range(i * stride, (i + 1) * stride, EIGHT):
                entries = wider(magnitude(load(gram, b)), entries)
            most = widest(entries)
        scales.level[i] = math.log(NEGLIGIBLE * tol) - math.log(max(most, 1e-300))
        steepest = 0.0
        for a in range(i, sizes.terms * stride, stride):
            if exponentials.log_coefficient[a] > -np.inf:
                steepest = max(steepest, abs(exponentials.slope[a]))
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        scales.gain[i] = 0.5 * steepest
        index.coordinate[i] = index.place[i] = i
    note_reach(ws)
    for a in range(sizes.terms * stride):
        unlisted[a] = scales.level[a % stride]
    for a in range(HISTORY + 2):
        spans[a] = MISSING
