r"""An explicit method of order 8 on Z itself, for states that are not stiff and whose parts floats hold.

Dormand and Prince's method with its dense output of order 7 (Hairer, Norsett, Wanner, *Solving Ordinary Differential
Equations I*, II.5 and II.6), on ``Z' = S(Z_1 Z_2^T) Z`` with ``G = signal - rows * Z_1 Z_2^T * columns``. An explicit
step is the flow times ``1 + e``: waiting directions have relative errors like all others, if
steps are short relative to their growth too. Parts that shrink beside parts that grow keep their digits in columns of
their own: :mod:`.steps` multiplies Z by an orthogonal matrix from the right whenever it has grown by some factor.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import FAST, bare, compiled
from flowsim.solvers.simd import EIGHT, add_up, constant, load, pointer, store

_STAGES = 12
_SAFETY, _SMALLEST_FACTOR, _LARGEST_FACTOR = 0.9, 0.2, 4.0
#: ``h |lambda|`` at which to stay, and at the boundary of stability.
_NEAR_STABLE, _STABLE = 5.0, 6.0
#: The same, relative to the largest growth in a step, from which on the equation is stiff: steps are as short as
#: relaxation asks, which implicit methods need not resolve; at tight tolerances that is far from instability.
_STIFF = 1.25
#: Successive steps that must appear stiff.
_STIFF_STEPS = 3
#: Size of a state below which squares of errors would underflow.
_SMALLEST = 1e-100


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
    span: float  #: growth of Z, as a logarithm, after which to stop
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


@bare(fastmath=FAST)
def _add_rows(out, k, weights, rows, count):
    """``out += sum_j weights_j rows_j``, rows of length k, four at a time: fewer passes over `out`."""
    whole = count - count % 4
    for j in range(0, whole, 4):
        x, y, z, w = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        a, b, c, d = j * k, (j + 1) * k, (j + 2) * k, (j + 3) * k
        for e in range(k):
            out[e] += (x * rows[a + e] + y * rows[b + e]) + (z * rows[c + e] + w * rows[d + e])
    for j in range(whole, count):
        for e in range(k):
            out[e] += weights[j] * rows[j * k + e]


@bare(fastmath=FAST)
def _field(equation, Z, work, out):
    """Compute ``Z'`` in `out`, and G (R, p) in `work`, its transpose behind it."""
    coupling, kappa, k = equation
    R, p = coupling.signal.shape
    back = pointer(work, R * p)
    for i in range(R):
        for c in range(p):
            total = 0.0
            for a in range(k):
                total += Z[i * k + a] * Z[(R + c) * k + a]
            value = coupling.signal[i, c] - coupling.rows[i] * total * coupling.columns[c]
            work[i * p + c] = back[c * R + i] = value
    for a in range((R + p) * k):
        out[a] = -kappa * Z[a]
    for i in range(R):
        _add_rows(pointer(out, i * k), k, pointer(work, i * p), pointer(Z, R * k), p)
    for c in range(p):
        _add_rows(pointer(out, (R + c) * k), k, pointer(back, c * R), Z, R)


@bare(forceinline=True)
def _sum(weights, count, K, size, a):
    """Eight entries of ``sum_j weights_j K_j``."""
    total = constant(0.0)
    for j in range(count):
        if weights[j] != 0.0:
            total = weights[j] * load(K, j * size + a) + total
    return total


@bare()
def _combine(Z, h, weights, count, K, size, out):
    """``out = Z + h sum_j weights_j K_j`` of flat vectors of `size`, a multiple of EIGHT."""
    for a in range(0, size, EIGHT):
        store(out, a, h * _sum(weights, count, K, size, a) + load(Z, a))


@bare()
def _square(weights, count, K, size):
    """The square of the Euclidean norm of ``sum_j weights_j K_j``."""
    total = constant(0.0)
    for a in range(0, size, EIGHT):
        entries = _sum(weights, count, K, size, a)
        total = entries * entries + total
    return add_up(total)


