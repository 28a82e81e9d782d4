"""Compiled loops that evaluate a run: the steps that contain times, and beta."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowsim.solvers.compilation import INTEGERS, TABLE, TERMS, VECTOR, bare, compiled, padded
from flowsim.solvers.simd import (
    EIGHT,
    WITHIN,
    below,
    constant,
    exponential_within,
    load,
    load_part,
    magnitude,
    pointer,
    store,
    store_part,
    wider,
    widest,
)  # fmt: skip

#: Coordinates whose terms are stored together.
COLUMNS = 512
#: The exponential of less than this is zero.
_NOTHING = -746.0


def terms_of(exponentials: tuple[Any, ...]) -> Any:
    """A buffer for :func:`sums` and :func:`sums_between`."""
    K, d = exponentials[0].shape
    return np.zeros((4 * K + 1) * min(COLUMNS, -(-d // EIGHT) * EIGHT))


@bare()
def _lay_out(exponentials, first, count, columns, terms):
    """Copy the terms of some coordinates: logarithms of coefficients, signs, slopes and decays, in rows."""
    log_coefficient, sign, slope, decay = exponentials
    width = log_coefficient.shape[0] * columns
    for k in range(log_coefficient.shape[0]):
        for i in range(count):
            at = k * columns + i
            terms[at], terms[width + at] = log_coefficient[k, first + i], sign[k, first + i]
            terms[2 * width + at], terms[3 * width + at] = slope[k, first + i], decay[k, first + i]


@bare(forceinline=True)
def _sum(terms, width, columns, b, z, now, many, out, at):
    """Store eight sums of exponentials; returns the magnitudes of their exponents."""
    most = total = constant(0.0)
    for a in range(b, width, columns):
        exponent = load(terms, a) + load(terms, 2 * width + a) * z - now * load(terms, 3 * width + a)
        plain = below(exponent, constant(_NOTHING), constant(0.0), exponent)
        most = wider(magnitude(plain), most)
        power = below(exponent, constant(_NOTHING), constant(0.0), exponential_within(plain))
        total = total + load(terms, width + a) * power
    store_part(out, at, many, total)
    return most


@bare()
def _plain_sum(terms, width, columns, i, z, now):
    """One sum of exponentials, of any magnitude."""
    total = 0.0
    for a in range(i, width, columns):
        total += terms[width + a] * math.exp(terms[a] + terms[2 * width + a] * z - now * terms[3 * width + a])
    return total


@compiled(explicit=True, ahead=(TERMS, TABLE, VECTOR, VECTOR, TABLE))
def sums(exponentials, z, t, terms, out):
    """``out[i] = sum_k sign exp(log_coefficient + slope z[i] - decay t[i])``, with overflow to infinity or NaN."""
    K, d = exponentials[0].shape
    columns = min(COLUMNS, padded(d))
    width = K * columns
    for first in range(0, d, columns):
        count = min(columns, d - first)
        if count < columns:
            terms[:] = 0.0
        _lay_out(exponentials, first, count, columns, terms)
        for row in range(len(t)):
            at, now, most = row * d + first, t[row], constant(0.0)
            for b in range(0, count, EIGHT):
                many = min(EIGHT, count - b)
                most = wider(_sum(terms, width, columns, b, load_part(z, at + b, many), now, many, out, at + b), most)
            if not widest(most) <= WITHIN:
                for i in range(count):
                    out[row, first + i] = _plain_sum(terms, width, columns, i, z[row, first + i], now)


@bare()
def _polynomial(length, x):
    """Weights of f and f' of both ends, and of the difference of z, in the polynomial of degree 5 at x, 0 to 1."""
    y, cube, half = 1.0 - x, x * x * x, 0.5 * length * length
    along = cube * (10.0 - x * (15.0 - 6.0 * x))
    from_left, from_right = (
        length * (x - cube * (6.0 - x * (8.0 - 3.0 * x))),
        -length * cube * (4.0 - x * (7.0 - 3.0 * x)),
    )
    return along, from_left, from_right, half * x * x * y * y * y, half * cube * y * y


@bare()
def _reach(terms, width):
    """The largest magnitudes of logarithms, slopes and decays."""
    log = slope = decay = constant(0.0)
    for a in range(0, width, EIGHT):
        log = wider(magnitude(load(terms, a)), log)
        slope = wider(magnitude(load(terms, 2 * width + a)), slope)
        decay = wider(magnitude(load(terms, 3 * width + a)), decay)
    return widest(log), widest(slope), widest(decay)


@compiled(explicit=True)
def sums_between(exponentials, h, z, f, df, step, position, t, terms, out):
    """:func:`sums` at positions, 0 to 1, of steps with z, f and f' at their ends, of no more than 512 coordinates."""
    (K, d), columns = exponentials[0].shape, padded(exponentials[0].shape[1])
    width, here = K * columns, pointer(terms, 4 * K * columns)
    _lay_out(exponentials, 0, d, columns, terms)
    log, slope, decay = _reach(terms, width)
    for row in range(len(t)):
        x, left, now = position[row], step[row] * d, t[row]
        right = left + d
        if x == 1.0:
            x, left = 0.0, right
        along, f_left, f_right, df_left, df_right = _polynomial(h[step[row]], x)
        far = constant(0.0)
        for b in range(0, d, EIGHT):
            many, i, j = min(EIGHT, d - b), left + b, right + b
            moved = load_part(z, i, many)
            moved = moved + along * (load_part(z, j, many) - moved)
            moved = moved + f_left * load_part(f, i, many) + f_right * load_part(f, j, many)
            moved = moved + df_left * load_part(df, i, many) + df_right * load_part(df, j, many)
            far = wider(magnitude(moved), far)
            store(here, b, moved)
        at = row * d
        if log + slope * widest(far) + decay * now <= WITHIN:
            for b in range(0, d, EIGHT):
                moved, total = load(here, b), constant(0.0)
                for a in range(b, width, columns):
                    exponent = load(terms, a) + load(terms, 2 * width + a) * moved - now * load(terms, 3 * width + a)
                    total = total + load(terms, width + a) * exponential_within(exponent)
                store_part(out, at + b, min(EIGHT, d - b), total)
            continue
        most = constant(0.0)
        for b in range(0, d, EIGHT):
            most = wider(_sum(terms, width, columns, b, load(here, b), now, min(EIGHT, d - b), out, at + b), most)
        if not widest(most) <= WITHIN:
            for i in range(d):
                out[row, i] = _plain_sum(terms, width, columns, i, here[i], now)


@compiled(ahead=(VECTOR, VECTOR, VECTOR, INTEGERS, VECTOR))
def locate(t, h, times, step, position):
    """The step that contains each time (at an end the later one), and the position in it, 0 to 1."""
    last = len(h) - 1
    for row in range(len(times)):
        now, low, high = times[row], 0, last + 1
        if now >= t[last + 1]:
            step[row], position[row] = last, 1.0
            continue
        # t[low] <= now < t[high]
        while high - low > 1:
            middle = (low + high) // 2
            if t[middle] <= now:
                low = middle
            else:
                high = middle
        step[row], position[row] = low, min(max((now - t[low]) / h[low], 0.0), 1.0)
