r"""Solution of the equations of one step.

With A, B the weights of f_{n+1} and -f'_{n+1},

.. math:: z = z^\ast + A f - B f' \quad\Longrightarrow\quad
          \big(I + G (A D - B Q) + B\,(G D)^2\big)\,\Delta = R, \qquad Q_i = \partial \beta_i' / \partial z_i |_f,

a linear system on the active coordinates, whose matrix is nearly :math:`(I + \sqrt{B}\,G D)^2`: the inverse of its
square root, kept over many steps, solves it to a tenth, and a few corrections to the required part of the tolerance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.exponentials import along_flow, evaluate
from flowsim.solvers.multistep.iteration_matrix import copied, mismatch, renew, shrink, size
from flowsim.solvers.multistep.loss import evaluate_loss, flow_of, stiffness
from flowsim.solvers.multistep.products import subtract_gram, subtract_rows
from flowsim.solvers.multistep.workspace import Active, Matrix, Newton, Problem, Sizes, Terms, Trial, Values
from flowsim.solvers.simd import EIGHT, add_up, constant, load, magnitude, store, view, wider, widest


class Equation(NamedTuple):
    """``z = z* + first f - second f'``; theta = sqrt(second); the goal of its solution."""

    first: Any
    second: Any
    theta: Any
    goal: Any


#: Outcome of a linear solve: failed, limited by rounding, or to the equation's goal.
FAILED, INEXACT, EXACT = range(3)


@bare()
def evaluate_flow(ws, counts):
    """beta, f and f' of active coordinates from the listed exponents; False where the map is not defined."""
    values, trial, count = view(Values, ws), view(Trial, ws), view(Active, ws).padded
    counts[c.EVALUATED] += 1
    if not evaluate(ws):
        return False
    if view(Sizes, ws).loss != 0:
        evaluate_loss(ws)
    flow_of(ws, c.FIRST, count)
    along_flow(ws)
    subtract_gram(ws, values.velocity, c.FIRST, count, view(Newton, ws).zero, trial.df)
    return True


@bare()
def extend_flow(ws):
    """f and f' of all inactive coordinates, if any; residuals in the rows become those of the last beta."""
    values, trial, first, sizes = view(Values, ws), view(Trial, ws), view(Active, ws).padded, view(Sizes, ws)
    zero, end = view(Newton, ws).zero, sizes.padded
    flow_of(ws, first, end)
    if sizes.loss == 0:
        subtract_gram(ws, values.velocity, first, end, zero, trial.df)
    else:
        # The rows hold the last product, that of the velocity.
        problem = view(Problem, ws)
        subtract_rows(problem.design, end, problem.row_work, sizes.rows, first, end, zero, trial.df)


@bare()
def _residual(ws, equation):
    """The residual of the step's equation; False if it is not finite."""
    trial, check = view(Trial, ws), constant(0.0)
    first, second = equation.first, equation.second
    for b in range(0, view(Active, ws).padded, EIGHT):
        value = (load(trial.known, b) - load(trial.guess, b)) + first * (load(trial.f, b) - load(trial.f_predicted, b))
        value = value - second * (load(trial.df, b) - load(trial.df_predicted, b))
        store(trial.residual, b, value)
        check = wider(magnitude(value), check)
    return widest(check) < np.inf