@bare()
def _norm(x, factor, y, size):
    """The Euclidean norm of ``x - factor y``."""
    total = constant(0.0)
    for a in range(0, size, EIGHT):
        entries = load(x, a) - factor * load(y, a)
        total = entries * entries + total
    return math.sqrt(add_up(total))


@bare()
def _stages(how, equation, Z, h, first, last, space, size, point):
    """Stages `first` to `last` of a step from Z, whose derivatives are at the beginning of `space`, G behind them."""
    work = pointer(space, len(how.a) * size)
    for j in range(first, last):
        _combine(Z, h, pointer(how.a, j * len(how.a)), j, space, size, point)
        _field(equation, point, work, pointer(space, j * size))


@bare(fastmath=FAST)
def _largest_singular_value(G, R, p):
    """An upper bound to ten per cent: a root of the trace of the fourth power of ``G^T G``, computed behind `G`."""
    M, total = pointer(G, 2 * R * p), 0.0
    for c in range(p):
        for d in range(p):
            M[c * p + d] = 0.0
            for i in range(R):
                M[c * p + d] += G[i * p + c] * G[i * p + d]
    for c in range(p):
        for d in range(p):
            square = 0.0
            for e in range(p):
                square += M[c * p + e] * M[e * p + d]
            total += square * square
    return math.sqrt(math.sqrt(math.sqrt(total)))


@compiled(once=True, counted=False)
def _integrate(how, equation, t_end, h, limits, times, states, space):
    """Fill `times` and rows of `states`; returns steps taken, the next length, evaluations and rejections."""
    (R, p), size = equation[0].signal.shape, states.shape[1]
    K, G = pointer(space, 0), pointer(space, len(how.a) * size)
    new, last = pointer(G, 2 * R * p + p * p), pointer(space, _STAGES * size)
    other, before = pointer(new, size), pointer(space, (_STAGES - 1) * size)
    _field(equation, pointer(states, 0), G, K)
    count, evaluations, rejected, stiff, cautious, grown = 0, 1, 0, 0, False, 0.0
    growth = _largest_singular_value(G, R, p)
    h = h if h != 0.0 else limits.growth
    while count < limits.steps and times[count] < t_end and grown < limits.span:
        now, left = pointer(states, count * size), t_end - times[count]
        h = min(h, limits.growth / growth) if growth > 0.0 else h
        # Avoid a last step that is much shorter than the others.
        length = left if h >= left * (1.0 - 1e-12) else h if h < 0.5 * left else max(0.5 * left, 0.5 * h)
        if not length > 1e-14 * times[count]:
            h = 0.0
            break
        _stages(how, equation, now, length, 1, _STAGES, K, size, other)
        _stages(how, equation, now, length, _STAGES, _STAGES + 1, K, size, new)
        evaluations += _STAGES
        scale, moved = _norm(new, 0.0, new, size), length * _norm(last, 0.0, last, size)
        apart = _norm(new, 1.0, other, size)
        rate = _norm(last, 1.0, before, size) / apart if apart > 0.0 else 0.0
        # The error estimate of Hairer, Norsett and Wanner, in the Euclidean norm.
        fifth = _square(how.fifth, len(how.fifth), K, size)
        error = fifth + 0.01 * _square(how.third, len(how.third), K, size)
        error = length * fifth / math.sqrt(error) if error > 0.0 else 0.0
        allowed = max(limits.tol * min(scale, moved), limits.floor * scale)
        factor = _SAFETY * (error / allowed) ** -0.125 if error > 0.0 else _LARGEST_FACTOR
        factor = min(max(factor, _SMALLEST_FACTOR), 1.0 if cautious else _LARGEST_FACTOR)
        if not error <= allowed:
            rejected, cautious, h = rejected + 1, True, length * (factor if factor < 1.0 else _SMALLEST_FACTOR)
            continue
        cautious, h, grown = False, length * factor, grown + length * growth
        h = min(h, max(_NEAR_STABLE / rate, length)) if rate > 0.0 else h
        times[count + 1] = t_end if length == left else times[count] + length
        count += 1
        for a in range(0, size, EIGHT):
            store(states, count * size + a, load(new, a))
            store(space, a, load(last, a))
        growth = _largest_singular_value(G, R, p)
        stiff = stiff + 1 if length * rate > _STIFF * limits.growth else 0
        is_stiff = stiff >= _STIFF_STEPS and (t_end - times[count]) * rate > _STABLE * limits.affordable
        if is_stiff or scale < _SMALLEST:
            h = 0.0
            break
    return count, h, evaluations, rejected


