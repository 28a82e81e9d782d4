r"""Coordinates that blow up at finite z, in compiled code: beta as a function of their distances.

Products of L >= 3 weights: with x the weight of smallest modulus and m_j^2 the differences of the other squares from
x^2, all conserved,

.. math:: \beta = \pm x \prod_{j<L} \sqrt{x^2 + m_j^2}, \qquad
          Y^\pm = \pm(T^\pm - z) = \int_x^\infty \frac{d\xi}{\prod_j \sqrt{\xi^2 + m_j^2}} ,

so that :math:`|\beta| \sim ((L - 2) Y)^{-L/(L-2)}`. Or any growth by such a power law while beta is small, and a
table of Chebyshev polynomials beyond (:class:`flowsim.solvers.power_laws.PowerLaws`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.buffers import in_buffers
from flowsim.solvers.multistep.workspace import in_memory
from flowsim.solvers.simd import view

#: Largest m^2/x^2 for the series of a product, and iterations of Newton's method in ln x.
_SERIES, _NEWTON = 0.1, 4
#: Bisections that find a distance on a table.
_BISECTIONS = 40
#: Codes outside the pieces of a table: power law, critical point of the formula, end of the table.
_LAW, _CRITICAL, _ENDED = -1, -2, -3


@in_buffers(
    constants=("power", "d", "terms", "degree", "record"),
    indices=("row", "branch", "first", "rests"),
)
class Sides(NamedTuple):
    """Both sides of every coordinate: 0 is the blow-up above, 1 the one below."""

    power: Any  #: L
    d: Any
    terms: Any  #: of the series
    degree: Any  #: coefficients of a polynomial
    record: Any  #: address of the record of distances (rows, 2, d)
    row: Any  #: (1,), rows recorded
    head: Any  #: unit of z and time, tolerance, distance that counts as rest, the lowest level of activity
    #: (2, d), distances, their rounding errors, and their rates of change with z
    distance: Any
    rounding: Any
    moves: Any
    #: (L - 1, d), (terms, d), m^2 and the series of products
    squares: Any
    series: Any
    branch: Any  #: (2, d), the table of each side, -1 without one
    #: of each table its first piece, and whether it ends at a critical point
    first: Any
    rests: Any
    #: of each piece its ends, size of beta and fall with the distance
    low: Any
    high: Any
    size: Any
    fall: Any


#: Indices in ``head``.
UNIT, TOLERANCE, CLOSE, LEVEL = range(4)


@bare()
def sides_at(integers, numbers):
    """The tables in two buffers, of integers and of floats, at their addresses."""
    return view(Sides, in_memory(integers, numbers))


@bare()
def _product(sides, i, distance):
    """|beta|, ``-d|beta|/dY`` and ``d^2|beta|/dY^2``; NaN beyond the series."""
    L, d = sides.power, sides.d
    if L == 3:
        x = 1.0 / distance
    elif L == 4:
        x = 1.0 / math.sqrt(2.0 * distance)
    else:
        x = ((L - 2) * distance) ** (-1.0 / (L - 2))
    largest = 0.0
    for j in range(L - 1):
        largest = max(largest, sides.squares[j * d + i])
    whole = 1.0
    if largest == 0.0:
        for _ in range(L - 1):
            whole *= x
        return x * whole, L * whole * whole, (2.0 * L * (L - 1)) * whole * whole * (whole / x)
    if largest > _SERIES * x * x:
        return np.nan, np.nan, np.nan
    for _ in range(_NEWTON):
        u, total = 1.0 / (x * x), 0.0
        for k in range(sides.terms - 1, -1, -1):
            total = total * u + sides.series[k * d + i] / (L - 2 + 2 * k)
        root, found = 1.0, distance
        for j in range(L - 1):
            root *= 1.0 + sides.squares[j * d + i] * u
            found *= x if j > 0 else 1.0
        # In ln x, where the function is nearly linear.
        x *= 1.0 + (total - found) * math.sqrt(root)
    growth, bent = 1.0, 0.0
    for j in range(L - 1):
        ratio = sides.squares[j * d + i] / (x * x)
        part = 1.0 / (1.0 + ratio)
        whole *= x * math.sqrt(1.0 + ratio)
        growth += part
        bent += 2.0 * ratio * part * part
    return x * whole, whole * whole * growth, whole * whole * (whole / x) * (2.0 * (growth - 1.0) * growth + bent)


@bare()
def _piece(sides, b, distance):
    """The piece of a table that contains a distance."""
    low, high = sides.first[b], sides.first[b + 1] - 1
    if high < low or distance >= sides.high[low]:
        return _LAW
    if distance < sides.low[high]:
        return _CRITICAL if sides.rests[b] != 0 else _ENDED
    while low < high:
        middle = (low + high) // 2
        if distance >= sides.low[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@bare()
def _piece_of(sides, side, i, distance):
    b = sides.branch[side * sides.d + i]
    return _LAW if b < 0 else _piece(sides, b, distance)


@bare()
def end_of(sides, side, i, distance):
    """The distance at which a coordinate leaves a critical point of its formula; NaN if it is not at one."""
    if _piece_of(sides, side, i, distance) != _CRITICAL:
        return np.nan
    return sides.low[sides.first[sides.branch[side * sides.d + i] + 1] - 1]


@bare()
def _chebyshev(coefficients, first, count, x):
    """The sum, and its derivative."""
    value, slope = coefficients[first], 0.0
    before, now, rise_before, rise = 1.0, x, 0.0, 1.0
    for n in range(1, count):
        value += coefficients[first + n] * now
        slope += coefficients[first + n] * rise
        before, now, rise_before, rise = now, 2.0 * x * now - before, rise, 2.0 * now + 2.0 * x * rise - rise_before
    return value, slope


@bare()
def values_of(sides, side, i, distance):
    """|beta|, ``-d|beta|/dY`` and ``d^2|beta|/dY^2``, all in units of steps.

    NaN beyond the series of a product or the end of a table: a step with an active coordinate there is rejected.
    """
    p = _piece_of(sides, side, i, distance)
    if p == _LAW:
        if not distance > 0.0:
            return np.nan, np.nan, np.nan
        return _product(sides, i, distance)
    if p == _ENDED:
        return np.nan, np.nan, np.nan
    if p == _CRITICAL:
        last = sides.first[sides.branch[side * sides.d + i] + 1] - 1
        return _chebyshev(sides.size, last * sides.degree, sides.degree, -1.0)[0], 0.0, 0.0
    half = 0.5 * (sides.high[p] - sides.low[p])
    x = (distance - sides.low[p]) / half - 1.0
    fall, rise = _chebyshev(sides.fall, p * sides.degree, sides.degree, x)
    return _chebyshev(sides.size, p * sides.degree, sides.degree, x)[0], max(fall, 0.0), -rise / half


@bare()
def away(sides, side, i, change):
    """The distance of a side after a change of z, in units of steps."""
    moved = sides.moves[side * sides.d + i] * change
    return sides.distance[side * sides.d + i] * sides.head[UNIT] - (moved if side == 0 else -moved)


@bare()
def move(sides, i, change):
    """Update the distances of a coordinate after a change of z, in their own unit, with compensated rounding."""
    for side in range(2):
        at = side * sides.d + i
        if sides.distance[at] < np.inf:
            old = sides.distance[at]
            step = sides.rounding[at] + sides.moves[at] * (-change if side == 0 else change)
            sides.distance[at] = old + step
            sides.rounding[at] = step - (sides.distance[at] - old)


@bare()
def _log_law(L, distance):
    return -L / (L - 2.0) * math.log((L - 2.0) * distance)


@bare()
def size_to_distance(L, log_size):
    """The distance at which a power law has a given log size."""
    return math.exp(min((2.0 / L - 1.0) * log_size, 700.0)) / (L - 2.0)


@bare()
def log_size(sides, side, i, distance):
    """ln |beta| at a distance in units of steps; infinite beyond all tables."""
    p = _piece_of(sides, side, i, distance)
    if p == _LAW:
        return _log_law(sides.power, distance) if distance > 0.0 else np.inf
    size = values_of(sides, side, i, distance)[0]
    return math.log(size) if size > 0.0 else np.inf


@bare()
def reach_of(sides, side, i, distance):
    """The distance of the power law with the same relative growth; infinite without growth."""
    p = _piece_of(sides, side, i, distance)
    if p == _LAW:
        return distance
    size, fall, _ = values_of(sides, side, i, distance)
    return sides.power / (sides.power - 2.0) * size / fall if fall > 0.0 else np.inf


@bare()
def _law_goal(L, level, speed):
    """``((L-2) Y)^-p Y = p speed exp(level)``, p = L / (L - 2)."""
    p = L / (L - 2.0)
    return math.exp(min((level + math.log(p * speed) + p * math.log(L - 2.0)) / (1.0 - p), 700.0))


@bare()
def _log_effect(sides, side, i, distance):
    return log_size(sides, side, i, distance) + math.log(reach_of(sides, side, i, distance))


@bare()
def goal_of(sides, side, i, level, speed):
    """The distance at which a side becomes active: beta over its relative rate, p speed / reach, is at its level."""
    b = sides.branch[side * sides.d + i]
    if b < 0 or sides.first[b + 1] == sides.first[b]:
        return _law_goal(sides.power, level, speed)
    goal, least = _law_goal(sides.power, level, speed), level + math.log(sides.power / (sides.power - 2.0) * speed)
    p, last = sides.first[b], sides.first[b + 1] - 1
    if goal >= sides.high[p]:
        return goal
    while p < last and _log_effect(sides, side, i, sides.low[p]) < least:
        p += 1
    low, high = sides.low[p], sides.high[p]
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _log_effect(sides, side, i, middle) < least:
            high = middle
        else:
            low = middle
    return high
