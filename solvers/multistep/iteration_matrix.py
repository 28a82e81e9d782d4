r"""The iteration matrix ``I + G W``, ``W = theta D``, and its linear solves.

The matrix of a step's equations is nearly its square. With the symmetric ``S = (G^-1 + W)^-1``, for few active
coordinates, ``(I + G W)^{-1} v = v - S W v``. Where these are many more than A has rows, likewise in the rows,

.. math:: (I + A^T C A W)^{-1} v = v - A^T C\, (I - S C)\, A W v, \qquad S = \big((A W A^T)^{-1} + C\big)^{-1}, \quad
          G = A^T C A,

with A over sqrt(n) and the curvature C of the loss, unless ``A W v`` is so large in a stiff system that the
difference is lost to rounding.
Else by a factor (:mod:`flowsim.solvers.multistep.factors`, which is called by its address and compiled when first
needed).
"""

from __future__ import annotations

from flowsim.solvers.compilation import bare, padded
from flowsim.solvers.multistep.constants import BY_INVERSE, BY_INVERSE_IN_ROWS, FIRST, MOST_IN_ROWS, ONCE
from flowsim.solvers.multistep.inverse import update_inverse
from flowsim.solvers.multistep.loss import own_curvature, stiffness, weighted_gram
from flowsim.solvers.multistep.products import into_rows, subtract_gram, subtract_rows
from flowsim.solvers.multistep.workspace import Active, Loss, Matrix, Newton, Problem, Sizes, Values
from flowsim.solvers.simd import EIGHT, call, constant, load, magnitude, pointer, store, view, wider, widest

#: Tasks of the factored solvers.
PREPARE, SOLVE = range(2)
#: Tasks of the method in graded rows.
STEP, FILTER = range(2)
#: Where the table holds how systems are solved.
_SOLVER = Active.PLACE + Active._fields.index("solver")  # type: ignore[attr-defined]


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
    peak = constant(0.0)
    for b in range(0, count, EIGHT):
        peak = wider(load(gain, b) * magnitude(load(values, b)), peak)
    return widest(peak)


@bare(forceinline=True)
def _copy_gram(ws, S):
    active, sizes, gram = view(Active, ws), view(Sizes, ws), view(Problem, ws).gram
    for s in range(active.n):
        for b in range(0, active.padded, EIGHT):
            store(S, s * sizes.inverse + b, load(gram, s * sizes.padded + b))


@bare()
def renew(ws, theta):
    """Set W = theta D, the bound on its effect on single coordinates, and the solver; False if singular."""
    sizes, matrix, beta_z, S = view(Sizes, ws), view(Matrix, ws), view(Values, ws).beta_z, view(Matrix, ws).inverse
    if view(Active, ws).solver == BY_INVERSE_IN_ROWS and stiffness(ws, theta) > MOST_IN_ROWS:
        ws.table[_SOLVER] = BY_INVERSE
    active = view(Active, ws)
    copied(view(Loss, ws).curvature, padded(sizes.rows), matrix.curvature)
    if active.solver != BY_INVERSE:
        for s in range(active.padded):
            matrix.reach[s] = own_curvature(ws, s)
    elif sizes.by_design != 0:
        weighted_gram(ws, S, sizes.inverse)
    else:
        _copy_gram(ws, S)
    for s in range(active.n):
        own = S[s * sizes.inverse + s] if active.solver == BY_INVERSE else matrix.reach[s]
        matrix.weight[s] = theta * beta_z[s]
        matrix.root[s] = own
        matrix.reach[s] = min(own, 1.0 / max(matrix.weight[s], 1e-300))
    if active.solver == BY_INVERSE:
        update_inverse(
            S, sizes.inverse, matrix.weight, active.n, active.padded, matrix.work, matrix.second, matrix.root
        )
    elif active.solver == BY_INVERSE_IN_ROWS:
        _invert_in_rows(ws)
    else:
        return call(sizes.factored, (PREPARE, ws.buffer, ws.table, beta_z)) > 0
    return True


@bare()
def _invert_in_rows(ws):
    """``S = ((A W A^T)^-1 + C)^-1``, made of ``A W A^T`` row by row."""
    active, sizes, matrix, design = view(Active, ws), view(Sizes, ws), view(Matrix, ws), view(Problem, ws).design
    for q in range(sizes.rows):
        scaled(matrix.weight, pointer(design, q * sizes.padded), active.padded, matrix.root)
        into_rows(ws, matrix.root, pointer(matrix.inverse, q * sizes.inverse))
        matrix.rows[q] = matrix.inverse[q * sizes.inverse + q]
    update_inverse(
        matrix.inverse,
        sizes.inverse,
        matrix.curvature,
        sizes.rows,
        padded(sizes.rows),
        matrix.work,
        matrix.second,
        matrix.rows,
    )


@bare()
def shrink(ws, v, times):
    """``v = (I + G W)^-times v`` on the active coordinates."""
    active, sizes, matrix = view(Active, ws), view(Sizes, ws), view(Matrix, ws)
    if active.solver == BY_INVERSE_IN_ROWS:
        _shrink_in_rows(ws, v, times)
        return
    for _ in range(times):
        if active.solver == BY_INVERSE:
            scaled(matrix.weight, v, active.padded, matrix.root)
            subtract_rows(matrix.inverse, sizes.inverse, matrix.root, active.n, FIRST, active.padded, v, v)
        else:
            call(sizes.factored, (SOLVE, ws.buffer, ws.table, v))


@bare()
def _shrink_in_rows(ws, v, times):
    """``v - A^T C sum_j p_j``, ``p_j = (I - S C)^j A W v``: two products with A, however many times."""
    active, sizes, matrix, design = view(Active, ws), view(Sizes, ws), view(Matrix, ws), view(Problem, ws).design
    r, padded_rows, in_rows, bent, total = sizes.rows, padded(sizes.rows), matrix.rows, matrix.solution, matrix.total
    scaled(matrix.weight, v, active.padded, matrix.root)
    into_rows(ws, matrix.root, in_rows)
    copied(view(Newton, ws).zero, padded_rows, total)
    for _ in range(times):
        scaled(matrix.curvature, in_rows, padded_rows, bent)
        subtract_rows(matrix.inverse, sizes.inverse, bent, r, FIRST, padded_rows, in_rows, in_rows)
        for q in range(0, padded_rows, EIGHT):
            store(total, q, load(total, q) + load(matrix.curvature, q) * load(in_rows, q))
    subtract_rows(design, sizes.padded, total, r, FIRST, active.padded, v, v)


@bare()
def mismatch(ws, theta):
    """The largest error in a single coordinate of a solution with W instead of theta D."""
    matrix, beta_z, worst = view(Matrix, ws), view(Values, ws).beta_z, constant(0.0)
    for s in range(0, view(Active, ws).padded, EIGHT):
        stale = magnitude(theta * load(beta_z, s) - load(matrix.weight, s))
        worst = wider(load(matrix.reach, s) * stale, worst)
    return widest(worst)


@bare()
def filtered(ws, vector):
    """``vector = (I + G W)^-1 vector`` on all coordinates."""
    matrix, count, sizes = view(Matrix, ws), view(Active, ws).padded, view(Sizes, ws)
    if sizes.graded != 0:
        call(sizes.graded, (FILTER, ws.buffer, ws.table, vector))
        return
    copied(vector, count, matrix.second)
    shrink(ws, matrix.second, ONCE)
    scaled(matrix.weight, matrix.second, count, matrix.work)
    subtract_gram(ws, matrix.work, FIRST, sizes.padded, vector, vector)