@compiled(once=True, counted=False)
def _read(how, equation, h, positions, Z, space, out):
    """Fill rows of `out` with states at positions of the step from Z, by the dense output."""
    (R, p), count, size, degree = equation[0].signal.shape, len(how.a), len(Z), len(how.dense) + 3
    start, K, G = pointer(Z, 0), pointer(space, 0), pointer(space, count * size)
    point = pointer(G, 2 * R * p)
    terms, last = pointer(point, size), pointer(space, _STAGES * size)
    _field(equation, start, G, K)
    _stages(how, equation, start, h, 1, _STAGES + 1, K, size, point)
    for a in range(size):
        moved = point[a] - Z[a]
        terms[a], terms[size + a] = moved, h * space[a] - moved
        terms[2 * size + a] = 2.0 * moved - h * (last[a] + space[a])
    _stages(how, equation, start, h, _STAGES + 1, count, K, size, point)
    for m in range(3, degree):
        for a in range(0, size, EIGHT):
            store(terms, m * size + a, h * _sum(pointer(how.dense, (m - 3) * count), count, K, size, a))
    for row in range(len(positions)):
        x = positions[row]
        for a in range(0, size, EIGHT):
            total = constant(0.0)
            for m in range(degree - 1, -1, -1):
                total = (x if m % 2 == 0 else 1.0 - x) * (total + load(terms, m * size + a))
            store(out, row * size + a, total + load(Z, a))


def integrate(
    how: Method, coupling: Any, kappa: float, Z: Array, t: float, t_end: float, h: float, limits: Limits
) -> Course:
    """From Z (R + p, k) until t_end, the most steps, or a stiff or tiny state; h = 0: choose the first step."""
    (R, p), size = coupling.signal.shape, -(-Z.size // EIGHT) * EIGHT
    times, states = np.empty(limits.steps + 1), np.empty((limits.steps + 1, size))
    space = np.zeros((len(how.a) + 2) * size + 2 * R * p + p * p)  # derivatives, two states; G twice, a square
    times[0], states[0], states[0, : Z.size] = t, 0.0, Z.ravel()
    count, *found = _integrate(how, (coupling, kappa, Z.shape[1]), t_end, h, limits, times, states, space)
    taken = np.ascontiguousarray(states[: count + 1, : Z.size]).reshape(count + 1, *Z.shape)
    return Course(times[: count + 1].copy(), taken, *found)


def read(how: Method, coupling: Any, kappa: float, Z: Array, h: float, positions: Array) -> Array:
    """Z (K, R + p, k) at positions, 0 to 1, of the step from Z, by the dense output."""
    (R, p), size = coupling.signal.shape, -(-Z.size // EIGHT) * EIGHT
    out, start = np.empty((len(positions), size)), np.zeros(size)
    start[: Z.size] = Z.ravel()
    space = np.zeros((len(how.a) + 1 + len(how.dense) + 3) * size + 2 * R * p)  # derivatives, a state, terms; G twice
    _read(how, (coupling, kappa, Z.shape[1]), h, positions, start, space, out)
    return out[:, : Z.size].reshape(-1, *Z.shape)
