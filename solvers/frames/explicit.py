r"""An explicit method of order 8 on Z itself, for states that are not stiff and whose parts are of similar size.

Dormand and Prince's method with its dense output of order 7 (Hairer, Norsett, Wanner, *Solving Ordinary Differential
Equations I*, II.5 and II.6), on ``Z' = S(Z_1 Z_2^T) Z`` with ``G = signal - rows * Z_1 Z_2^T * columns``. An explicit
step is the flow times ``1 + e``: waiting directions have relative errors like all others, if
steps are short relative to their growth too.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import FAST, compiled, part

_STAGES = 12
_SAFETY, _SMALLEST_FACTOR, _LARGEST_FACTOR = 0.9, 0.2, 4.0
#: ``h |lambda|`` at which to stay, and at the boundary of stability.
_NEAR_STABLE, _STABLE = 5.0, 6.0
#: The same, relative to the largest growth in a step, from which on the equation is stiff: steps are as short as
#: relaxation asks, which implicit methods need not resolve; at tight tolerances that is far from instability.
_STIFF = 1.25
#: Successive steps that must appear stiff.
_STIFF_STEPS = 3


class Method(NamedTuple):
    """Coefficients: stages a (16, 16), of the solution b, of the error estimates, of the dense output."""

    a: Array
    b: Array
    third: Array
    fifth: Array
    dense: Array


class Limits(NamedTuple):
    """Limits of a sequence of steps."""

    #: relative error of Z in a step, against the change of Z where that is smaller, but not below the floor
    tol: float
    floor: float
    growth: float  #: the largest ``h |G|``: waiting directions grow by at most its exponential in a step
    affordable: float  #: number of steps at the limit of stability up to which the method is preferred
    steps: int  #: largest number of steps


class Course(NamedTuple):
    """A sequence of steps."""

    #: (n + 1,), (n + 1, R + p, k)
    t: Array
    states: Array
    h: float  #: the length of the next step; 0 if another method should continue
    evaluations: int
    rejected: int


@cache
def method() -> Method:
    from scipy.integrate import DOP853

    a = np.zeros((16, 16))
    a[:_STAGES, :_STAGES] = DOP853.A
    a[_STAGES, :_STAGES] = DOP853.B
    a[_STAGES + 1 :] = DOP853.A_EXTRA
    return Method(a, *(np.ascontiguousarray(each) for each in (DOP853.B, DOP853.E3, DOP853.E5, DOP853.D)))


def longest_step(tolerance: float) -> float:
    """Largest x for which a method of order 8 computes exp(x) to the tolerance."""
    return float((tolerance * math.factorial(9)) ** (1 / 9))


@part(fastmath=FAST)
def _add_rows(out, at, weights, rows, first, count):
    """``out[at] += sum_j weights_j rows[first + j]``, four at a time: fewer passes over `out`."""
    k = out.shape[1]
    whole = count - count % 4
    for j in range(0, whole, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        row = first + j
        for e in range(k):
            out[at, e] += (a * rows[row, e] + b * rows[row + 1, e]) + (c * rows[row + 2, e] + d * rows[row + 3, e])
    for j in range(whole, count):
        a = weights[j]
        for e in range(k):
            out[at, e] += a * rows[first + j, e]


@part(fastmath=FAST)
def _field(coupling, kappa, Z, G, back, out):
    """Compute ``Z'`` in `out`, and G and its transpose in `G` and `back`."""
    (R, p), k = G.shape, Z.shape[1]
    for i in range(R):
        for c in range(p):
            total = 0.0
            for a in range(k):
                total += Z[i, a] * Z[R + c, a]
            G[i, c] = coupling.signal[i, c] - coupling.rows[i] * total * coupling.columns[c]
            back[c, i] = G[i, c]
    for i in range(R + p):
        for a in range(k):
            out[i, a] = -kappa * Z[i, a]
    for i in range(R):
        _add_rows(out, i, G[i], Z, R, p)
    for c in range(p):
        _add_rows(out, R + c, back[c], Z, 0, R)


@part(fastmath=FAST)
def _combine(Z, h, weights, K, count, used, out):
    """``out = Z + h sum_j weights_j K_j`` of flat arrays; `used` is scratch for the indices of non-zero weights."""
    filled = 0
    for j in range(count):
        if weights[j] != 0.0:
            used[filled] = j
            filled += 1
    size = Z.shape[0]
    for a in range(size):
        out[a] = Z[a]
    whole = filled - filled % 4
    for m in range(0, whole, 4):
        i, j, o, q = used[m], used[m + 1], used[m + 2], used[m + 3]
        x, y, z, w = h * weights[i], h * weights[j], h * weights[o], h * weights[q]
        for a in range(size):
            out[a] += (x * K[i, a] + y * K[j, a]) + (z * K[o, a] + w * K[q, a])
    for m in range(whole, filled):
        i = used[m]
        x = h * weights[i]
        for a in range(size):
            out[a] += x * K[i, a]


@part(fastmath=FAST)
def _square(x):
    total = 0.0
    for a in range(len(x)):
        total += x[a] * x[a]
    return total


@part(fastmath=FAST)
def _square_between(x, y):
    total = 0.0
    for a in range(len(x)):
        total += (x[a] - y[a]) ** 2
    return total


@part()
def _error(how, h, K, nothing, used, out):
    """The error estimate of Hairer, Norsett and Wanner, in the Euclidean norm."""
    _combine(nothing, 1.0, how.fifth, K, len(how.fifth), used, out)
    fifth = _square(out)
    _combine(nothing, 1.0, how.third, K, len(how.third), used, out)
    total = fifth + 0.01 * _square(out)
    return h * fifth / math.sqrt(total) if total > 0.0 else 0.0


