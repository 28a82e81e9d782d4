"""The next breakpoint of the duals, found in one pass over the coordinates."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Integers
from flowsim.solvers.compilation import compiled, part

#: Of every coordinate the bounds at which it is, and the rounding of rates.
Stands = tuple[NDArray[np.uint8], Array]

#: Difference of two hits, relative to a threshold, below which they are one jump: far above the rounding of s, far
#: below what data resolve.
_TIE = 1e-12
#: Size of blocks of coordinates: examined without branches, then one by one if any is close to its bound.
BLOCK = 1024
#: Candidates stored during the pass with their duals and gradients; if there are more (many ties) all are
#: examined again.
BUFFER = 256
#: Calls of a process for few coordinates that NumPy answers, in 50 microseconds instead of 5: the pass is compiled when
#: there are more, as that takes two seconds.
_FEW = 500
_calls = itertools.count()


def tabulate(side: Array) -> Array:
    """A bound as an array for the pass: equal entries need one block only, which stays in cache."""
    if len(side) > BLOCK and (side == side[0]).all():
        return np.full(BLOCK, float(side[0]))
    return np.array(side)  # a copy: compiled code requires writable arrays, which broadcast ones are not


def next_hits(
    s: Array,
    previous: Array,
    elapsed: float,
    g: Array,
    bounds: tuple[Array, ...],
    stands: Stands,
    times: tuple[float, float],
) -> tuple[float, Integers, Integers]:
    """Advance s to time t and find the waiting time to the next hit.

    Parameters
    ----------
    s : array (d,), changed in place
        The dual at time ``t - elapsed``; afterwards at t.
    previous, g : array (d,)
        The gradient during the last wait, and now.
    bounds : four arrays from `tabulate`
        Upper and lower thresholds and penalties.
    stands : flags, rounding (d,)
        The bounds at which a coordinate is: 1 upper, 2 lower, 3 both. Rates up to `rounding` count as zero.
    times : t, age
        The accumulated rounding error of the duals is ``rounding * age``.

    Returns
    -------
    wait : float
        inf if no coordinate moves towards a bound.
    coordinates, signs : arrays
        Those that reach a bound after that wait, to rounding, and which.
    """
    if len(s) <= BLOCK and next(_calls) < _FEW:
        with np.errstate(over="ignore", invalid="ignore"):
            s -= elapsed * previous
            return arrivals(None, np.arange(len(s)), np.stack([s, g]), bounds, stands, times)
    buffer, kept = np.empty(BUFFER, np.int64), np.empty((2, BUFFER))
    wait, count = _advance(s, previous, elapsed, g, bounds, stands, times, (buffer, kept))
    if count > BUFFER:
        return arrivals(wait, np.arange(len(s)), np.stack([s, g]), bounds, stands, times)
    return arrivals(wait, buffer[:count], kept[:, :count], bounds, stands, times)


def arrivals(
    wait: float | None,
    near: Integers,
    both: Array,
    bounds: tuple[Array, ...],
    stands: Stands,
    times: tuple[float, float],
) -> tuple[float, Integers, Integers]:
    """Those of the candidates, with their duals and g, that reach a bound after the wait; and which bound.

    Without `wait` it is the least of the candidates.
    """
    (s, g), (flags, rounding), (t, age) = both, stands, times
    up = g < 0
    upper, lower, up_cost, low_cost = (side[near] if len(side) > BLOCK else side[near % BLOCK] for side in bounds)
    rate = np.abs(g) - np.where(up, up_cost, low_cost)
    bound = np.where(up, upper + up_cost * t, lower + low_cost * t)
    gap = np.maximum(bound - np.where(up, s, -s), 0.0)
    moving = (rate > rounding[near]) & ((flags[near] & np.where(up, 1, 2)) == 0)
    if wait is None:
        ahead = moving & (bound < np.inf)
        wait = float((gap[ahead] / rate[ahead]).min(initial=np.inf))
    slack = gap - _TIE * np.where(np.isinf(bound), 0.0, bound) - rounding[near] * (age + wait)
    chosen = moving & (slack <= wait * rate)
    return wait, near[chosen], np.where(up[chosen], 1, -1)


@part()
def examine(best, count, first, dual, g, bounds, stands, times, near, late):  # pragma: no cover
    """The least wait in one block of coordinates, and the candidates within rounding of the least so far.

    `bounds` are four arrays, each whole or one block of equal entries; `stands` are flags and rounding; `times` are t
    and age; `near` keeps coordinates and their duals and gradients.
    """
    size, (t, age), (buffer, kept) = len(dual), times, near
    last = first + size
    # Slices, whose indices are provably in range, so that the loop vectorises.
    high = bounds[0][first:last] if len(bounds[0]) > BLOCK else bounds[0][:size]
    low = bounds[1][first:last] if len(bounds[1]) > BLOCK else bounds[1][:size]
    high_cost = bounds[2][first:last] if len(bounds[2]) > BLOCK else bounds[2][:size]
    low_cost = bounds[3][first:last] if len(bounds[3]) > BLOCK else bounds[3][:size]
    flags, blur = stands[0][first:last], stands[1][first:last]
    # All duals after the least wait so far, against bounds reduced by rounding: of rates, so that overflow has a sign.
    ahead, shrink = min(best, 1e300), 1.0 - 2.0 * _TIE
    near = 0
    for j in range(size):
        over = dual[j] - (high[j] + high_cost[j] * t) * shrink + ahead * (blur[j] - g[j] - high_cost[j] * shrink)
        under = -dual[j] - (low[j] + low_cost[j] * t) * shrink + ahead * (blur[j] + g[j] - low_cost[j] * shrink)
        late[j] = max(over, under) + blur[j] * age
        near += late[j] >= 0.0
    if near == 0:
        return best, count
    for j in range(size):
        if late[j] < 0.0:
            continue
        up = g[j] < 0.0
        if flags[j] & (1 if up else 2):
            continue
        cost = high_cost[j] if up else low_cost[j]
        bound = (high[j] if up else low[j]) + cost * t
        if not bound < np.inf:
            continue
        rate, gap = abs(g[j]) - cost, bound - (dual[j] if up else -dual[j])
        if not rate > blur[j]:
            continue
        if gap - _TIE * bound - blur[j] * age <= best * (rate + blur[j]):
            if count < len(buffer):
                buffer[count] = first + j
                kept[0, count], kept[1, count] = dual[j], g[j]
            count += 1
            best = min(best, max(gap, 0.0) / rate)
    return best, count


@compiled()
def _advance(s, previous, elapsed, g, bounds, stands, times, near):  # pragma: no cover
    """The least wait, and candidates within rounding of the least so far; only the last of them count."""
    best, count = np.inf, np.int64(0)
    d = len(s)
    late = np.empty(BLOCK)
    for first in range(0, d, BLOCK):
        size = min(BLOCK, d - first)
        last = first + size
        dual, before = s[first:last], previous[first:last]
        for j in range(size):
            dual[j] -= elapsed * before[j]
        best, count = examine(best, count, first, dual, g[first:last], bounds, stands, times, near, late)
    return best, count