@bare()
def _moved(ws, equation, by):
    """Update the new point, beta to first order; returns the size of the residual, infinite if it is not finite.

    For squares f changes by ``-G D by``: an evaluated residual would be noise where the system is stiff. For
    other losses the derivatives are evaluated again.
    """
    values, newton, trial, count = view(Values, ws), view(Newton, ws), view(Trial, ws), view(Active, ws).padded
    is_squared = view(Sizes, ws).loss == 0
    for b in range(0, count, EIGHT):
        change = load(values.beta_z, b) * load(by, b)
        store(newton.work, b, change)
        store(values.beta, b, load(values.beta, b) + change)
        store(newton.delta, b, load(newton.delta, b) + load(by, b))
        store(trial.guess, b, load(trial.guess, b) + load(by, b))
    if is_squared:
        subtract_gram(ws, newton.work, c.FIRST, count, newton.zero, newton.change_f)
    else:
        copied(trial.f, count, newton.change_f)
        evaluate_loss(ws)
        flow_of(ws, c.FIRST, count)
        for b in range(0, count, EIGHT):
            store(newton.change_f, b, load(trial.f, b) - load(newton.change_f, b))
    for b in range(0, count, EIGHT):
        change = load(values.velocity_z, b) * load(by, b) + load(values.beta_z, b) * load(newton.change_f, b)
        store(newton.work, b, change)
        store(values.velocity, b, load(values.velocity, b) + change)
    if is_squared:
        return _left_of_squares(ws, equation, by)
    subtract_gram(ws, values.velocity, c.FIRST, count, newton.zero, trial.df)
    return size(trial.residual, newton.gain, count) if _residual(ws, equation) else np.inf


@bare()
def _left_of_squares(ws, equation, by):
    """f, f' and the residual after a correction, from their changes."""
    newton, trial, count, largest = view(Newton, ws), view(Trial, ws), view(Active, ws).padded, constant(0.0)
    subtract_gram(ws, newton.work, c.FIRST, count, newton.zero, newton.change_df)
    for b in range(0, count, EIGHT):
        change, bent = load(newton.change_f, b), load(newton.change_df, b)
        store(trial.f, b, load(trial.f, b) + change)
        store(trial.df, b, load(trial.df, b) + bent)
        left = (load(trial.residual, b) - load(by, b)) + (equation.first * change - equation.second * bent)
        store(trial.residual, b, left)
        largest = wider(load(newton.gain, b) * magnitude(left), largest)
    return widest(largest)


@bare()
def _within_rounding(ws, equation):
    """Whether the residual r of the equation is rounding in stiff modes, amplified twice by their stiffness.

    With ``F = (I + G W)^-1`` it is ``r = F r + G W F r``: the first part is the error of the new point; the second is a
    change of ``d beta/dt`` by ``-W F r / second``. The error of the correction is ``F^2 r``:
    where that is relatively small, the equation is linearised again.
    """
    newton, values, trial, count = view(Newton, ws), view(Values, ws), view(Trial, ws), view(Active, ws).padded
    copied(trial.residual, count, newton.rest)
    shrink(ws, newton.rest, c.ONCE)
    if size(newton.rest, newton.gain, count) <= equation.goal:
        rounding, weight = -1.0 / equation.second, view(Matrix, ws).weight
        for b in range(0, count, EIGHT):
            change = rounding * (load(weight, b) * load(newton.rest, b))
            store(newton.work, b, change)
            store(values.velocity, b, load(values.velocity, b) + change)
        if view(Sizes, ws).loss == 0:
            subtract_gram(ws, newton.work, c.FIRST, count, trial.df, trial.df)
        else:
            subtract_gram(ws, values.velocity, c.FIRST, count, newton.zero, trial.df)
        return EXACT
    shrink(ws, newton.rest, c.ONCE)
    left, step = size(newton.rest, newton.gain, count), size(newton.delta, newton.gain, count)
    return INEXACT if left <= max(c.INEXACT_PART * step, c.INEXACT_SIZE) else FAILED


@bare()
def _lengthened(ws):
    """``1 / (1 - c)`` if the last correction reduced the residual to c times its size: the geometric series.

    This extrapolates the slowest mode under a stale or absent matrix; for several modes c is a compromise, and the next
    correction is at most doubled.
    """
    newton, residual, over, under = view(Newton, ws), view(Trial, ws).residual, constant(0.0), constant(0.0)
    for b in range(0, view(Active, ws).padded, EIGHT):
        gain, before = load(newton.gain, b), load(newton.before, b)
        over = over + gain * before * (gain * load(residual, b))
        under = under + gain * before * (gain * before)
    return 1.0 / (1.0 - min(max(add_up(over) / add_up(under), -c.MOST_LEFT), c.MOST_LEFT))


