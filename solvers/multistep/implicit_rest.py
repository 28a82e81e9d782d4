"""The distance of active coordinates from rest, by an implicit Euler step over the rest of a run."""

from __future__ import annotations

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.constants import FIRST, ONCE
from flowsim.solvers.multistep.iteration_matrix import copied, renew, shrink, size
from flowsim.solvers.multistep.products import row_sums, subtract_gram
from flowsim.solvers.multistep.workspace import Active, Loss, Newton, Problem, Sizes, Trial, Values
from flowsim.solvers.simd import view

#: Largest implicit Euler step that measures the distance from rest, over the fastest time scale, limited by rounding.
_IMPLICIT = 1e10
#: Rounding of a sum of products in f.
_ROUNDING = 16.0 * float(np.finfo(np.float64).eps)
#: Implicit steps that leave only what they do not damp, and the size, relative to its terms, of a sum that vanishes.
_MANY, _VANISHES = np.int64(16), 1e-9


@bare()
def rests(ws, s):
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
            v[s] = v[s] if rests(ws, s) else 0.0
            newton.work[s] = beta_z[s] * v[s]
        subtract_gram(ws, newton.work, FIRST, active.padded, newton.zero, change)
        shrink(ws, change, ONCE)
        before, after = size(v, newton.gain, active.padded), theta * size(change, newton.gain, active.padded)
        for s in range(active.padded):
            v[s] = v[s] + theta * change[s] if rests(ws, s) else 0.0
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
        delta[s] = f[s] if rests(ws, s) else 0.0
    shrink(ws, delta, ONCE)
    copied(delta, active.padded, kept)
    ratio = _undamped(ws, theta, kept)
    for s in range(active.padded):
        rest = kept[s] if ratio == 0.0 else 0.0
        delta[s] = theta * (delta[s] - rest) if rests(ws, s) else 0.0
        newton.work[s] = beta_z[s] * delta[s]
    if not max(ratio, 1.0) * size(delta, newton.gain, active.padded) <= close:
        return False
    subtract_gram(ws, newton.work, FIRST, view(Sizes, ws).padded, f, f)
    for s in range(active.n):
        if beta_z[s] > 0.0:
            f[s] = 0.0
    return True
