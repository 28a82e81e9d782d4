"""Straight lines: the motion of all other coordinates while active ones are at rest.

One exact step takes them to the next activation, at any distance, where the formulas restart:
over a plateau of 1e300 neither f nor f' of coordinates at rest is accurate enough for a step.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.coming_to_rest import at_rest
from flowsim.solvers.multistep.distances import (
    CLOSE,
    TOLERANCE,
    UNIT,
    end_of,
    goal_of,
    log_size,
    move,
    reach_of,
    size_to_distance,
)
from flowsim.solvers.multistep.loss import is_at_rest
from flowsim.solvers.multistep.newton import call_newton, call_to_rest
from flowsim.solvers.multistep.workspace import (
    Active,
    Formula,
    History,
    Index,
    Loss,
    Newton,
    Scales,
    Sizes,
    Trial,
    Values,
)
from flowsim.solvers.simd import view

#: Relative difference below which arrivals coincide.
_TIE = 1e-13
#: Ratio to the last step from which on a straight line is taken.
_LONGER = 10.0
#: A failed test of rest is repeated once coordinates are this much closer.
_CLOSER = 0.1
#: Bound on the neglected motion of others along a line.
_SEEN = 1e-3
#: The first step after a line, relative to the time to the blow-up.
_FIRST = 0.25


@bare()
def _leeway(ws, sides):
    """The increase of the level of activity along a line, in logarithms.

    The neglected motion of others counts as an error of theirs, and distances have rounding errors.
    """
    active, beta_z, gain, largest = view(Active, ws), view(Values, ws).beta_z, view(Scales, ws).gain, 1e-300
    for s in range(view(Sizes, ws).width):
        if s >= active.n or beta_z[s] == 0.0:
            largest = max(largest, gain[s])
    return min(max(math.log(0.5 * sides.power / largest), 0.0), max(math.log(_SEEN / sides.head[TOLERANCE]), 0.0))


@bare()
def _entry(ws, sides, s):
    """The level at which a coordinate is active, and the distance at which it is active at any speed.

    The curvature of other losses is that of the last point, as long as no prediction changes much.
    """
    level, log_curvature = view(Scales, ws).level[s], view(Loss, ws).log_curvature
    return level + c.ENTRY - log_curvature[0], size_to_distance(sides.power, level - log_curvature[1])


@bare()
def _side_until(sides, side, i, entry, leeway, speed, left):
    """How long a side may move in a straight line, with `speed` towards its blow-up, before it is active.

    Not positive if it is active.
    """
    distance, unit = sides.distance[side * sides.d + i], sides.head[UNIT]
    entry, latest = entry
    end = end_of(sides, side, i, distance * unit)
    if end == end:
        # At a critical point of its formula beta is constant until z returns to where it was reached.
        return left if speed >= 0.0 else (end / unit - distance) / -speed
    if speed > 0.0:
        until = (distance - max(goal_of(sides, side, i, entry, speed), latest) / unit) / speed
        if until > 0.0:
            return until
        arrival = (distance - speed * left) * unit
        if arrival > latest and log_size(sides, side, i, arrival) + math.log(left) + math.log(unit) <= entry + leeway:
            # It does not become active in the time left.
            return left
        return (distance - max(goal_of(sides, side, i, entry + leeway, speed), latest) / unit) / speed
    if speed < 0.0 and distance <= sides.distance[(1 - side) * sides.d + i]:
        # It recedes: its remaining effect on others.
        span = min(left, 0.5 * (sides.power - 2.0) * reach_of(sides, side, i, distance * unit) / unit / -speed)
        if log_size(sides, side, i, distance * unit) + math.log(span) + math.log(unit) > entry + leeway:
            return -1.0
    return left


@bare()
def _wait(ws, sides, f, left):
    """How long straight lines along f may be before a coordinate is active, at most `left`; not positive if one is.

    In the unit of distances. Coordinates at rest have f = 0 and a non-zero ``Values.beta_z``.
    """
    active, beta_z = view(Active, ws), view(Values, ws).beta_z
    coordinate, leeway, wait = view(Index, ws).coordinate, _leeway(ws, sides), left
    for s in range(view(Sizes, ws).width):
        if s < active.n and beta_z[s] > 0.0:
            continue
        i = coordinate[s]
        for side in range(2):
            if sides.distance[side * sides.d + i] < np.inf:
                speed = sides.moves[side * sides.d + i] * (f[s] if side == 0 else -f[s])
                wait = min(wait, _side_until(sides, side, i, _entry(ws, sides, s), leeway, speed, left))
                if wait <= 0.0:
                    return wait
    return wait


@bare()
def _follow_line(ws, sides, f, length):
    """Set the distances at the end of a line; returns the first step from there."""
    unit, coordinate = sides.head[UNIT], view(Index, ws).coordinate
    first = np.inf
    for s in range(view(Sizes, ws).width):
        if f[s] == 0.0:
            continue
        i, side = coordinate[s], 0 if f[s] > 0.0 else 1
        at, left = side * sides.d + i, (1 - side) * sides.d + i
        before, speed = sides.distance[at], sides.moves[at] * abs(f[s])
        end, was = end_of(sides, 1 - side, i, sides.distance[left] * unit) / unit, sides.distance[left]
        move(sides, i, f[s] * length)
        if abs(sides.distance[left] - end) <= _TIE * abs(was):
            # Back at the point where it reached a critical point.
            sides.distance[left], sides.rounding[left] = end, 0.0
            first = min(first, abs(end) * unit / (sides.moves[left] * abs(f[s])))
        if 0.0 < before < np.inf:
            entry, latest = _entry(ws, sides, s)
            goal = max(goal_of(sides, side, i, entry, speed), latest) / unit
            if abs(sides.distance[at] - goal) <= _TIE * before:
                # The distance left is below the rounding of the distance travelled.
                sides.distance[at], sides.rounding[at] = goal, 0.0
            first = min(first, abs(sides.distance[at]) * unit / speed)
    return _FIRST * first


@bare()
def cross(ws, sides):
    """A straight line while active coordinates are at rest: 1 if taken, 0 if not, 2 if not and the matrix was reset.

    ``Formula.step`` holds the remaining length, then that of the line, in the unit of distances; ``Formula.part``
    the last step, then the next one, in units of steps.
    """
    formula, history, f, beta_z = view(Formula, ws), view(History, ws), view(Trial, ws).f, view(Values, ws).beta_z
    stride, n_active, left, unit = view(Sizes, ws).padded, view(Active, ws).n, formula.step[0], sides.head[UNIT]
    rests = is_at_rest(ws)
    fastest = 0.0 if rests else at_rest(ws, sides.head[CLOSE])
    for s in range(stride):
        f[s] = 0.0 if rests or (s < n_active and beta_z[s] > 0.0) else history.f[s]
    call_newton(ws, c.DROP_ROUNDING, 0, ws.table)
    length = left if rests else _wait(ws, sides, f, left)
    if not length * unit > _LONGER * formula.part[0]:
        return 0
    if fastest > 0.0:
        for s in range(n_active):
            f[s] = history.f[s]
        if not call_to_rest(ws, sides.head[CLOSE], fastest, min(left * unit, c.LONGEST)):
            sides.head[CLOSE] *= _CLOSER
            return 2
        call_newton(ws, c.DROP_ROUNDING, 0, ws.table)
        length = _wait(ws, sides, f, left)
        if not length > 0.0:
            return 2
        for s in range(n_active):
            if beta_z[s] > 0.0:
                move(sides, view(Index, ws).coordinate[s], view(Newton, ws).delta[s] / unit)
    formula.step[0], formula.part[0] = length, _follow_line(ws, sides, f, length)
    for s in range(stride):
        history.f[s], history.df[s], history.z[s], history.z_low[s] = f[s], 0.0, 0.0, 0.0
    for a in range(stride, c.HISTORY * stride):
        history.f[a] = 0.0
    for a in range(c.HISTORY + 2):
        history.spans[a] = c.MISSING
    sides.head[CLOSE] = c.REST * sides.head[TOLERANCE] / c.CAUTION
    return 1
