"""Reading a run in compiled loops: the steps that hold times, and beta."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowsim.solvers.compilation import INTEGERS, TABLE, TERMS, VECTOR, compiled, padded
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
    store_part,
    wider,
    widest,
)  # fmt: skip

#: Coordinates whose terms are laid out together.
_COLUMNS = 512
#: The exponential of less than this is zero.
_NOTHING = -746.0


def terms_of(exponentials: tuple[Any, ...]) -> Any:
    """Room for :func:`sums`."""
    K, d = exponentials[0].shape
    return np.zeros(4 * K * min(_COLUMNS, -(-d // EIGHT) * EIGHT))


@compiled(explicit=True, ahead=(TERMS, TABLE, VECTOR, VECTOR, TABLE))
def sums(exponentials, z, t, terms, out):
    """``out[i] = sum_k sign exp(log_coefficient + slope z[i] - decay t[i])``; infinite and NaN where that is."""
    log_coefficient, sign, slope, decay = exponentials
    K, d = log_coefficient.shape
    columns = min(_COLUMNS, padded(d))
    width = K * columns
    logs, signs, slopes = pointer(terms, 0), pointer(terms, width), pointer(terms, 2 * width)
    decays = pointer(terms, 3 * width)
    for first in range(0, d, columns):
        count = min(columns, d - first)
        if count < columns:
            terms[:] = 0.0
        for k in range(K):
            for i in range(count):
                at = k * columns + i
                logs[at], signs[at] = log_coefficient[k, first + i], sign[k, first + i]
                slopes[at], decays[at] = slope[k, first + i], decay[k, first + i]
        for row in range(len(t)):
            at, now, most = row * d + first, t[row], constant(0.0)
            for b in range(0, count, EIGHT):
                many = min(EIGHT, count - b)
                moved, total = load_part(z, at + b, many), constant(0.0)
                for a in range(b, width, columns):
                    exponent = load(logs, a) + load(slopes, a) * moved - now * load(decays, a)
                    plain = below(exponent, constant(_NOTHING), constant(0.0), exponent)
                    most = wider(magnitude(plain), most)
                    power = below(exponent, constant(_NOTHING), constant(0.0), exponential_within(plain))
                    total = total + load(signs, a) * power
                store_part(out, at + b, many, total)
            if not widest(most) <= WITHIN:
                for i in range(count):
                    total_i = 0.0
                    for a in range(i, width, columns):
                        total_i += signs[a] * math.exp(logs[a] + slopes[a] * z[row, first + i] - now * decays[a])
                    out[row, first + i] = total_i


@compiled(ahead=(VECTOR, VECTOR, VECTOR, INTEGERS, VECTOR))
def locate(t, h, times, step, position):
    """The step that holds each time, the later of two, and the position in it, 0 to 1."""
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
