"""Active coordinates at rest: their distance from it, and the straight line of all others to the end of a run."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.active import log_reach
from flowsim.solvers.multistep.constants import FIRST, ONCE
from flowsim.solvers.multistep.exponentials import exponents_at
from flowsim.solvers.multistep.iteration_matrix import copied, renew, shrink, size
from flowsim.solvers.multistep.loss import own_curvature
from flowsim.solvers.multistep.products import row_sums, subtract_gram
from flowsim.solvers.multistep.workspace import Active, History, Loss, Newton, Problem, Scales, Sizes, Trial, Values
from flowsim.solvers.simd import view

#: Largest implicit Euler step that measures the distance from rest, over the fastest time scale, limited by rounding.
_IMPLICIT = 1e10
#: Rounding of a sum of products in f.
_ROUNDING = 16.0 * float(np.finfo(np.float64).eps)
#: Implicit steps that leave only what they do not damp, and the size, relative to its terms, of a sum that vanishes.
_MANY, _VANISHES = np.int64(16), 1e-9


@bare()
def at_rest(ws, close):
    """The fastest rate of the coordinates that are active and individually at rest within `close`.

    For the others the slope is set to 0: the caller tests whether they are active.
    """
    active, beta_z = view(Active, ws), view(Values, ws).beta_z
    f, gain, fastest = view(History, ws).f, view(Scales, ws).gain, 0.0
    for s in range(active.n):
        rate = own_curvature(ws, s) * beta_z[s]
        if gain[s] * abs(f[s]) <= close * rate:
            fastest = max(fastest, rate)
        else:
            beta_z[s] = 0.0
    return fastest


@bare()
def _rests(ws, s):
    return s < view(Active, ws).n and view(Values, ws).beta_z[s] > 0.0


@bare()
def _note_rounding(ws, x):
    """Set ``Problem.row_work`` to the rounding of ``W A x / sqrt(n)``; returns the largest."""
    problem, loss, is_square, most = view(Problem, ws), view(Loss, ws), view(Sizes, ws).loss == 0, 0.0
    for q in range(view(Sizes, ws).rows):
        curvature = 1.0 if is_square else loss.curvature[q]
        problem.row_work[q] = _ROUNDING * curvature * row_sums(ws, q, x)[1]
        most = max(most, problem.row_work[q])
    return most


@bare()
def drop_rounding(ws):
    """Set slopes ``Trial.f`` that are rounding to 0."""
    f, sizes, problem = view(Trial, ws).f, view(Sizes, ws), view(Problem, ws)
    _note_rounding(ws, view(Values, ws).beta)
    for s in range(sizes.padded):
        rounding = 0.0
        for q in range(sizes.rows):
            rounding += abs(problem.design[q * sizes.padded + s]) * problem.row_work[q]
        if s >= sizes.width or abs(f[s]) <= rounding:
            f[s] = 0.0


@bare()
def _undamped(ws, theta, v):
    """Reduce ``v = F f`` to what implicit steps F do not damp: the ratio of its size to what one more step takes off.

    0 where ``A D v`` vanishes: v is rounding then, since ``f . D v = r . A D v``.
    """
    active, newton, beta_z = view(Active, ws), view(Newton, ws), view(Values, ws).beta_z
    change = newton.change_f
    shrink(ws, v, _MANY)
    before = after = 0.0
    for _ in range(2):
        # F v = v - theta F G D v, with the rounding of what is damped.
        for s in range(active.padded):
            v[s] = v[s] if _rests(ws, s) else 0.0
            newton.work[s] = beta_z[s] * v[s]
        subtract_gram(ws, newton.work, FIRST, active.padded, newton.zero, change)
        shrink(ws, change, ONCE)
        before, after = size(v, newton.gain, active.padded), theta * size(change, newton.gain, active.padded)
        for s in range(active.padded):
            v[s] = v[s] + theta * change[s] if _rests(ws, s) else 0.0
            newton.work[s] = beta_z[s] * v[s]
    most = _note_rounding(ws, newton.work)
    for q in range(view(Sizes, ws).rows):
        total, terms = row_sums(ws, q, newton.work)
        if abs(total) > _VANISHES * terms + most:
            return before / after
    return 0.0


@bare()
def to_rest(ws, close, fastest, left):
    """Move active coordinates to rest by an implicit Euler step over the rest of the run; False if too far.

    ``theta F f``, ``F = (I + theta G D)^-1``, with f of the others updated in ``Trial.f``. Where active columns are
    dependent, f has a part that no step damps: rounding, left out.
    """
    active, newton, f, beta_z = view(Active, ws), view(Newton, ws), view(Trial, ws).f, view(Values, ws).beta_z
    theta = min(left, _IMPLICIT / fastest)
    if not renew(ws, theta):
        return False
    delta, kept = newton.delta, newton.before
    for s in range(active.padded):
        delta[s] = f[s] if _rests(ws, s) else 0.0
    shrink(ws, delta, ONCE)
    copied(delta, active.padded, kept)
    ratio = _undamped(ws, theta, kept)
    for s in range(active.padded):
        rest = kept[s] if ratio == 0.0 else 0.0
        delta[s] = theta * (delta[s] - rest) if _rests(ws, s) else 0.0
        newton.work[s] = beta_z[s] * delta[s]
    if not max(ratio, 1.0) * size(delta, newton.gain, active.padded) <= close:
        return False
    subtract_gram(ws, newton.work, FIRST, view(Sizes, ws).padded, f, f)
    for s in range(active.n):
        if beta_z[s] > 0.0:
            f[s] = 0.0
    return True


@bare()
def _stays_hidden(ws, t, left):
    """Whether no coordinate acts on others along ``Trial.f`` to the end of the run; f that is rounding is set to 0."""
    sizes, trial, level, before = view(Sizes, ws), view(Trial, ws), view(Scales, ws).level, view(History, ws).exponents
    reach = log_reach(ws, left)
    drop_rounding(ws)
    for s in range(sizes.padded):
        trial.guess[s] = left * trial.f[s]
    if not exponents_at(ws, trial.guess, t + left):
        return False
    for s in range(sizes.width):
        if _rests(ws, s):
            continue
        for a in range(s, sizes.terms * sizes.padded, sizes.padded):
            # What falls acts for as long as its exponent takes to fall by one; what hardly moves, by its change.
            change = abs(trial.exponents[a] - before[a])
            fall = math.log(change) if trial.exponents[a] < before[a] and change > 1.0 else 0.0
            effect = max(before[a] - fall, trial.exponents[a]) + (math.log(change) if 0.0 < change < 1.0 else 0.0)
            if change > 0.0 and effect + reach > level[s]:
                return False
    return True


@bare()
def line_to_end(ws, t, left, close):
    """Straight lines to the end of the run, along f: 1 if active coordinates are at rest and no other becomes active.

    0 if not, 2 if not and the matrix was reset.
    """
    history, trial, beta_z = view(History, ws), view(Trial, ws), view(Values, ws).beta_z
    stride, n_active = view(Sizes, ws).padded, view(Active, ws).n
    fastest = at_rest(ws, close)
    for s in range(stride):
        trial.f[s] = history.f[s]
    if fastest > 0.0 and not to_rest(ws, close, fastest, left):
        return 2
    if not _stays_hidden(ws, t, left):
        return 2 if fastest > 0.0 else 0
    for s in range(n_active):
        if beta_z[s] > 0.0:
            history.z[s] += view(Newton, ws).delta[s]
    for s in range(stride):
        history.f[s], history.df[s] = trial.f[s], 0.0
    return 1
