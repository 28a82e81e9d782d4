"""Writing a flow to the workspace."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import compiled
from flowsim.solvers.multistep.constants import FIRST
from flowsim.solvers.multistep.products import subtract_rows
from flowsim.solvers.multistep.workspace import Exponentials, Problem, Sizes, Workspace
from flowsim.solvers.simd import pointer, view

__all__ = ["write_problem"]


@compiled()
def write_problem(A, b, n, exponentials, room, table, with_gram):
    """Write a problem to a workspace of zeros: ``A^T A / n`` if asked for, ``A / sqrt(n)``, ``A^T b / n``, terms."""
    ws = Workspace(pointer(room, 0), pointer(table, 0))
    sizes, problem, to = view(Sizes, ws), view(Problem, ws), view(Exponentials, ws)
    wp = sizes.padded
    r, w = A.shape
    problem.count[0] = n
    scale, column = 1.0 / math.sqrt(n), problem.row_work
    for q in range(r):
        for i in range(w):
            problem.design[q * wp + i] = scale * A[q, i]
        problem.target[q] = scale * b[q]
        column[q] = -problem.target[q]
    subtract_rows(problem.design, wp, column, r, FIRST, wp, problem.drive, problem.drive)
    if with_gram:
        for i in range(w):
            for q in range(r):
                column[q] = -problem.design[q * wp + i]
            row = pointer(problem.gram, i * wp)
            subtract_rows(problem.design, wp, column, r, FIRST, wp, row, row)
    log_coefficient, sign, slope, decay = exponentials
    for k in range(sizes.terms):
        for i in range(w):
            at = k * wp + i
            to.log_coefficient[at], to.sign[at] = log_coefficient[k, i], sign[k, i]
            to.slope[at], to.decay[at] = slope[k, i], decay[k, i]
        for i in range(w, wp):
            to.log_coefficient[k * wp + i] = -np.inf
