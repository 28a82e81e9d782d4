"""Blow-up at finite z (:mod:`~flowsim.solvers.multistep.distances`): a map that the loop calls by address.

The unknowns are the distances to the two blow-ups, from 1e300 or more down to 1, which z does not resolve. They are
updated when a step is accepted, with their rounding errors; errors are relative to them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from flowsim.solvers.compilation import bare, compiled_callback
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.active import log_reach
from flowsim.solvers.multistep.distances import (
    LEVEL,
    TOLERANCE,
    UNIT,
    away,
    log_size,
    move,
    reach_of,
    sides_at,
    size_to_distance,
    values_of,
)
from flowsim.solvers.multistep.straight_lines import cross
from flowsim.solvers.multistep.workspace import (
    Active,
    Formula,
    History,
    Index,
    Newton,
    Scales,
    Sizes,
    Trial,
    Values,
    Workspace,
)
from flowsim.solvers.simd import at_address, view

#: e-foldings below the level of activity beyond which a coordinate's size is not computed.
_FAR = 8.0
#: Rounding errors of distances, below which no error in z is required.
ROUNDINGS = 16.0 * float(np.finfo(np.float64).eps)


@bare()
def _locate(ws, sides, guess):
    """ln |beta| at z + guess, infinite beyond the blow-up; for coordinates far below their level a lower value."""
    exponents, coordinate = view(Trial, ws).exponents, view(Index, ws).coordinate
    far = size_to_distance(sides.power, sides.head[LEVEL] - log_reach(ws, view(Formula, ws).step[0]) - _FAR)
    for s in range(view(Sizes, ws).width):
        i = coordinate[s]
        above, below = away(sides, 0, i, guess[s]), away(sides, 1, i, guess[s])
        distance = min(above, below)
        exponents[s] = -np.inf if distance >= far else log_size(sides, 0 if above <= below else 1, i, distance)
    return 1


@bare()
def _evaluate(ws, sides):
    active, values, guess = view(Active, ws), view(Values, ws), view(Trial, ws).guess
    for s in range(active.padded):
        beta = beta_z = beta_zz = 0.0
        if s < active.n:
            i = view(Index, ws).coordinate[s]
            above, below = away(sides, 0, i, guess[s]), away(sides, 1, i, guess[s])
            side = 0 if above <= below else 1
            if min(above, below) < np.inf:
                beta, beta_z, beta_zz = values_of(sides, side, i, min(above, below))
            if not beta_z >= 0.0:
                return 0
            moves = sides.moves[side * sides.d + i]
            beta_z, beta_zz = moves * beta_z, moves * moves * beta_zz
            if side == 1:
                beta, beta_zz = -beta, -beta_zz
        values.beta[s], values.beta_z[s], values.beta_zz[s] = beta, beta_z, beta_zz
        values.beta_t[s] = values.beta_zt[s] = 0.0
    return 1


@bare()
def _shorten(ws, sides, exponents):
    """The part of the step after which no beta exceeds its admissible growth."""
    formula, before, level = view(Formula, ws), view(History, ws).exponents, view(Scales, ws).level
    log_h, coordinate, part = log_reach(ws, formula.step[0]), view(Index, ws).coordinate, 1.0
    for s in range(view(Sizes, ws).width):
        largest = max(level[s] + c.ENTRY - log_h, before[s] + c.GROWTH)
        if exponents[s] > largest:
            goal = size_to_distance(sides.power, largest)
            for side in range(2):
                now = away(sides, side, coordinate[s], 0.0)
                step = now - away(sides, side, coordinate[s], view(Trial, ws).guess[s])
                if not (step > 0.0 and now < np.inf):
                    continue
                reach = reach_of(sides, side, coordinate[s], now)
                if reach != now:
                    # On a table: by its own growth.
                    goal = now - c.GROWTH * (1.0 - 2.0 / sides.power) * reach
                if now - step < goal:
                    part = min(part, (now - goal) / step)
    formula.part[0] = max(part, 1e-3)
    return 1


@bare()
def note(ws, sides):
    """Set the weights of errors at the present distances, and record the distances."""
    scales, active, coordinate = view(Scales, ws), view(Active, ws), view(Index, ws).coordinate
    unit, tol, L = sides.head[UNIT], sides.head[TOLERANCE], sides.power
    for s in range(view(Sizes, ws).width):
        i = coordinate[s]
        side = 0 if sides.distance[i] <= sides.distance[sides.d + i] else 1
        near = sides.distance[side * sides.d + i] * unit
        # Half of the relative error of beta; an error made while the weight is small grows with it until the weight is
        # 1.
        reach = reach_of(sides, side, i, near)
        gain = 0.5 * L * max(1.0 / ((L - 2.0) * max(reach, 1e-300)), 1.0)
        scales.gain[s] = sides.moves[side * sides.d + i] * min(gain, tol / (ROUNDINGS * max(abs(near), 1e-300)))
    for s in range(active.n):
        view(Newton, ws).gain[s] = scales.gain[s]
    sides.row[0] += 1
    record = at_address(sides.record, 0, 1.0)
    for at in range(2 * sides.d):
        record[sides.row[0] * 2 * sides.d + at] = sides.distance[at]


@bare()
def _commit(ws, sides, guess):
    unit, coordinate = sides.head[UNIT], view(Index, ws).coordinate
    for s in range(view(Sizes, ws).width):
        move(sides, coordinate[s], guess[s] / unit)


@cache
def address() -> int:
    """Address of the function ``(task, buffer, table, guess)``."""

    def distances(task, buffer, table, guess):
        ws = Workspace(buffer, table)
        sides = sides_at(view(Sizes, ws).map_integers, view(Sizes, ws).map_numbers)
        if task == c.LOCATE:
            return _locate(ws, sides, guess)
        if task == c.EVALUATE:
            return _evaluate(ws, sides)
        if task == c.SHORTEN:
            return _shorten(ws, sides, guess)
        answer = 1
        if task == c.COMMIT:
            _commit(ws, sides, guess)
        else:
            answer = cross(ws, sides)
        if answer == 1:
            note(ws, sides)
        return answer

    found = compiled_callback("int64(int64, CPointer(float64), CPointer(int64), CPointer(float64))")(distances)
    return int(found.address)
