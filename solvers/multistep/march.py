"""Many steps in one call: activation, one step after the other, its error, the next order and step, and the record."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.compilation import bare, compiled
from flowsim.solvers.loop import BUDGET, COMPLETED, FULL, NON_FINITE, REFRESH, STEP_FLOOR
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.active import activate, log_reach, reset_matrix
from flowsim.solvers.multistep.constants import FOLDS, HISTORY
from flowsim.solvers.multistep.exponentials import exponents_at, gather_listed, growth_excess, shortened
from flowsim.solvers.multistep.formulas import (
    coefficients,
    derivative_from_differences,
    local_errors,
    predict,
    remember,
)
from flowsim.solvers.multistep.iteration_matrix import filtered, renew, size
from flowsim.solvers.multistep.loss import choose_products, is_at_rest, note_reach, note_scales
from flowsim.solvers.multistep.quasi_steady import distances, project
from flowsim.solvers.multistep.step import Equation, evaluate_flow, extend_flow, solve_step
from flowsim.solvers.multistep.workspace import (
    Active,
    Exponentials,
    Formula,
    History,
    Index,
    Newton,
    Problem,
    Scales,
    Sizes,
    State,
    Terms,
    Trial,
    Workspace,
)
from flowsim.solvers.simd import EIGHT, constant, load, magnitude, pointer, store, view, wider, widest

__all__ = ["march"]

#: Where the table tells of the state of a run.
_STATE = State.PLACE  # type: ignore[attr-defined]


class Records(NamedTuple):
    """t, h and past points of the steps on record, and z, f and f' at their ends."""

    t: Any
    h: Any
    order: Any
    z: Any
    f: Any
    df: Any


@bare()
def _begin(ws, tol, is_new):
    """The scales of every coordinate; the largest exponent and the fastest decay. A new run's bookkeeping."""
    sizes, exponentials, scales, gram = (
        view(Sizes, ws),
        view(Exponentials, ws),
        view(Scales, ws),
        view(Problem, ws).gram,
    )
    index, unlisted, spans, wp = view(Index, ws), view(Terms, ws).unlisted, view(History, ws).spans, sizes.padded
    largest_exponent = fastest = 0.0
    for i in range(sizes.width):
        most, steepest = constant(0.0), 0.0
        for b in range(i * wp, (i + 1) * wp, EIGHT):
            most = wider(magnitude(load(gram, b)), most)
        scales.level[i] = math.log(c.NEGLIGIBLE * tol) - math.log(max(widest(most), 1e-300))
        for a in range(i, sizes.terms * wp, wp):
            if exponentials.log_coefficient[a] > -np.inf:
                largest_exponent = max(largest_exponent, abs(exponentials.log_coefficient[a]))
                fastest = max(fastest, abs(exponentials.decay[a]))
                steepest = max(steepest, abs(exponentials.slope[a]))
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        scales.gain[i] = 0.5 * steepest
    note_reach(ws)
    if is_new:
        for i in range(sizes.width, wp):
            scales.level[i] = np.inf
        for i in range(sizes.width):
            index.coordinate[i] = index.place[i] = i
        for a in range(sizes.terms * wp):
            unlisted[a] = scales.level[a % wp]
        for a in range(HISTORY + 2):
            spans[a] = c.MISSING
    return largest_exponent, fastest


@bare()
def _next_step(clock, left):
    """The step to try: the proposed one, or equal parts of what is left of the run."""
    h = min(clock[c.NEXT_STEP], left)
    if h >= left * (1.0 - 1e-12):
        return left
    if h * (c.LAST + 1e-6) > left:
        return left / math.ceil(left / h)
    return h