@bare()
def _correct(ws, equation, counts, has_matrix, is_new):
    """Corrections, with a new matrix where the kept one fails: (solved, has a matrix, it is new).

    ``delta`` is their sum.
    """
    newton, trial, count = view(Newton, ws), view(Trial, ws), view(Active, ws).padded
    copied(newton.zero, count, newton.delta)
    last, holds = np.inf, mismatch(ws, equation.theta) <= c.CONTRACTION
    for _ in range(c.CORRECTIONS):
        if not holds:
            solved = _within_rounding(ws, equation) if has_matrix and last < np.inf else FAILED
            if is_new or solved == EXACT:
                return solved, has_matrix, is_new
            counts[c.MATRICES] += 1
            has_matrix = is_new = True
            if not renew(ws, equation.theta):
                return FAILED, has_matrix, is_new
            last = np.inf
        copied(trial.residual, count, newton.rest)
        if has_matrix:
            shrink(ws, newton.rest, c.TWICE)
        length = 1.0 if last == np.inf else _lengthened(ws)
        for b in range(0, count, EIGHT):
            store(newton.rest, b, length * load(newton.rest, b))
            store(newton.before, b, load(trial.residual, b))
        now = _moved(ws, equation, newton.rest)
        if not (now < np.inf and size(newton.delta, newton.gain, count) <= c.FAR):
            return FAILED, has_matrix, is_new
        if now <= equation.goal:
            return EXACT, has_matrix, is_new
        last, holds = now, now < c.SLOW * last
    return FAILED, has_matrix, is_new


@bare()
def _second_order(ws, theta, stiff):
    """The second-order term neglected by a correction in the step's equation, amplified once or twice by stiffness.

    For a coordinate that is not stiff itself, once at most: it may have a larger correction.
    """
    newton, beta_z, diagonal = view(Newton, ws), view(Values, ws).beta_z, view(Problem, ws).diagonal
    largest = constant(0.0)
    if view(Sizes, ws).loss != 0:
        most = size(newton.delta, newton.gain, view(Active, ws).padded) * (1.0 + stiff)
        return most * most
    for b in range(0, view(Active, ws).padded, EIGHT):
        change = load(newton.gain, b) * load(newton.delta, b)
        through = theta * (load(beta_z, b) * load(diagonal, b))
        largest = wider(change * change * (constant(1.0) + through), largest)
    return widest(largest) * (1.0 + stiff)


@bare()
def solve_step(ws, equation, counts, has_matrix):
    """Solve for the active coordinates by Newton's method: (solved, the step's stiffness, has a matrix).

    One evaluation of the exponentials usually suffices: the second-order term of the correction is below the
    goal.
    """
    trial, newton, terms = view(Trial, ws), view(Newton, ws), view(Terms, ws)
    active, stride = view(Active, ws), view(Sizes, ws).padded
    is_new, stiff = False, 0.0
    for evaluation in range(c.EVALUATIONS):
        if not (evaluate_flow(ws, counts) and _residual(ws, equation)):
            return False, stiff, has_matrix
        if evaluation > 0 and size(trial.residual, newton.gain, active.padded) <= equation.goal:
            return True, stiff, has_matrix
        stiff = stiffness(ws, equation.theta)
        solved, has_matrix, is_new = _correct(ws, equation, counts, has_matrix, is_new)
        if solved == FAILED:
            return False, stiff, has_matrix
        # The second-order term in the equation; where it is limited by rounding, in z.
        left_out = _second_order(ws, equation.theta, stiff if evaluation < c.ROUNDING_FROM else 0.0)
        if solved == EXACT and left_out <= equation.goal:
            return True, stiff, has_matrix
        for at in range(0, active.layers * stride, stride):
            for s in range(active.n):
                terms.exponents[at + s] += terms.slope[at + s] * newton.delta[s]
    return False, stiff, has_matrix