@part(fastmath=FAST)
def _largest_singular_value(G):
    """An upper bound to ten per cent: a root of the trace of the fourth power of ``G^T G``."""
    R, p = G.shape
    M, square = np.zeros((p, p)), np.empty((p, p))
    for i in range(R):
        for c in range(p):
            for d in range(p):
                M[c, d] += G[i, c] * G[i, d]
    for c in range(p):
        for d in range(p):
            total = 0.0
            for e in range(p):
                total += M[c, e] * M[e, d]
            square[c, d] = total
    return math.sqrt(math.sqrt(math.sqrt(_square(square.reshape(-1)))))


@compiled()
def integrate(how, coupling, kappa, Z, t, t_end, h, limits):
    """From Z (R + p, k) until t_end, the most steps, or until the equation is stiff; h = 0: choose the first step."""
    (R, p), (n, k) = coupling.signal.shape, Z.shape
    times, states = np.empty(limits.steps + 1), np.empty((limits.steps + 1, n * k))
    K, used = np.empty((_STAGES + 1, n * k)), np.empty(_STAGES + 1, np.int64)
    G, back = np.empty((R, p)), np.empty((p, R))
    new, other, nothing = np.empty(n * k), np.empty(n * k), np.zeros(n * k)
    times[0] = t
    _combine(Z.reshape(-1), 0.0, how.b, K, 0, used, states[0])
    _field(coupling, kappa, Z, G, back, K[0].reshape(n, k))
    count, evaluations, rejected, stiff = 0, 1, 0, 0
    growth = _largest_singular_value(G)
    if h == 0.0:
        h = limits.growth
    cautious = False
    while count < limits.steps and times[count] < t_end:
        now = states[count]
        left = t_end - times[count]
        h = min(h, limits.growth / growth) if growth > 0.0 else h
        # Avoid a last step that is much shorter than the others.
        length = left if h >= left * (1.0 - 1e-12) else h if h < 0.5 * left else max(0.5 * left, 0.5 * h)
        if not length > 1e-14 * times[count]:
            h = 0.0
            break
        for j in range(1, _STAGES):
            _combine(now, length, how.a[j], K, j, used, new)
            _field(coupling, kappa, new.reshape(n, k), G, back, K[j].reshape(n, k))
        _combine(new, 0.0, how.b, K, 0, used, other)
        _combine(now, length, how.b, K, _STAGES, used, new)
        _field(coupling, kappa, new.reshape(n, k), G, back, K[_STAGES].reshape(n, k))
        evaluations += _STAGES
        size, moved = math.sqrt(_square(new)), length * math.sqrt(_square(K[_STAGES]))
        apart = _square_between(new, other)
        rate = math.sqrt(_square_between(K[_STAGES], K[_STAGES - 1]) / apart) if apart > 0.0 else 0.0
        error = _error(how, length, K, nothing, used, other)
        allowed = max(limits.tol * min(size, moved), limits.floor * size)
        factor = _SAFETY * (error / allowed) ** -0.125 if error > 0.0 else _LARGEST_FACTOR
        factor = min(max(factor, _SMALLEST_FACTOR), 1.0 if cautious else _LARGEST_FACTOR)
        if not error <= allowed:
            rejected += 1
            h = length * (factor if factor < 1.0 else _SMALLEST_FACTOR)
            cautious = True
            continue
        cautious = False
        h = length * factor
        if rate > 0.0:
            h = min(h, max(_NEAR_STABLE / rate, length))
        times[count + 1] = t_end if length == left else times[count] + length
        count += 1
        _combine(new, 0.0, how.b, K, 0, used, states[count])
        _combine(K[_STAGES], 0.0, how.b, K, 0, used, K[0])
        growth = _largest_singular_value(G)
        stiff = stiff + 1 if length * rate > _STIFF * limits.growth else 0
        if stiff >= _STIFF_STEPS and (t_end - times[count]) * rate > _STABLE * limits.affordable:
            h = 0.0
            break
    taken = states[: count + 1].copy().reshape(count + 1, n, k)
    return Course(times[: count + 1].copy(), taken, h, evaluations, rejected)


@compiled()
def read(how, coupling, kappa, Z, h, positions):
    """Z (K, R + p, k) at positions, 0 to 1, of the step from Z, by the dense output."""
    (R, p), (n, k), count = coupling.signal.shape, Z.shape, len(how.a)
    K, used = np.empty((count, n * k)), np.empty(count, np.int64)
    G, back = np.empty((R, p)), np.empty((p, R))
    start, point, nothing = Z.reshape(-1), np.empty(n * k), np.zeros(n * k)
    terms = np.zeros((len(how.dense) + 3, n * k))
    _field(coupling, kappa, Z, G, back, K[0].reshape(n, k))
    for j in range(1, count):
        _combine(start, h, how.a[j], K, j, used, point)
        _field(coupling, kappa, point.reshape(n, k), G, back, K[j].reshape(n, k))
        if j == _STAGES:
            for a in range(n * k):
                terms[0, a] = point[a] - start[a]
    for a in range(n * k):
        terms[1, a] = h * K[0, a] - terms[0, a]
        terms[2, a] = 2.0 * terms[0, a] - h * (K[_STAGES, a] + K[0, a])
    for m in range(len(how.dense)):
        _combine(nothing, h, how.dense[m], K, count, used, terms[m + 3])
    out = np.zeros((len(positions), n * k))
    for at in range(len(positions)):
        x = positions[at]
        for m in range(len(terms) - 1, -1, -1):
            factor = x if m % 2 == 0 else 1.0 - x
            for a in range(n * k):
                out[at, a] = (out[at, a] + terms[m, a]) * factor
        for a in range(n * k):
            out[at, a] += start[a]
    return out.reshape(len(positions), n, k)
