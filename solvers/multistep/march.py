"""The compiled loop: activation, steps, error control, choice of order and step size, and the record."""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64

from flowsim.solvers.compilation import INTEGERS, VECTOR, bare, compiled
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
from flowsim.solvers.multistep.iteration_matrix import copied, size
from flowsim.solvers.multistep.loss import choose_products, note_scales
from flowsim.solvers.multistep.newton import call_newton
from flowsim.solvers.multistep.recording import begin_record, cross, open_records, record_step
from flowsim.solvers.multistep.workspace import (
    Active,
    Exponentials,
    Formula,
    History,
    Scales,
    Sizes,
    State,
    Trial,
    Values,
    Workspace,
)
from flowsim.solvers.simd import EIGHT, call, constant, load, magnitude, pointer, store, view, wider, widest

#: Position of the tuple `State` in the table.
_STATE = State.PLACE  # type: ignore[attr-defined]


@bare()
def _largest(ws):
    """The largest exponent, the fastest decay, and the slowest, which is negative for growth."""
    sizes, exponentials = view(Sizes, ws), view(Exponentials, ws)
    most = fastest = least = 0.0
    for i in range(sizes.width):
        for a in range(i, sizes.terms * sizes.padded, sizes.padded):
            if exponentials.log_coefficient[a] > -np.inf:
                most = max(most, abs(exponentials.log_coefficient[a]))
                fastest = max(fastest, abs(exponentials.decay[a]))
                least = min(least, exponentials.decay[a])
    return most, fastest, least


@bare()
def _has_decayed(ws):
    """Whether all decaying terms of active coordinates are negligible."""
    beta_t, most = view(Values, ws).beta_t, constant(0.0)
    for b in range(0, view(Active, ws).padded, EIGHT):
        most = wider(magnitude(load(beta_t, b)), most)
    return widest(most) <= c.NO_FLOAT


@bare()
def _next_step(clock, left):
    """The step to try: the proposed one, or an equal part of the rest of the run."""
    h = min(clock[c.NEXT_STEP], left)
    if h >= left * (1.0 - 1e-12):
        return left
    if h * (c.LAST + 1e-6) > left:
        return left / math.ceil(left / h)
    return h


@bare()
def _predicted(ws, order, depth, h, t):
    """Predict the new point, over a shorter step if an exponential would grow too far.

    Returns the step, the largest excess of an unlisted exponent, and whether a tabulated map extends so far.
    """
    history, guess, stride = view(History, ws), view(Trial, ws).guess, view(Sizes, ws).padded
    new, inside, log_h = 1.0, True, 0.0
    for attempt in range(c.TRIES):
        if attempt > 0:
            h *= shortened(ws, log_h)  # and predicted again, so that the results are consistent
        if depth == 0:
            # Without history: f by its derivative.
            history.spans[0] = c.BEGIN * h
            for i in range(stride):
                history.f[stride + i] = history.spans[0] * history.df[i]
        coefficients(ws, order, h)
        predict(ws, order, h)
        log_h = log_reach(ws, h)
        inside = exponents_at(ws, guess, t + h)
        over, new = growth_excess(ws, log_h)
        if over <= c.UNSEEN:
            break
    return h, new, inside


@bare()
def _start(ws, clock, counts, left):
    """Compute f, f' and the active coordinates at the start of a formula; False where the map is not defined."""
    history, trial, sizes, is_flow = view(History, ws), view(Trial, ws), view(Sizes, ws), False
    for i in range(sizes.padded):
        trial.guess[i] = 0.0
    for _ in range(c.REJECTIONS):
        # Again where the curvature of a loss determines the active coordinates.
        for _ in range(1 if sizes.loss == 0 else 2):
            view(Formula, ws).step[0] = _next_step(clock, left)
            exponents_at(ws, trial.guess, clock[c.TIME])
            activate(ws, _next_step(clock, left))
            gather_listed(ws)
            is_flow = call_newton(ws, c.START, 0, counts) > 0
            note_scales(ws)
        if is_flow:
            break
        clock[c.NEXT_STEP] *= c.RETRY
    call_newton(ws, c.EXTEND, 0, counts)
    copied(trial.f, sizes.padded, history.f)
    copied(trial.df, sizes.padded, history.df)
    copied(trial.exponents, sizes.terms * sizes.padded, history.exponents)
    return is_flow


