r"""Newton's method in the rows of an ill-conditioned A, each with its own scale.

In ``z = A^T nu / n`` the rounding of a stiff mode, which a second-derivative formula amplifies by its stiffness twice,
exceeds slow modes. With A a triangular factor from a pivoted QR decomposition, whose rows decrease as its
singular values do, and R = A / sqrt(n), the step's equations for the rows,

.. math:: \nu = \nu^\ast + A_h\, g - B_h\, g', \qquad g = b - R\beta, \qquad g' = -R\,(D R^\top g + \beta_t),

have a rounding error in each row that is relative to that row. Large coefficients that nearly cancel leave an
error in the g of stiff rows, which stiffness would transfer to slow ones. So the new g is not evaluated: it is
determined from nu by the formula and the equation for g', and Newton's method makes it equal to the evaluated one, with
:math:`K = R D R^\top`,

.. math:: (A_h + B_h K)\, g(\nu) = \nu - \nu^\ast - B_h R \beta_t, \qquad \rho = b - R\beta(R^\top \nu) - g(\nu) = 0,
          \qquad \Delta \nu = \big((A_h - \theta) M^2 + \theta M\big)\, \rho, \quad M = (I + \theta K)^{-1},

where no residual is multiplied by K. The triangular factor of :math:`I + V V^\top`, :math:`V = R (\theta D)^{1/2}`, is
computed by reflections, without forming :math:`V V^\top`, which would square the condition number.

The rows are coordinates without exponentials (:mod:`flowsim.solvers.multistep.screening`), so that they have a history
too. The loop calls this module by address, as few flows need it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers import array_kinds
from flowsim.solvers.compilation import bare, compiled_callback
from flowsim.solvers.multistep.buffers import in_buffers, table_of
from flowsim.solvers.multistep.constants import EVALUATIONS, FAR, FIRST, INEXACT_PART, INEXACT_SIZE, SLOW
from flowsim.solvers.multistep.exponentials import along_flow, evaluate
from flowsim.solvers.multistep.iteration_matrix import FILTER, copied, size
from flowsim.solvers.multistep.loss import stiffness
from flowsim.solvers.multistep.products import row_sums, subtract_rows
from flowsim.solvers.multistep.step import EXACT, FAILED, INEXACT
from flowsim.solvers.multistep.workspace import (
    Active,
    Index,
    Newton,
    Problem,
    Scales,
    Sizes,
    Terms,
    Trial,
    Values,
    Workspace,
    in_memory,
)
from flowsim.solvers.simd import EIGHT, add_up, constant, load, store, view

#: Corrections with one matrix, and the part of the goal to which they are iterated.
_CORRECTIONS, _PART = 12, 0.01
#: Bound on the second-order term of a correction, relative to its square.
_SQUARE = 4.0


@in_buffers()
class Rows(NamedTuple):
    """The buffer of the method."""

    equation: Any  #: (5,), weights of g and g', theta, the allowed error; and on return the stiffness
    #: (r,), g, the size of its terms, the residual, the correction, and work vectors
    g: Any
    terms: Any
    residual: Any
    delta: Any
    once: Any
    twice: Any
    rest: Any
    by: Any
    #: (r + 1, r), the factors of I + theta K and of I + (B / A) K
    factor: Any
    formula: Any
    V: Any  #: (r, padded)


def buffers(rows: int, padded: int) -> tuple[array_kinds.Index, array_kinds.Array]:
    """The two buffers for `rows` rows and `padded` coordinates."""
    sizes = dict.fromkeys(Rows._fields, rows) | dict.fromkeys(("factor", "formula"), (rows + 1) * rows)
    table, floats = table_of(Rows, sizes | {"equation": EIGHT, "V": rows * padded + 2 * EIGHT})
    return table, np.zeros(floats)


@bare()
def _rows(ws):
    sizes = view(Sizes, ws)
    return view(Rows, in_memory(sizes.graded_integers, sizes.graded_numbers))


@bare()
def _times_rows(ws, x, out):
    """``out = R x``."""
    for q in range(view(Sizes, ws).rows):
        out[q] = row_sums(ws, q, x)[0]


@bare()
def _in_coordinates(ws, u, end, out):
    """``out = R^T u`` up to `end`."""
    sizes, work = view(Sizes, ws), view(Problem, ws).row_work
    for q in range(sizes.rows):
        work[q] = -u[q]
    subtract_rows(view(Problem, ws).design, sizes.padded, work, sizes.rows, FIRST, end, view(Newton, ws).zero, out)


@bare()
def _evaluate(ws, rows, first, second):
    """The map, g by the formula, the flow along it, and the residual of the evaluated g; False if not finite."""
    problem, sizes, values = view(Problem, ws), view(Sizes, ws), view(Values, ws)
    trial, count = view(Trial, ws), view(Active, ws).padded
    if not evaluate(ws):
        return False
    _by_formula(ws, rows, (first, second), values.beta_z, values.beta_t)
    check = 0.0
    for q in range(sizes.rows):
        total, terms = row_sums(ws, q, values.beta)
        rows.terms[q] = terms + abs(problem.target[q])
        rows.residual[q] = (problem.target[q] - total) - rows.g[q]
        check += abs(rows.residual[q])
    _in_coordinates(ws, rows.g, count, trial.f)
    along_flow(ws)
    return check < np.inf


@bare()
def _by_formula(ws, rows, weights, beta_z, beta_t):
    """Solve ``(first + second K) g = nu - nu* - second R beta_t`` for g."""
    first, second = weights
    sizes, trial, place = view(Sizes, ws), view(Trial, ws), view(Index, ws).place
    _times_rows(ws, beta_t, rows.by)
    for q in range(sizes.rows):
        at = place[sizes.width - sizes.rows + q]
        moved = (trial.guess[at] - trial.known[at]) - second * (rows.by[q] + trial.df_predicted[at])
        rows.rest[q] = trial.f_predicted[at] + moved / first
    _factor(ws, rows, second / first, beta_z, rows.formula)
    _solve(rows.formula, sizes.rows, rows.rest, rows.g)


@bare()
def _factor(ws, rows, theta, beta_z, triangle):
    """The triangle T with ``T^T T = I + V V^T``, by Householder reflections of ``[I; V^T]``.

    The reciprocals of its diagonal are stored after it.
    """
    problem, sizes, V = view(Problem, ws), view(Sizes, ws), rows.V
    r, stride, count, root = sizes.rows, sizes.padded, view(Active, ws).padded, view(Newton, ws).work
    pivots = r * r
    for s in range(count):
        root[s] = math.sqrt(max(theta * beta_z[s], 0.0))
    for q in range(r):
        for s in range(0, count, EIGHT):
            store(V, q * stride + s, load(root, s) * load(problem.design, q * stride + s))
    for q in range(r):
        square = constant(0.0)
        for s in range(0, count, EIGHT):
            square = square + load(V, q * stride + s) * load(V, q * stride + s)
        sigma = math.sqrt(1.0 + add_up(square))
        triangle[pivots + q] = 1.0 / sigma
        for k in range(q + 1, r):
            product = constant(0.0)
            for s in range(0, count, EIGHT):
                product = product + load(V, q * stride + s) * load(V, k * stride + s)
            along = add_up(product) / sigma
            triangle[q * r + k] = along
            factor = along / (1.0 + sigma)
            for s in range(0, count, EIGHT):
                store(V, k * stride + s, load(V, k * stride + s) - factor * load(V, q * stride + s))


@bare()
def _solve(triangle, r, u, out):
    """``out = (T^T T)^-1 u``."""
    pivots = r * r
    for q in range(r):
        out[q] = u[q]
    for q in range(r):
        out[q] *= triangle[pivots + q]
        for k in range(q + 1, r):
            out[k] -= triangle[q * r + k] * out[q]
    for q in range(r - 1, -1, -1):
        total = out[q]
        for k in range(q + 1, r):
            total -= triangle[q * r + k] * out[k]
        out[q] = total * triangle[pivots + q]


@bare()
def _rest(ws, rows, first, second):
    """The residual of the linear system after the correction."""
    values, newton, count, r = view(Values, ws), view(Newton, ws), view(Active, ws).padded, view(Sizes, ws).rows
    _in_coordinates(ws, rows.delta, count, newton.delta)
    for b in range(0, count, EIGHT):
        store(newton.work, b, load(values.velocity_z, b) * load(newton.delta, b))
        store(newton.change_f, b, load(values.beta_z, b) * load(newton.delta, b))
    _times_rows(ws, newton.work, rows.by)
    for q in range(r):
        rows.once[q] = (rows.delta[q] - second * rows.by[q]) / first
    _solve(rows.formula, r, rows.once, rows.twice)
    _times_rows(ws, newton.change_f, rows.by)
    for q in range(r):
        rows.rest[q] = (rows.residual[q] - rows.by[q]) - rows.twice[q]


@bare()
def _correction(ws, rows, equation):
    """Newton's correction; returns the kind of its solution.

    Rounding, of its size times the stiffness, can limit its accuracy: then the equation is linearised again.
    """
    first, second, theta, goal = equation
    newton, count, r = view(Newton, ws), view(Active, ws).padded, view(Sizes, ws).rows
    for q in range(r):
        rows.delta[q] = 0.0
        rows.rest[q] = rows.residual[q]
    last = np.inf
    for correction in range(_CORRECTIONS):
        _solve(rows.factor, r, rows.rest, rows.once)
        _solve(rows.factor, r, rows.once, rows.twice)
        for q in range(r):
            rows.twice[q] = (first - theta) * rows.twice[q] + theta * rows.once[q]
            rows.delta[q] += rows.twice[q]
        _in_coordinates(ws, rows.twice, count, newton.rest)
        now = size(newton.rest, newton.gain, count)
        if correction > 0 and now <= _PART * goal:
            return EXACT
        if not now < SLOW * last:
            _in_coordinates(ws, rows.delta, count, newton.delta)
            allowed = max(INEXACT_PART * size(newton.delta, newton.gain, count), INEXACT_SIZE)
            return EXACT if now <= goal else INEXACT if now <= allowed else FAILED
        last = now
        _rest(ws, rows, first, second)
    return EXACT if last <= goal else FAILED


@bare()
def _move(ws, rows):
    """Add the correction to all coordinates; returns the largest change of an active one, and of any."""
    trial, newton, gain, stride = view(Trial, ws), view(Newton, ws), view(Scales, ws).gain, view(Sizes, ws).padded
    change = trial.residual
    _in_coordinates(ws, rows.delta, stride, change)
    for b in range(0, stride, EIGHT):
        store(trial.guess, b, load(trial.guess, b) + load(change, b))
    return size(change, newton.gain, view(Active, ws).padded), size(change, gain, stride)


@bare()
def _finish(ws, rows, first, second):
    """f and f' of all coordinates by the formula, with the map at the new point to first order."""
    sizes, trial, values, place = view(Sizes, ws), view(Trial, ws), view(Values, ws), view(Index, ws).place
    largest = 0.0
    newton, change, count = view(Newton, ws), view(Trial, ws).residual, view(Active, ws).padded
    for b in range(0, count, EIGHT):
        by = load(change, b)
        store(newton.rest, b, load(values.beta_z, b) + load(values.beta_zz, b) * by)
        store(newton.work, b, load(values.beta_t, b) + load(values.beta_zt, b) * by)
    # `work` overlaps with the factor
    copied(newton.work, count, newton.change_f)
    _by_formula(ws, rows, (first, second), newton.rest, newton.change_f)
    for q in range(sizes.rows):
        at = place[sizes.width - sizes.rows + q]
        moved = (trial.known[at] - trial.guess[at]) + first * (rows.g[q] - trial.f_predicted[at])
        rows.by[q] = trial.df_predicted[at] + moved / second
        if not abs(rows.g[q]) <= largest * rows.terms[q]:
            largest = abs(rows.g[q]) / rows.terms[q]
    _in_coordinates(ws, rows.by, sizes.padded, trial.df)
    _in_coordinates(ws, rows.g, sizes.padded, trial.f)
    view(Problem, ws).count[3] = largest


