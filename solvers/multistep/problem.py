"""Writing a flow to the workspace."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import bare, compiled, padded
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
from flowsim.solvers.simd import EIGHT, constant, load, magnitude, pointer, view, wider, widest


@compiled(explicit=True)
def write_problem(A, b, n, exponentials, reach, tol, room, table, compute_gram):
    """Write a problem to a workspace of zeros, with the bookkeeping of a run not begun.

    ``A / sqrt(n)``, ``A^T b / n``, terms, and scales; ``A^T A / n`` if asked for, else it stands there already if there
    is to be any. `reach` (w,) is what beta of a coordinate moves any z by, of size 0 to take it from ``A^T A / n``.
    """
    ws = Workspace(pointer(room, 0), pointer(table, 0))
    sizes, problem, to = view(Sizes, ws), view(Problem, ws), view(Exponentials, ws)
    wp = sizes.padded
    r, w = A.shape
    problem.count[0] = n
    scale, column = 1.0 / math.sqrt(n), problem.row_work
    for q in range(r):
        view(Loss, ws).curvature[q] = 1.0
        for i in range(w):
            problem.design[q * wp + i] = scale * A[q, i]
            if sizes.loss != 0:
                problem.columns[i * padded(r) + q] = -scale * A[q, i]
        problem.target[q] = scale * b[q]
        column[q] = -problem.target[q]
    subtract_rows(problem.design, wp, column, r, FIRST, wp, problem.drive, problem.drive)
    if compute_gram:
        for i in range(w):
            for q in range(r):
                column[q] = -problem.design[q * wp + i]
            row = pointer(problem.gram, i * wp)
            subtract_rows(problem.design, wp, column, r, FIRST, wp, row, row)
    for i in range(w):
        if sizes.has_gram != 0:
            problem.diagonal[i] = problem.gram[i * wp + i]
            continue
        for q in range(r):
            problem.diagonal[i] += problem.design[q * wp + i] ** 2
    log_coefficient, sign, slope, decay = exponentials
    for k in range(sizes.terms):
        for i in range(w):
            at = k * wp + i
            to.log_coefficient[at], to.sign[at] = log_coefficient[k, i], sign[k, i]
            to.slope[at], to.decay[at] = slope[k, i], decay[k, i]
        for i in range(w, wp):
            to.log_coefficient[k * wp + i] = -np.inf
    _write_scales(ws, reach, tol)


@bare()
def _write_scales(ws, reach, tol):
    """When a coordinate is active and what its error counts; every one in its own place, and no past."""
    sizes, scales, index, exponentials = view(Sizes, ws), view(Scales, ws), view(Index, ws), view(Exponentials, ws)
    gram, unlisted, spans, wp = view(Problem, ws).gram, view(Terms, ws).unlisted, view(History, ws).spans, sizes.padded
    for i in range(wp):
        scales.level[i] = np.inf
    for i in range(sizes.width):
        if len(reach) > 0:
            most = reach[i]
        else:
            entries = constant(0.0)
            for b in range(i * wp, (i + 1) * wp, EIGHT):
                entries = wider(magnitude(load(gram, b)), entries)
            most = widest(entries)
        scales.level[i] = math.log(NEGLIGIBLE * tol) - math.log(max(most, 1e-300))
        steepest = 0.0
        for a in range(i, sizes.terms * wp, wp):
            if exponentials.log_coefficient[a] > -np.inf:
                steepest = max(steepest, abs(exponentials.slope[a]))
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        scales.gain[i] = 0.5 * steepest
        index.coordinate[i] = index.place[i] = i
    note_reach(ws)
    for a in range(sizes.terms * wp):
        unlisted[a] = scales.level[a % wp]
    for a in range(HISTORY + 2):
        spans[a] = MISSING