@bare()
def _write_equation(ws, order, h, allowed):
    formula = view(Formula, ws)
    second = h * h * formula.integral[order * FOLDS + 2]
    formula.equation[0] = h * formula.integral[order * FOLDS + 1] + second * formula.end_slope[order]
    formula.equation[1], formula.equation[2], formula.equation[3] = second, math.sqrt(second), allowed


@bare()
def _filtered_error(ws, error, counts):
    """The filtered error estimate, without rounding and residuals amplified by stiff modes."""
    residual, gain, stride = view(Trial, ws).residual, view(Scales, ws).gain, view(Sizes, ws).padded
    raw = size(residual, gain, stride)
    call_newton(ws, c.FILTER, 1, counts)
    return error * math.sqrt(size(residual, gain, stride) / raw)


@bare()
def _allowed(tol, depth, largest_exponent):
    """The admissible error of a step: smaller for the first steps, and not below the rounding of the exponents."""
    part = c.FIRST_PART if depth < c.FIRST_STEPS else 1.0
    return max(part * tol / c.CAUTION, c.ROUNDINGS * largest_exponent)


@bare()
def _errors(ws, order, h, lower, higher, allowed, has_matrix, stiff, counts):
    """Errors of the step and of the next lower and higher order, relative to the admissible error."""
    now, below, above = local_errors(ws, order, h, lower, higher)
    error = now / allowed
    if error > c.UNFILTERED and has_matrix and stiff > c.STIFF:
        error = _filtered_error(ws, error, counts)
    return error, below / allowed, above / allowed


@bare()
def _keep_state(table, order, depth, has_matrix):
    table[_STATE], table[_STATE + 1], table[_STATE + 2] = order, depth, has_matrix


@bare()
def _accept(ws, order, h, from_differences):
    """z, f, f' and the exponents of the new point become the last ones."""
    history, trial, stride = view(History, ws), view(Trial, ws), view(Sizes, ws).padded
    remember(ws, order)
    if from_differences:
        derivative_from_differences(ws, order, trial.df)
    for b in range(0, stride, EIGHT):
        old = load(history.z, b)
        step = load(trial.guess, b) + load(history.z_low, b)
        moved = old + step
        store(history.z_low, b, step - (moved - old))
        store(history.z, b, moved)
        store(history.df, b, load(trial.df, b))
    copied(trial.exponents, view(Sizes, ws).terms * stride, history.exponents)
    for j in range(HISTORY, 0, -1):
        history.spans[j] = history.spans[j - 1]
    history.spans[0] = h
    if view(Sizes, ws).mapping != 0:
        call(view(Sizes, ws).mapping, (c.COMMIT, ws.buffer, ws.table, trial.guess))


@bare()
def _next_order(order, errors, lower, higher):
    """The order with the longest predicted step, and the logarithm of its ratio to this step."""
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
    """The ratio of the next step to this one."""
    factor = c.SAFETY * math.exp(promise)
    if after_rejection:
        factor = min(factor, 1.0)
    most = c.GROW if error > c.CALM or stiff > c.STIFF else c.GROW_CALM if error > c.QUIET else c.GROW_QUIET
    return min(most, max(c.SHRINK, factor))


