r"""Any convex loss: ``z' = -A^T loss'(A beta) / n``, ``z'' = -A^T W A (D z' + beta_t) / n`` with ``W = diag(loss'')``.

Squares are the case W = 1, with a constant Gram matrix. A general loss is a function called by address, so
that the loop is compiled once for all losses.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import bare, padded
from flowsim.solvers.multistep.constants import FIRST, NO_FLOAT
from flowsim.solvers.multistep.products import into_rows, row_sums, subtract_gram, subtract_rows
from flowsim.solvers.multistep.workspace import Active, Loss, Newton, Problem, Scales, Sizes, Trial, Values
from flowsim.solvers.simd import (
    EIGHT,
    add_up,
    call_on_arrays,
    constant,
    greater,
    largest,
    load,
    magnitude,
    pointer,
    spread,
    store,
    view,
)

#: Rounding of a sum of products, and the part of the tolerance allowed for the effect of rounding of f on z.
_ROUNDING, _FELT = 4.0 * float(np.finfo(np.float64).eps), 1e-3
#: Least curvature, relative to 1, that is used.
_TINY = 1e-300
#: Change of a prediction by inactive coordinates up to which curvatures of the last point are used.
_SEEN = 0.1
_NEVER = 1e300
#: Bound on the stiffness below which it is not computed.
_NOT_STIFF = 0.25


@bare()
def evaluate_loss(ws):
    """Predictions from beta on the active coordinates, and the derivatives of the loss there."""
    sizes, loss, problem, beta = view(Sizes, ws), view(Loss, ws), view(Problem, ws), view(Values, ws).beta
    root, padded_rows = math.sqrt(problem.count[0]), padded(sizes.rows)
    into_rows(ws, beta, loss.prediction)
    for q in range(0, padded_rows, EIGHT):
        store(loss.prediction, q, root * load(loss.prediction, q) + load(loss.offset, q))
    arrays = (loss.prediction, loss.target, loss.weight, loss.slope, loss.curvature)
    call_on_arrays(sizes.loss, arrays, sizes.rows)
    if problem.count[2] != 0.0:
        problem.count[3] = _relative_slopes(ws)
    for q in range(0, padded_rows, EIGHT):
        store(loss.slope, q, (1.0 / root) * load(loss.slope, q))


@bare()
def flow_of(ws, begin, end):
    """Compute f from `begin` to `end`."""
    sizes, problem, f = view(Sizes, ws), view(Problem, ws), view(Trial, ws).f
    rows, zero, beta = problem.row_work, view(Newton, ws).zero, view(Values, ws).beta
    if sizes.loss != 0:
        subtract_rows(problem.design, sizes.padded, view(Loss, ws).slope, sizes.rows, begin, end, zero, f)
    elif problem.count[2] == 0.0:
        subtract_gram(ws, beta, begin, end, problem.drive, f)
    else:
        _residuals(ws)
        subtract_rows(problem.design, sizes.padded, rows, sizes.rows, begin, end, zero, f)


@bare()
def _residuals(ws):
    """``(A beta - b) / sqrt(n)``, and its largest entry relative to the terms."""
    problem, beta, peak = view(Problem, ws), view(Values, ws).beta, 0.0
    for q in range(view(Sizes, ws).rows):
        total, terms = row_sums(ws, q, beta)
        problem.row_work[q] = total - problem.target[q]
        peak = _relative_to(terms + abs(problem.target[q]), problem.row_work[q], peak)
    problem.count[3] = peak


@bare(forceinline=True)
def _relative_to(terms, value, peak):
    return peak if abs(value) <= peak * terms + NO_FLOAT else abs(value) / terms


@bare()
def _relative_slopes(ws):
    """The largest derivative of the loss, relative to its change with the terms of a prediction."""
    problem, loss, peak = view(Problem, ws), view(Loss, ws), 0.0
    root = math.sqrt(problem.count[0])
    for q in range(view(Sizes, ws).rows):
        terms = root * row_sums(ws, q, view(Values, ws).beta)[1] + abs(loss.offset[q]) + abs(loss.target[q])
        peak = _relative_to(loss.curvature[q] * terms, loss.slope[q], peak)
    return peak


@bare()
def is_at_rest(ws):
    """Whether all residuals, or derivatives of the loss, are rounding: then so is f, and the flow is at rest."""
    count = view(Problem, ws).count
    return count[2] != 0.0 and count[3] <= 0.25 * _ROUNDING * (8.0 + math.sqrt(view(Active, ws).n))


@bare()
def choose_products(ws, h, allowed):
    """Evaluate f from residuals in the rows if in a long step the rounding of ``c - G beta`` would be visible in z.

    That rounding does not decrease with the residual, and its component outside the row space of A is not damped.
    For other losses: whether the derivatives are compared with their rounding.
    """
    problem, sizes = view(Problem, ws), view(Sizes, ws)
    felt = h * problem.count[1] * _ROUNDING > _FELT * allowed
    problem.count[2] = 1.0 if felt or (sizes.has_gram == 0 and sizes.loss == 0) else 0.0


@bare()
def note_scales(ws):
    """Scales at an accepted point, used over the next step: of terms of f, and of the curvature of a loss."""
    sizes, loss, problem, beta = view(Sizes, ws), view(Loss, ws), view(Problem, ws), view(Values, ws).beta
    gain, total = view(Newton, ws).gain, constant(0.0)
    for b in range(0, view(Active, ws).padded, EIGHT):
        total = total + load(gain, b) * (load(problem.diagonal, b) * magnitude(load(beta, b)))
    problem.count[1] = add_up(total)
    if sizes.loss != 0:
        loss.log_curvature[0] = math.log(max(_TINY, _most_curved(ws)))


@bare(forceinline=True)
def _most_curved(ws):
    """The largest curvature of the loss."""
    curvature, peak = view(Loss, ws).curvature, constant(0.0)
    for q in range(0, padded(view(Sizes, ws).rows), EIGHT):
        peak = greater(load(curvature, q), peak)
    return largest(peak)


@bare()
def note_reach(ws):
    """Update the least reach: far from its targets a robust loss is nearly linear, so its curvature is no scale."""
    sizes, loss, problem, level = view(Sizes, ws), view(Loss, ws), view(Problem, ws), view(Scales, ws).level
    root, least = math.sqrt(problem.count[0]), -_NEVER
    if sizes.loss != 0:
        for i in range(sizes.width):
            peak = 0.0
            for q in range(sizes.rows):
                peak = max(peak, abs(problem.design[q * sizes.padded + i]))
            if peak > 0.0:
                least = max(least, level[i] + math.log(root * peak / _SEEN))
    loss.log_curvature[1] = least


@bare()
def stiffness(ws, theta):
    """The trace of theta G D; for other losses, where it is small, a bound."""
    sizes, active, problem, beta_z = view(Sizes, ws), view(Active, ws), view(Problem, ws), view(Values, ws).beta_z
    trace = constant(0.0)
    for b in range(0, active.padded, EIGHT):
        trace = trace + load(beta_z, b) * load(problem.diagonal, b)
    bound = theta * add_up(trace)
    if sizes.loss == 0:
        return bound
    bound *= _most_curved(ws)
    if bound <= _NOT_STIFF:
        return bound
    total, padded_rows = constant(0.0), padded(sizes.rows)
    for q in range(0, padded_rows, EIGHT):
        rows = constant(0.0)
        for s in range(active.n):
            entry = load(problem.columns, s * padded_rows + q)
            rows = rows + spread(beta_z, s) * (entry * entry)
        total = total + load(view(Loss, ws).curvature, q) * rows
    return theta * add_up(total)


@bare()
def own_curvature(ws, s):
    """The diagonal entry of ``A^T W A / n`` for an active coordinate."""
    sizes, problem = view(Sizes, ws), view(Problem, ws)
    if sizes.loss == 0:
        return problem.diagonal[s]
    total, curvature = 0.0, view(Loss, ws).curvature
    for q in range(sizes.rows):
        entry = problem.design[q * sizes.padded + s]
        total += curvature[q] * entry * entry
    return total


@bare()
def weighted_gram(ws, out, stride):
    """``A^T W A / n`` on the active coordinates, as rows of `out`."""
    sizes, active, design = view(Sizes, ws), view(Active, ws), view(Problem, ws).design
    curvature, zero, column = view(Loss, ws).curvature, view(Newton, ws).zero, view(Problem, ws).row_work
    for s in range(active.n):
        for q in range(sizes.rows):
            column[q] = -curvature[q] * design[q * sizes.padded + s]
        subtract_rows(design, sizes.padded, column, sizes.rows, FIRST, active.padded, zero, pointer(out, s * stride))