@bare()
def _step(ws):
    """Solve the equations of a step; returns the number of evaluations, negative on failure."""
    rows = _rows(ws)
    equation = rows.equation
    first, second, theta, goal = equation[0], equation[1], equation[2], equation[3]
    sizes, terms, trial, active = view(Sizes, ws), view(Terms, ws), view(Trial, ws), view(Active, ws)
    for evaluation in range(1, EVALUATIONS + 1):
        if not _evaluate(ws, rows, first, second):
            return -evaluation
        equation[4] = stiffness(ws, theta)
        _factor(ws, rows, theta, view(Values, ws).beta_z, rows.factor)
        solved = _correction(ws, rows, (first, second, theta, goal))
        if solved == FAILED:
            return -evaluation
        change, of_any = _move(ws, rows)
        if not of_any <= FAR:
            return -evaluation
        if solved == EXACT and _SQUARE * change * change <= goal:
            _finish(ws, rows, first, second)
            return evaluation
        for at in range(0, active.layers * sizes.padded, sizes.padded):
            for s in range(active.n):
                terms.exponents[at + s] += terms.slope[at + s] * trial.residual[s]
    return -EVALUATIONS


@bare()
def _filter(ws, vector):
    """``vector = R^T (I + theta R D R^T)^-1`` times its components in the rows."""
    sizes, rows, place = view(Sizes, ws), _rows(ws), view(Index, ws).place
    for q in range(sizes.rows):
        rows.rest[q] = vector[place[sizes.width - sizes.rows + q]]
    _solve(rows.factor, sizes.rows, rows.rest, rows.once)
    _in_coordinates(ws, rows.once, sizes.padded, vector)


@cache
def address() -> int:
    """Address of the function ``(task, buffer, table, vector)``: evaluations of a step, negative on failure."""

    def graded(task, buffer, table, vector):
        ws = Workspace(buffer, table)
        if task == FILTER:
            _filter(ws, vector)
            return 1
        return _step(ws)

    found = compiled_callback("int64(int64, CPointer(float64), CPointer(int64), CPointer(float64))")(graded)
    return int(found.address)
