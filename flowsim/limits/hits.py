"""One pass over the coordinates: who reaches a wall next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.compilation import compiled, part

__all__ = ["BLOCK", "BUFFER", "arrivals", "examine", "next_hits", "tabulate"]

Array = NDArray[np.float64]

#: Relative to a threshold: two hits nearer than this are one jump. Far above the rounding of s, far below
#: what data can tell apart.
_TIE = 1e-12
#: Coordinates are looked at in blocks: first all at once without branches, one by one only if somebody is close.
BLOCK = 1024
#: Candidates kept during the pass with their duals and gradients; if there are more (a great many ties) everybody is
#: looked at again.
BUFFER = 256


def tabulate(side: Array) -> Array:
    """A wall as the pass reads it: equal entries need one block only, which stays in cache."""
    if len(side) > BLOCK and (side == side[0]).all():
        return np.full(BLOCK, float(side[0]))
    return np.array(side)  # a copy: what is broadcast cannot be written to, and compiled code insists


def next_hits(
    s: Array, previous: Array, elapsed: float, g: Array, walls: tuple[Array, ...], flags: NDArray[np.uint8],
    rounding: Array, t: float, age: float,
) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Bring s up to time t and find the waiting time to the next hit.

    Parameters
    ----------
    s : array (d,), changed in place
        The dual at time ``t - elapsed``; afterwards at t.
    previous, g : array (d,)
        The gradient during the last wait, and now.
    walls : four arrays from `tabulate`
        Upper and lower thresholds and penalties.
    flags : array (d,)
        Which walls a coordinate stands at: 1 upper, 2 lower, 3 both.
    rounding : array (d,)
        Rates up to this size are zero.
    age : float
        What all plateaus so far have added to the duals' rounding, in units of the present rate's: ``rounding * age``.

    Returns
    -------
    wait : float
        inf if nothing moves towards a wall any more.
    coordinates, signs : arrays
        Everyone who arrives after that wait, within rounding.
    """
    buffer, kept = np.empty(BUFFER, np.int64), np.empty((2, BUFFER))
    wait, count = _advance(s, previous, elapsed, g, walls, (flags, rounding), (float(t), float(age)), (buffer, kept))
    if count > BUFFER:
        return arrivals(wait, np.arange(len(s)), np.stack([s, g]), walls, flags, rounding, t, age)
    return arrivals(wait, buffer[:count], kept[:, :count], walls, flags, rounding, t, age)


def arrivals(
    wait: float, near: NDArray[np.int64], both: Array, walls: tuple[Array, ...], flags: NDArray[np.uint8],
    rounding: Array, t: float, age: float,
) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Of those near, with their duals and gradients, who arrives after the wait within rounding; and at which wall."""
    s, g = both
    up = g < 0
    upper, lower, up_cost, low_cost = (side[near] if len(side) > BLOCK else side[near % BLOCK] for side in walls)
    rate = np.abs(g) - np.where(up, up_cost, low_cost)
    wall = np.where(up, upper + up_cost * t, lower + low_cost * t)
    gap = np.maximum(wall - np.where(up, s, -s), 0.0)
    standing = (flags[near] & np.where(up, 1, 2)) != 0
    slack = gap - _TIE * np.where(np.isinf(wall), 0.0, wall) - rounding[near] * (age + wait)
    chosen = (rate > rounding[near]) & ~standing & (slack <= wait * rate)
    return wait, near[chosen], np.where(up[chosen], 1, -1)


@part()
def examine(best, count, first, dual, pulls, walls, stands, times, near, late):  # pragma: no cover
    """The least wait in one block of coordinates, and who came within rounding of the least so far.

    `walls` are four arrays, each whole or one block of equal entries; `stands` are flags and rounding; `times` are t
    and age; `near` keeps coordinates and their duals and gradients.
    """
    size, (t, age), (buffer, kept) = len(dual), times, near
    last = first + size
    # Slices: an index into them is plainly in range, and the loop becomes vector instructions.
    high = walls[0][first:last] if len(walls[0]) > BLOCK else walls[0][:size]
    low = walls[1][first:last] if len(walls[1]) > BLOCK else walls[1][:size]
    high_cost = walls[2][first:last] if len(walls[2]) > BLOCK else walls[2][:size]
    low_cost = walls[3][first:last] if len(walls[3]) > BLOCK else walls[3][:size]
    flags, blur = stands[0][first:last], stands[1][first:last]
    # Where everybody would stand after the best wait so far, against walls drawn in by rounding.
    ahead = min(best, 1e300)
    then, shrink = t + ahead, 1.0 - 2.0 * _TIE
    near = 0
    for j in range(size):
        there, slack = dual[j] - ahead * pulls[j], blur[j] * (age + ahead)
        over = there - (high[j] + high_cost[j] * then) * shrink
        under = -there - (low[j] + low_cost[j] * then) * shrink
        late[j] = max(over, under) + slack
        near += late[j] >= 0.0
    if near == 0:
        return best, count
    for j in range(size):
        if late[j] < 0.0:
            continue
        up = pulls[j] < 0.0
        if flags[j] & (1 if up else 2):
            continue
        cost = high_cost[j] if up else low_cost[j]
        wall = (high[j] if up else low[j]) + cost * t
        if not wall < np.inf:
            continue
        rate, gap = abs(pulls[j]) - cost, wall - (dual[j] if up else -dual[j])
        if not rate > blur[j]:
            continue
        if gap - _TIE * wall - blur[j] * age <= best * (rate + blur[j]):
            if count < len(buffer):
                buffer[count] = first + j
                kept[0, count], kept[1, count] = dual[j], pulls[j]
            count += 1
            best = min(best, max(gap, 0.0) / rate)
    return best, count


@compiled()
def _advance(s, previous, elapsed, g, walls, stands, times, near):  # pragma: no cover
    """The least wait, and all who came within rounding of the least so far; the last of them matter."""
    best, count = np.inf, np.int64(0)
    d = len(s)
    late = np.empty(BLOCK)
    for first in range(0, d, BLOCK):
        size = min(BLOCK, d - first)
        last = first + size
        dual, before = s[first:last], previous[first:last]
        for j in range(size):
            dual[j] -= elapsed * before[j]
        best, count = examine(best, count, first, dual, g[first:last], walls, stands, times, near, late)
    return best, count