@bare()
def _predicted(ws, order, depth, h, t):
    """Predict the new point, over a shorter step where an exponential would grow too far.

    Returns the step, what is new in it, and whether a tabulated map reaches so far.
    """
    history, guess, wp = view(History, ws), view(Trial, ws).guess, view(Sizes, ws).padded
    new, inside = 1.0, True
    for _ in range(c.TRIES):
        if depth == 0:
            # No past yet: f as its derivative has it.
            history.spans[0] = c.BEGIN * h
            for i in range(wp):
                history.f[wp + i] = history.spans[0] * history.df[i]
        coefficients(ws, order, h)
        predict(ws, order, h)
        log_h = log_reach(ws, h)
        inside = exponents_at(ws, guess, t + h)
        over, new = growth_excess(ws, log_h)
        if over <= c.UNSEEN:
            break
        h *= shortened(ws, log_h)
    return h, new, inside


@bare()
def _start(ws, clock, counts, left):
    """f and f' at the start, and the first active coordinates."""
    history, trial, sizes = view(History, ws), view(Trial, ws), view(Sizes, ws)
    exponents_at(ws, view(Newton, ws).zero, clock[c.TIME])
    # Once more where the curvature of a loss tells what is active.
    for _ in range(1 if sizes.loss == 0 else 2):
        activate(ws, _next_step(clock, left))
        gather_listed(ws)
        evaluate_flow(ws, counts)
        note_scales(ws)
    extend_flow(ws)
    for i in range(sizes.padded):
        history.f[i], history.df[i] = trial.f[i], trial.df[i]
    for a in range(sizes.terms * sizes.padded):
        history.exponents[a] = trial.exponents[a]


@bare()
def _equation(ws, order, h, goal):
    formula = view(Formula, ws)
    second = h * h * formula.integral[order * FOLDS + 2]
    first = h * formula.integral[order * FOLDS + 1] + second * formula.end_slope[order]
    return Equation(first, second, math.sqrt(second), goal)


@bare()
def _follow(ws, equation):
    """The other coordinates go where the step's equation has them; how far that is from the guess."""
    trial, gain, active, wp = view(Trial, ws), view(Scales, ws).gain, view(Active, ws), view(Sizes, ws).padded
    most, first, second = constant(0.0), equation.first, equation.second
    for i in range(active.n, active.padded):
        there = trial.known[i] + first * (trial.f[i] - trial.f_ahead[i]) - second * (trial.df[i] - trial.df_ahead[i])
        most = wider(constant(gain[i] * abs(there - trial.guess[i])), most)
        trial.guess[i] = there
    for b in range(active.padded, wp, EIGHT):
        there = load(trial.known, b) + first * (load(trial.f, b) - load(trial.f_ahead, b))
        there = there - second * (load(trial.df, b) - load(trial.df_ahead, b))
        most = wider(load(gain, b) * magnitude(there - load(trial.guess, b)), most)
        store(trial.guess, b, there)
    return widest(most)


@bare()
def _filtered_error(ws, error):
    """The error without what stiff modes make of rounding, and of what the equations are solved to."""
    residual, gain, wp = view(Trial, ws).residual, view(Scales, ws).gain, view(Sizes, ws).padded
    raw = size(residual, gain, wp)
    filtered(ws, residual)
    return error * math.sqrt(size(residual, gain, wp) / raw)


@bare()
def _to_rest(ws, theta, allowed, counts):
    """Project stiff modes onto their quasi-steady state; whether the matrix holds."""
    own, by_others = distances(ws, theta)
    if own <= c.NEAR * allowed and by_others > c.STALE * c.REST * allowed:
        counts[c.MATRICES] += 1
        if not renew(ws, theta):
            return False
    project(ws, theta, c.REST * allowed)
    return True


@bare()
def _open_records(records, capacity, width):
    first, rows = 3 * capacity + 1, (capacity + 1) * width
    return Records(
        records, pointer(records, capacity + 1), pointer(records, 2 * capacity + 1),
        pointer(records, first), pointer(records, first + rows), pointer(records, first + 2 * rows),
    )  # fmt: skip


