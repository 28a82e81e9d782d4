"""Compiled loops that evaluate beta along a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.solvers.compilation import TABLE, TERMS, VECTOR, bare, compiled, padded
from flowsim.solvers.multistep.reading import weights_at
from flowsim.solvers.simd import (
    EIGHT,
    WITHIN,
    constant,
    exponential_beyond,
    exponential_within,
    load,
    load_part,
    magnitude,
    pointer,
    store,
    store_part,
    wider,
    widest,
)

#: Coordinates whose terms are stored together.
COLUMNS = 512


def terms_of(exponentials: tuple[Any, ...]) -> Any:
    """A buffer for :func:`sums`."""
    K, d = exponentials[0].shape
    return np.zeros(4 * K * min(COLUMNS, -(-d // EIGHT) * EIGHT))


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
def _sum(terms, width, columns, b, z, now):
    """Eight sums of exponentials of any magnitude."""
    total = constant(0.0)
    for a in range(b, width, columns):
        exponent = load(terms, a) + load(terms, 2 * width + a) * z - now * load(terms, 3 * width + a)
        total = total + load(terms, width + a) * exponential_beyond(exponent)
    return total


@compiled(explicit=True, declared=(TERMS, TABLE, VECTOR, VECTOR, TABLE))
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
            at, whole = row * d + first, count - count % EIGHT
            for b in range(0, whole, EIGHT):
                store(out, at + b, _sum(terms, width, columns, b, load(z, at + b), t[row]))
            if whole < count:
                rest = load_part(z, at + whole, count - whole)
                store_part(out, at + whole, count - whole, _sum(terms, width, columns, whole, rest, t[row]))


def laid_out(exponentials):
    """The rows of terms for :func:`sums_at`, padded; the last one, for pairs of opposite slopes, is a product.

    Then the second exponential of a coordinate is the product divided by the first.
    """
    (K, d), rows = exponentials[0].shape, np.concatenate(exponentials)
    log, slope = rows[:K], rows[2 * K : 3 * K]
    if K == 2 and not rows[3 * K :].any() and (slope[0] == -slope[1]).all() and (np.abs(log.sum(0)) <= WITHIN).all():
        rows = np.vstack([rows, rows[3] * np.exp(log.sum(0))])
    return np.pad(rows, ((0, 0), (0, -d % EIGHT)))


@bare(forceinline=True)
def _state(ends, weights, b):
    """Eight states in a step with z, f and f' at its ends."""
    z, z_right, f, f_right, df, df_right = ends
    along, from_left, from_right, bent_left, bent_right = weights
    moved = load(z, b)
    moved = moved + along * (load(z_right, b) - moved)
    ends_f = from_left * load(f, b) + from_right * load(f_right, b)
    return moved + (ends_f + (bent_left * load(df, b) + bent_right * load(df_right, b)))


@bare()
def _some_states(ends, weights, b, count):
    """The first `count` of them; only these are read."""
    z, z_right, f, f_right, df, df_right = ends
    along, from_left, from_right, bent_left, bent_right = weights
    if count >= EIGHT:
        return _state(ends, weights, b)
    moved = load_part(z, b, count)
    moved = moved + along * (load_part(z_right, b, count) - moved)
    moved = moved + from_left * load_part(f, b, count) + from_right * load_part(f_right, b, count)
    return moved + bent_left * load_part(df, b, count) + bent_right * load_part(df_right, b, count)


@bare(forceinline=True)
def _moderate(terms, sizes, b, z, now, most):
    """Eight sums of exponentials, right if their exponents are moderate, and the largest magnitudes of these so far."""
    columns, width, _, is_paired = sizes
    if is_paired:
        exponent = load(terms, b) + load(terms, 2 * width + b) * z
        power = exponential_within(exponent)
        return load(terms, width + b) * power + load(terms, 4 * width + b) / power, wider(magnitude(exponent), most)
    total = constant(0.0)
    for a in range(b, width, columns):
        exponent = load(terms, a) + load(terms, 2 * width + a) * z - now * load(terms, 3 * width + a)
        most = wider(magnitude(exponent), most)
        total = total + load(terms, width + a) * exponential_within(exponent)
    return total, most


@bare()
def _moderate_row(terms, sizes, ends, weights, now, out):
    """Sums of exponentials at one time; whether their exponents are moderate, so that they are right."""
    d = sizes[2]
    whole, most = d - d % EIGHT, constant(0.0)
    for b in range(0, whole, EIGHT):
        total, most = _moderate(terms, sizes, b, _state(ends, weights, b), now, most)
        store(out, b, total)
    if whole < d:
        z = _some_states(ends, weights, whole, d - whole)
        total, most = _moderate(terms, sizes, whole, z, now, most)
        store_part(out, whole, d - whole, total)
    return widest(most) <= WITHIN


@bare()
def _row(terms, sizes, ends, weights, now, out):
    """Sums of exponentials of any magnitude at one time."""
    columns, width, d, _ = sizes
    for b in range(0, d, EIGHT):
        total = _sum(terms, width, columns, b, _some_states(ends, weights, b, d - b), now)
        store_part(out, b, min(EIGHT, d - b), total)


@compiled(explicit=True)
def sums_at(rows, t, h, z, apart, times, step, position, out):
    """:func:`sums` at times of a run with z, f and f' at the ends t of its steps, and the step and position of each.

    `rows` are the exponentials as :func:`laid_out`; f begins so many floats behind z, and f' behind f.
    """
    columns, terms, d = rows.shape[1], pointer(rows, 0), z.shape[1]
    width, log = len(rows) // 4 * columns, constant(0.0)
    for a in range(0, width, EIGHT):
        log = wider(magnitude(load(terms, a)), log)
    is_moderate, sizes = widest(log) <= WITHIN, (columns, width, d, len(rows) % 4 == 1)
    for row in range(len(times)):
        step[row], position[row] = _place(t, h, times[row], step[row - 1] if row > 0 else 0)
        x, left, to = position[row], step[row] * d, pointer(out, row * d)
        right = left + d
        if x == 1.0:
            x, left = 0.0, right
        ends = (
            pointer(z, left),
            pointer(z, right),
            pointer(z, left + apart),
            pointer(z, right + apart),
            pointer(z, left + 2 * apart),
            pointer(z, right + 2 * apart),
        )
        weights = weights_at(h[step[row]], x)
        if not (is_moderate and _moderate_row(terms, sizes, ends, weights, times[row], to)):
            _row(terms, sizes, ends, weights, times[row], to)


@bare()
def _place(t, h, now, near):
    """The step that contains a time (at an end the later one), and the position in it, 0 to 1.

    It is sought from the step `near` on.
    """
    last = len(h) - 1
    if now >= t[last + 1]:
        return last, 1.0
    low = near if t[near] <= now else 0
    high, reach = low + 1, 1
    while t[high] <= now:
        low, reach = high, 2 * reach
        high = min(high + reach, last + 1)
    # t[low] <= now < t[high]
    while high - low > 1:
        middle = (low + high) // 2
        if t[middle] <= now:
            low = middle
        else:
            high = middle
    return low, min(max((now - t[low]) / h[low], 0.0), 1.0)
