r"""The iteration matrix ``I + G W``, ``W = theta D``, and what solves with it.

The matrix of a step's equations is nearly its square. By the symmetric ``S = (G^-1 + W)^-1``, for few active
coordinates, ``(I + G W)^{-1} v = v - S W v``; else by a factor (:mod:`flowsim.solvers.multistep.factors`, which is
called by its address and compiled when first needed).
"""

from __future__ import annotations

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.constants import BY_INVERSE, FIRST
from flowsim.solvers.multistep.inverse import update_inverse
from flowsim.solvers.multistep.loss import weighted_gram
from flowsim.solvers.multistep.products import subtract_gram, subtract_rows
from flowsim.solvers.multistep.workspace import Active, Loss, Matrix, Problem, Sizes, Values
from flowsim.solvers.simd import EIGHT, call, constant, load, magnitude, store, view, wider, widest

#: What the factored solvers are asked for.
PREPARE, SOLVE = range(2)
#: What the method in graded rows is asked for.
STEP, FILTER = range(2)


@bare(forceinline=True)
def scaled(scale, values, count, out):
    for b in range(0, count, EIGHT):
        store(out, b, load(scale, b) * load(values, b))


@bare(forceinline=True)
def copied(values, count, out):
    for b in range(0, count, EIGHT):
        store(out, b, load(values, b))


@bare(forceinline=True)
def size(values, gain, count):
    """The largest ``gain |value|``."""
    most = constant(0.0)
    for b in range(0, count, EIGHT):
        most = wider(load(gain, b) * magnitude(load(values, b)), most)
    return widest(most)


@bare(forceinline=True)
def _copy_gram(ws, S):
    active, sizes, gram = view(Active, ws), view(Sizes, ws), view(Problem, ws).gram
    for s in range(active.n):
        for b in range(0, active.padded, EIGHT):
            store(S, s * sizes.inverse + b, load(gram, s * sizes.padded + b))


@bare()
def renew(ws, theta):
    """W = theta D, what it can do to one coordinate alone at most, and what solves with it; False if singular."""
    active, sizes, matrix = view(Active, ws), view(Sizes, ws), view(Matrix, ws)
    by_z, diagonal, S = view(Values, ws).by_z, view(Problem, ws).diagonal, matrix.inverse
    if sizes.by_design != 0:
        for q in range(sizes.rows):
            matrix.curvature[q] = view(Loss, ws).curvature[q]
    if active.solver == BY_INVERSE:
        if sizes.by_design != 0:
            weighted_gram(ws, S, sizes.inverse)
        else:
            _copy_gram(ws, S)
        for s in range(active.n):
            matrix.reach[s] = S[s * sizes.inverse + s]
    else:
        copied(diagonal, active.padded, matrix.reach)
    for s in range(active.n):
        matrix.weight[s] = theta * by_z[s]
        matrix.reach[s] = min(matrix.reach[s], 1.0 / max(matrix.weight[s], 1e-300))
    if active.solver != BY_INVERSE:
        return call(sizes.factored, (PREPARE, ws.room, ws.table, by_z)) > 0
    update_inverse(S, sizes.inverse, matrix.weight, active.n, active.padded, matrix.work, matrix.second)
    return True


@bare(forceinline=True)
def shrink(ws, v):
    """``v = (I + G W)^-1 v`` on the active coordinates."""
    active, sizes, matrix = view(Active, ws), view(Sizes, ws), view(Matrix, ws)
    if active.solver == BY_INVERSE:
        scaled(matrix.weight, v, active.padded, matrix.root)
        subtract_rows(matrix.inverse, sizes.inverse, matrix.root, active.n, FIRST, active.padded, v, v)
    else:
        call(sizes.factored, (SOLVE, ws.room, ws.table, v))


@bare()
def mismatch(ws, theta):
    """How much a solution with W instead of theta D leaves of an error, at most in one coordinate alone."""
    matrix, by_z, worst = view(Matrix, ws), view(Values, ws).by_z, constant(0.0)
    for s in range(0, view(Active, ws).padded, EIGHT):
        stale = magnitude(theta * load(by_z, s) - load(matrix.weight, s))
        worst = wider(load(matrix.reach, s) * stale, worst)
    return widest(worst)


@bare()
def filtered(ws, vector):
    """``vector = (I + G W)^-1 vector`` on all coordinates."""
    matrix, count, sizes = view(Matrix, ws), view(Active, ws).padded, view(Sizes, ws)
    if sizes.graded != 0:
        call(sizes.graded, (FILTER, ws.room, ws.table, vector))
        return
    copied(vector, count, matrix.second)
    shrink(ws, matrix.second)
    scaled(matrix.weight, matrix.second, count, matrix.work)
    subtract_gram(ws, matrix.work, FIRST, sizes.padded, vector, vector)