@compiled(explicit=True, declared=(float64, float64, int64, VECTOR, INTEGERS, VECTOR, INTEGERS, VECTOR))
def march(tol, t_end, max_steps, buffer, table, clock, counts, records):
    """Take steps until `t_end`, a full record or a spent budget.

    The state is kept between calls, so that the result does not depend on where a call ends: the workspace, which
    begins with the problem, ``clock`` and ``counts`` (see :mod:`flowsim.solvers.multistep.constants`).
    `buffer`, `table`: the workspace (:func:`flowsim.solvers.multistep.workspace.layout`); `records`: t (S + 1), h and
    past points (S each), then z, f and f' (S + 1 rows each), for ``S = counts[CAPACITY]`` steps.
    """
    ws, capacity = Workspace(pointer(buffer, 0), pointer(table, 0)), counts[c.CAPACITY]
    state, sizes, tally = view(State, ws), view(Sizes, ws), pointer(counts, 0)
    record = open_records(pointer(records, 0), capacity, sizes.width)
    order, depth, has_matrix = state.order, state.depth, state.has_matrix > 0
    largest_exponent, fastest, least = _largest(ws)
    rejections = steps_here = 0
    while True:
        t, unit = clock[c.TIME], clock[c.UNIT]
        left = (t_end - t) - clock[c.TIME_LOW]
        if left <= 0.0 or steps_here >= max_steps or counts[c.RECORDED] >= capacity:
            _keep_state(table, order, depth, has_matrix)
            return COMPLETED if left <= 0.0 else BUDGET if steps_here >= max_steps else FULL
        reach = min(left * unit, c.LONGEST)
        if order == 0:
            if not _start(ws, clock, tally, reach):
                return NON_FINITE
            order, depth, has_matrix = 1, 0, False
            if sizes.mapping != 0 and cross(ws, clock, counts, 0.0, t_end, 0.0, record) == 1:
                order = 0
                steps_here += 1
                continue
        h, new, inside = _predicted(ws, order, depth, _next_step(clock, reach), t)
        if not inside:
            _keep_state(table, order, depth, has_matrix)
            return REFRESH
        if new > 0.0:
            activate(ws, h)
            has_matrix = False
        gather_listed(ws)
        speed = 0.0 if fastest > 0.0 and least == 0.0 and depth > 0 and _has_decayed(ws) else fastest
        allowed = _allowed(tol, depth, largest_exponent + speed * t)
        choose_products(ws, h, allowed)
        _write_equation(ws, order, h, allowed)
        outcome = call_newton(ws, c.SOLVE, has_matrix, tally)
        solved, has_matrix, stiff = outcome % 2 > 0, outcome > 1, view(Formula, ws).equation[4]

        failure, error, below, above = 0, 0.0, 0.0, 0.0
        lower, higher = order > 1, order < c.MOST and depth > order
        if solved:
            error, below, above = _errors(ws, order, h, lower, higher, allowed, has_matrix, stiff, tally)
            if not error <= 1.0:
                failure = STEP_FLOOR
                clock[c.NEXT_STEP] = h * max(c.SHRINK, 0.9 * min(error, 1e100) ** (-1.0 / (order + 3)))
                if rejections > 0 and order > 1:
                    order -= 1
            elif sizes.screen != 0 and call(sizes.screen, (0, ws.buffer, ws.table, view(Trial, ws).guess)) > 0:
                # Return to load coordinates that may matter, unless they have just been loaded.
                clock[c.NEXT_STEP] = h
                if steps_here > 0:
                    _keep_state(table, order, depth, has_matrix)
                    return REFRESH
                failure, clock[c.NEXT_STEP] = STEP_FLOOR, 0.5 * h
        else:
            failure, has_matrix, clock[c.NEXT_STEP] = NON_FINITE, reset_matrix(ws), c.RETRY * h
        if failure != 0:
            counts[c.REJECTED] += 1
            rejections += 1
            if rejections > c.REJECTIONS:
                return failure
            continue

        if has_matrix and sizes.graded == 0 and stiff > c.PROJECTED:
            has_matrix = call_newton(ws, c.PROJECT, 1, tally) > 0
        begin_record(ws, clock, counts, record)
        note_scales(ws)
        _accept(ws, order, h, sizes.graded == 0 and stiff > c.PROJECTED and depth > order)
        record_step(ws, clock, counts, h / unit, order, h == left * unit, t_end, record)
        steps_here, depth = steps_here + 1, depth + 1
        close = c.REST * allowed if stiff > c.LONG_AT_REST else 0.0
        crossed = cross(ws, clock, counts, h, t_end, close, record) if speed == 0.0 else 0
        if crossed == 1:
            order = rejections = 0
            steps_here += 1
            continue
        has_matrix = reset_matrix(ws) if crossed == 2 else has_matrix
        order, promise = _next_order(order, (error, below, above), lower, higher)
        clock[c.NEXT_STEP] = h * _growth(error, stiff, promise, rejections > 0)
        rejections = 0
