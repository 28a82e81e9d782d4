"""One pass over the coordinates: who reaches a wall next."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["AT_LOWER", "AT_UPPER", "next_hits"]

Array = NDArray[np.float64]

AT_UPPER = np.uint8(1)
AT_LOWER = np.uint8(2)

#: Relative to a threshold: two hits nearer than this are one jump. Far above the rounding of s, far below
#: what data can tell apart.
_TIE = 1e-12


def next_hits(
    s: Array, previous: Array, elapsed: float, g: Array, walls: tuple[Array, ...], flags: NDArray[np.uint8],
    rounding: Array, t: float,
) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Bring s up to time t and find the waiting time to the next hit.

    Parameters
    ----------
    s : array (d,), changed in place
        The dual at time ``t - elapsed``; afterwards at t.
    previous, g : array (d,)
        The gradient during the last wait, and now.
    walls : four arrays (d,)
        Upper and lower thresholds and penalties.
    flags : array (d,)
        Which walls a coordinate stands at.
    rounding : array (d,)
        Rates up to this size are zero.

    Returns
    -------
    wait : float
        inf if nothing moves towards a wall any more.
    coordinates, signs : arrays
        Everyone who arrives after that wait, within rounding.
    """
    wait, second, first = _advance(s, previous, elapsed, g, *walls, flags, rounding, t)
    if math.isinf(wait):
        return wait, np.empty(0, np.int64), np.empty(0, np.int64)
    if second > wait:
        place = np.array([int(first)])
        return wait, place, np.where(g[place] < 0, 1, -1)
    found = np.empty(len(s), np.int64)
    signs = np.empty(len(found), np.int64)
    count = _collect(s, g, *walls, flags, rounding, t, wait, found, signs)
    return wait, found[:count], signs[:count]


_READ = numba.types.Array(numba.float64, 1, "A", readonly=True)
_FLAG = numba.uint8[::1]
_VEC = numba.float64[::1]


@numba.njit(
    numba.types.UniTuple(numba.float64, 3)(
        _VEC, _VEC, numba.float64, _VEC, _READ, _READ, _READ, _READ, _FLAG, _READ, numba.float64
    ),
    cache=True,
    error_model="numpy",
)
def _advance(s, previous, elapsed, g, upper, lower, up_cost, low_cost, flags, rounding, t):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The least wait, the second least of the waits as rounding may have shortened them, and whose the first is."""
    best, soonest, second, first = np.inf, np.inf, np.inf, -1.0
    for i in range(len(s)):
        flag = flags[i]
        if flag == 0:
            s[i] -= elapsed * previous[i]
        elif flag & AT_UPPER:
            s[i] = upper[i] + up_cost[i] * t
        else:
            s[i] = -(lower[i] + low_cost[i] * t)
        # Only the wall in the direction of motion can be reached: penalties are >= 0.
        if g[i] < 0:
            rate = -g[i] - up_cost[i]
            if flag & AT_UPPER or rate <= rounding[i]:
                continue
            wall = upper[i] + up_cost[i] * t
            gap = wall - s[i]
        else:
            rate = g[i] - low_cost[i]
            if flag & AT_LOWER or rate <= rounding[i]:
                continue
            wall = lower[i] + low_cost[i] * t
            gap = wall + s[i]
        gap = max(gap, 0.0)
        wait = gap / rate
        if wait < best:
            best, first = wait, float(i)
        sooner = (gap - _TIE * wall - rounding[i] * t) / (rate + rounding[i])
        if sooner < soonest:
            soonest, second = sooner, soonest
        elif sooner < second:
            second = sooner
    return best, second, first


@numba.njit(
    numba.int64(
        _VEC, _VEC, _READ, _READ, _READ, _READ, _FLAG, _READ, numba.float64, numba.float64,
        numba.int64[::1], numba.int64[::1],
    ),
    cache=True,
    error_model="numpy",
)  # fmt: skip
def _collect(
    s, g, upper, lower, up_cost, low_cost, flags, rounding, t, wait, found, signs
):  # pragma: no cover - compiled
    count = 0
    for i in range(len(s)):
        flag = flags[i]
        if g[i] < 0:
            rate = -g[i] - up_cost[i]
            if flag & AT_UPPER or rate <= rounding[i]:
                continue
            wall = upper[i] + up_cost[i] * t
            gap = wall - s[i]
            sign = 1
        else:
            rate = g[i] - low_cost[i]
            if flag & AT_LOWER or rate <= rounding[i]:
                continue
            wall = lower[i] + low_cost[i] * t
            gap = wall + s[i]
            sign = -1
        gap = max(gap, 0.0)
        if gap / rate <= wait or gap - _TIE * wall - rounding[i] * (t + wait) <= wait * rate:
            found[count] = i
            signs[count] = sign
            count += 1
    return count