@bare()
def _record(ws, row, records):
    """z, f and f' in the order of the caller."""
    history, place, width = view(History, ws), view(Index, ws).place, view(Sizes, ws).width
    for i in range(width):
        at, to = place[i], row * width + i
        records.z[to], records.f[to], records.df[to] = history.z[at], history.f[at], history.df[at]


@bare()
def _accept(ws, order, h, from_differences):
    """z, f, f' and the exponents of the new point become the last ones."""
    history, trial, wp = view(History, ws), view(Trial, ws), view(Sizes, ws).padded
    remember(ws, order)
    if from_differences:
        derivative_from_differences(ws, order, trial.df)
    for b in range(0, wp, EIGHT):
        old = load(history.z, b)
        step = load(trial.guess, b) + load(history.z_low, b)
        moved = old + step
        store(history.z_low, b, step - (moved - old))
        store(history.z, b, moved)
        store(history.df, b, load(trial.df, b))
    for a in range(0, view(Sizes, ws).terms * wp, EIGHT):
        store(history.exponents, a, load(trial.exponents, a))
    for j in range(HISTORY, 0, -1):
        history.spans[j] = history.spans[j - 1]
    history.spans[0] = h


@bare()
def _advance_clock(clock, h, left, t_end):
    if h == left:
        clock[c.TIME], clock[c.TIME_LOW] = t_end, 0.0
    else:
        step = h + clock[c.TIME_LOW]
        moved = clock[c.TIME] + step
        clock[c.TIME], clock[c.TIME_LOW] = moved, step - (moved - clock[c.TIME])


@bare()
def _next_order(order, errors, lower, higher):
    """The order that promises the longest step, and the logarithm of how much longer than this one."""
    error, below, above = errors
    best, next_order = -math.log(max(error, 1e-30)) / (order + 3), order
    if lower:
        promise = -math.log(max(below, 1e-30)) / (order + 2)
        if promise >= best:
            best, next_order = promise, order - 1
    if higher:
        promise = -math.log(max(above, 1e-30)) / (order + 4) + math.log(c.HIGHER)
        if promise > best:
            best, next_order = promise, order + 1
    return next_order, best


@bare()
def _growth(error, stiff, promise, after_rejection):
    """The next step over this one."""
    factor = c.SAFETY * math.exp(promise)
    if after_rejection:
        factor = min(factor, 1.0)
    most = c.GROW if error > c.CALM or stiff > c.STIFF else c.GROW_CALM if error > c.QUIET else c.GROW_QUIET
    return min(most, max(c.SHRINK, factor))


@bare()
def _rest(ws, clock, counts, t_end, record):
    """Nothing moves any more: one step to the end, unless this is the end or there is no room for its record."""
    left, recorded = (t_end - clock[c.TIME]) - clock[c.TIME_LOW], counts[c.RECORDED]
    if left <= 0.0:
        return True
    if recorded >= counts[c.CAPACITY]:
        return False
    history = view(History, ws)
    for i in range(view(Sizes, ws).padded):
        history.f[i] = history.df[i] = 0.0
    # The last point once more: its f was rounding, which the length of the step would make something of.
    _record(ws, recorded, record)
    record.h[recorded], record.order[recorded], record.t[recorded + 1] = left, 0.0, t_end
    _record(ws, recorded + 1, record)
    clock[c.TIME], clock[c.TIME_LOW] = t_end, 0.0
    counts[c.RECORDED] += 1
    counts[c.STEPS] += 1
    return True


