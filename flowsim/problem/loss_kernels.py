"""Compiled first and second derivatives of the named losses, with one signature.

``void(float64[::1] f, float64[::1] y, float64[::1] w, float64[::1] d1, float64[::1] d2)``: d1 and d2 are filled with
``w loss'(f, y)`` and ``w loss''(f, y)``. A compiled loop calls any of them by address without being compiled again;
each is compiled when it is first needed. Their NumPy counterparts are in :mod:`flowsim.problem.losses`.
"""

from __future__ import annotations

import math

from flowsim.solvers.compilation import bare, compiled
from flowsim.solvers.simd import (
    EIGHT,
    WITHIN,
    below,
    constant,
    exponential_within,
    load,
    load_part,
    magnitude,
    store,
    store_part,
    wider,
    widest,
)


# Without fast-math, and with IEEE division: overflow gives infinity, never an exception.
@compiled()
def squared(f, y, w, d1, d2):
    for i in range(len(f)):
        d1[i] = w[i] * (f[i] - y[i])
        d2[i] = w[i]


@compiled()
def _logistic(f, y, w, d1, d2):
    for i in range(len(f)):
        margin = y[i] * f[i]
        tail = math.exp(-abs(margin))
        part = 1.0 / (1.0 + tail)
        d1[i] = -w[i] * y[i] * (tail * part if margin >= 0 else part)
        d2[i] = w[i] * (tail * part * part)


@bare(forceinline=True)
def _eight_logistic(margin):
    """``1 / (1 + exp(margin))``, and minus its derivative."""
    tail = exponential_within(constant(0.0) - magnitude(margin))
    part = constant(1.0) / (constant(1.0) + tail)
    return below(margin, constant(0.0), part, tail * part), tail * part * part


@compiled()
def logistic(f, y, w, d1, d2):
    most, whole = constant(0.0), len(f) // EIGHT * EIGHT
    for i in range(0, whole, EIGHT):
        label, weight = load(y, i), load(w, i)
        margin = label * load(f, i)
        most = wider(magnitude(margin), most)
        falling, bent = _eight_logistic(margin)
        store(d1, i, constant(0.0) - weight * label * falling)
        store(d2, i, weight * bent)
    if whole < len(f):
        many = len(f) - whole
        label, weight = load_part(y, whole, many), load_part(w, whole, many)
        margin = label * load_part(f, whole, many)
        most = wider(magnitude(margin), most)
        falling, bent = _eight_logistic(margin)
        store_part(d1, whole, many, constant(0.0) - weight * label * falling)
        store_part(d2, whole, many, weight * bent)
    if not widest(most) <= WITHIN:
        _logistic(f, y, w, d1, d2)


@compiled()
def exponential(f, y, w, d1, d2):
    for i in range(len(f)):
        value = w[i] * math.exp(-y[i] * f[i])
        d1[i] = -y[i] * value
        d2[i] = value


@compiled()
def log_cosh(f, y, w, d1, d2):
    for i in range(len(f)):
        r = f[i] - y[i]
        tail = math.exp(-2.0 * abs(r))
        d1[i] = w[i] * math.tanh(r)
        d2[i] = w[i] * (4.0 * tail / ((1.0 + tail) * (1.0 + tail)))


@compiled()
def pseudo_huber(f, y, w, d1, d2):
    for i in range(len(f)):
        r = f[i] - y[i]
        root = 1.0 / math.hypot(1.0, r)
        d1[i] = w[i] * (r * root)
        d2[i] = w[i] * (root * root * root)


@compiled()
def poisson(f, y, w, d1, d2):
    for i in range(len(f)):
        rate = math.exp(f[i])
        d1[i] = w[i] * (rate - y[i])
        d2[i] = w[i] * rate
