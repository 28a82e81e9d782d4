"""Active coordinates at rest, and the straight line of all others to the end of a run."""

from __future__ import annotations

import math

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.active import log_reach
from flowsim.solvers.multistep.constants import DROP_ROUNDING
from flowsim.solvers.multistep.exponentials import exponents_at
from flowsim.solvers.multistep.implicit_rest import rests
from flowsim.solvers.multistep.iteration_matrix import copied
from flowsim.solvers.multistep.loss import own_curvature
from flowsim.solvers.multistep.newton import call_newton, call_to_rest
from flowsim.solvers.multistep.workspace import Active, History, Newton, Scales, Sizes, Trial, Values
from flowsim.solvers.simd import view


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
def _stays_hidden(ws, t, left):
    """Whether no coordinate acts on others along ``Trial.f`` to the end of the run; f that is rounding is set to 0."""
    sizes, trial, level, before = view(Sizes, ws), view(Trial, ws), view(Scales, ws).level, view(History, ws).exponents
    reach = log_reach(ws, left)
    call_newton(ws, DROP_ROUNDING, 0, ws.table)
    for s in range(sizes.padded):
        trial.guess[s] = left * trial.f[s]
    if not exponents_at(ws, trial.guess, t + left):
        return False
    for s in range(sizes.width):
        if rests(ws, s):
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
    copied(history.f, stride, trial.f)
    if fastest > 0.0 and not call_to_rest(ws, close, fastest, left):
        return 2
    if not _stays_hidden(ws, t, left):
        return 2 if fastest > 0.0 else 0
    for s in range(n_active):
        if beta_z[s] > 0.0:
            history.z[s] += view(Newton, ws).delta[s]
    for s in range(stride):
        history.f[s], history.df[s] = trial.f[s], 0.0
    return 1