@compiled()
def march(tol, t_end, max_steps, room, table, clock, counts, records):
    """Take steps until `t_end`, a full record or a spent budget.

    Carried on from call to call, so that where one ends makes no difference: the workspace, which begins with the
    problem, ``clock`` and ``counts`` (see :mod:`flowsim.solvers.multistep.constants`).

    Parameters
    ----------
    room, table : arrays
        The workspace (:func:`flowsim.solvers.multistep.workspace.layout`).
    records : array
        t (S + 1), h and past points (S each), then z, f and f' (S + 1 rows each), for ``S = counts[CAPACITY]`` steps.
    """
    ws, capacity = Workspace(pointer(room, 0), pointer(table, 0)), counts[c.CAPACITY]
    record = _open_records(pointer(records, 0), capacity, view(Sizes, ws).width)
    state = view(State, ws)
    order, depth, has_matrix = state.order, state.depth, state.has_matrix > 0
    largest_exponent, fastest = _begin(ws, tol, order == 0)
    rejections = steps_here = 0
    while True:
        t = clock[c.TIME]
        left = (t_end - t) - clock[c.TIME_LOW]
        if left <= 0.0 or steps_here >= max_steps or counts[c.RECORDED] >= capacity:
            table[_STATE], table[_STATE + 1], table[_STATE + 2] = order, depth, has_matrix
            return COMPLETED if left <= 0.0 else BUDGET if steps_here >= max_steps else FULL
        if order == 0:
            _start(ws, clock, counts, left)
            order, has_matrix = 1, False
        h, new, inside = _predicted(ws, order, depth, _next_step(clock, left), t)
        if not inside:
            table[_STATE], table[_STATE + 1], table[_STATE + 2] = order, depth, has_matrix
            return REFRESH
        if new > 0.0:
            activate(ws, h)
            has_matrix = False
        gather_listed(ws)
        part = c.FIRST_PART if depth < c.FIRST_STEPS else 1.0
        allowed = max(part * tol / c.CAUTION, c.ROUNDINGS * (largest_exponent + fastest * t))
        choose_products(ws, h, allowed)
        equation = _equation(ws, order, h, c.SOLVED * allowed)
        solved, stiff, has_matrix = solve_step(ws, equation, counts, has_matrix)
        if solved:
            extend_flow(ws)
            solved = _follow(ws, equation) <= c.FAR
        if not solved:
            counts[c.REJECTED] += 1
            rejections += 1
            if rejections > c.REJECTIONS:
                return NON_FINITE
            has_matrix = False
            reset_matrix(ws)
            clock[c.NEXT_STEP] = c.RETRY * h
            continue

        lower, higher = order > 1, order < c.MOST and depth > order
        now, below, above = local_errors(ws, order, h, lower, higher)
        error = now / allowed
        if error > c.UNFILTERED and has_matrix and stiff > c.STIFF:
            error = _filtered_error(ws, error)
        if not error <= 1.0:
            counts[c.REJECTED] += 1
            rejections += 1
            if rejections > c.REJECTIONS:
                return STEP_FLOOR
            clock[c.NEXT_STEP] = h * max(c.SHRINK, 0.9 * min(error, 1e100) ** (-1.0 / (order + 3)))
            if rejections > 1 and order > 1:
                order -= 1
            continue
        if has_matrix and stiff > c.PROJECTED:
            has_matrix = _to_rest(ws, equation.theta, allowed, counts)

        if counts[c.RECORDED] == 0:
            record.t[0] = t
            _record(ws, 0, record)
        note_scales(ws)
        _accept(ws, order, h, stiff > c.PROJECTED and depth > order)
        _advance_clock(clock, h, left, t_end)
        recorded = counts[c.RECORDED]
        record.h[recorded], record.order[recorded], record.t[recorded + 1] = h, order, clock[c.TIME]
        counts[c.RECORDED] += 1
        _record(ws, counts[c.RECORDED], record)
        counts[c.STEPS] += 1
        steps_here += 1
        depth += 1
        if fastest == 0.0 and is_at_rest(ws) and _rest(ws, clock, counts, t_end, record):
            return COMPLETED
        order, promise = _next_order(order, (error, below / allowed, above / allowed), lower, higher)
        clock[c.NEXT_STEP] = h * _growth(error, stiff, promise, rejections > 0)
        rejections = 0
