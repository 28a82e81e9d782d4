"""The map from z to beta as sums of exponentials: exponents, admissible steps, values and derivatives."""

from __future__ import annotations

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.constants import ENTRY, EVALUATE, GROWTH, LOCATE, SHORTEN
from flowsim.solvers.multistep.workspace import (
    Active,
    Exponentials,
    Formula,
    History,
    Index,
    Scales,
    Sizes,
    Terms,
    Trial,
    Values,
)
from flowsim.solvers.simd import EIGHT, call, constant, exponential, gather, greater, largest, load, store, view


@bare()
def exponents_at(ws, guess, t):
    """Compute the exponents at z + guess and t; False where a tabulated map must be extended first."""
    if view(Sizes, ws).mapping != 0:
        return call(view(Sizes, ws).mapping, (LOCATE, ws.buffer, ws.table, guess)) > 0
    exponentials = view(Exponentials, ws)
    log_coefficient, slope, decay = exponentials.log_coefficient, exponentials.slope, exponentials.decay
    sizes, z, out = view(Sizes, ws), view(History, ws).z, view(Trial, ws).exponents
    for b in range(0, sizes.padded, EIGHT):
        moved = load(z, b) + load(guess, b)
        for j in range(sizes.terms):
            a = j * sizes.padded + b
            store(out, a, load(log_coefficient, a) + load(slope, a) * moved - t * load(decay, a))
    return True


@bare()
def growth_excess(ws, log_h):
    """Largest excesses of exponents: over their admissible growth, and of unlisted ones over the level of activity."""
    sizes, level, unlisted = view(Sizes, ws), view(Scales, ws).level, view(Terms, ws).unlisted
    exponents, before = view(Trial, ws).exponents, view(History, ws).exponents
    over = new = constant(-np.inf)
    for b in range(0, sizes.padded, EIGHT):
        entry = load(level, b) + constant(ENTRY - log_h)
        for j in range(sizes.terms):
            a = j * sizes.padded + b
            now = load(exponents, a)
            over = greater(now - greater(load(before, a) + constant(GROWTH), entry), over)
            new = greater(now - load(unlisted, a), new)
    return largest(over), largest(new) + log_h


@bare()
def shortened(ws, log_h):
    """The part of the step after which no exponential exceeds its admissible growth."""
    sizes, level = view(Sizes, ws), view(Scales, ws).level
    exponents, before = view(Trial, ws).exponents, view(History, ws).exponents
    if sizes.mapping != 0 and call(sizes.mapping, (SHORTEN, ws.buffer, ws.table, exponents)) > 0:
        return view(Formula, ws).part[0]
    part = 1.0
    for j in range(sizes.terms):
        for i in range(sizes.width):
            a = j * sizes.padded + i
            allowed = max(level[i] + ENTRY - log_h, before[a] + GROWTH)
            if exponents[a] > allowed:
                part = min(part, (allowed - before[a]) / (exponents[a] - before[a]))
    return max(part, 1e-3)


@bare()
def gather_listed(ws):
    """The exponents of the listed terms."""
    active, padded = view(Active, ws), view(Sizes, ws).padded
    exponents, term, out = view(Trial, ws).exponents, view(Index, ws).term, view(Terms, ws).exponents
    for at in range(0, active.layers * padded, padded):
        for b in range(at, at + active.padded, EIGHT):
            store(out, b, gather(exponents, term, b))


@bare()
def evaluate(ws):
    """beta of active coordinates and its derivatives from the listed terms; False where a map is not defined."""
    if view(Sizes, ws).mapping != 0:
        return call(view(Sizes, ws).mapping, (EVALUATE, ws.buffer, ws.table, view(Trial, ws).guess)) > 0
    terms, values, active, padded = view(Terms, ws), view(Values, ws), view(Active, ws), view(Sizes, ws).padded
    for s in range(0, active.padded, EIGHT):
        b_s = d_s = t_s = q_s = m_s = constant(0.0)
        for layer in range(active.layers):
            at = layer * padded + s
            value = load(terms.sign, at) * exponential(load(terms.exponents, at))
            b_s = b_s + value
            lifted = load(terms.slope, at) * value
            d_s = d_s + lifted
            q_s = q_s + load(terms.slope, at) * lifted
            t_s = t_s - load(terms.decay, at) * value
            m_s = m_s - load(terms.decay, at) * lifted
        store(values.beta, s, b_s)
        store(values.beta_z, s, d_s)
        store(values.beta_t, s, t_s)
        store(values.beta_zz, s, q_s)
        store(values.beta_zt, s, m_s)
    return True


@bare()
def along_flow(ws):
    """``d beta/dt`` along f, and its derivative in z."""
    values, f = view(Values, ws), view(Trial, ws).f
    for b in range(0, view(Active, ws).padded, EIGHT):
        flow = load(f, b)
        store(values.velocity, b, load(values.beta_z, b) * flow + load(values.beta_t, b))
        store(values.velocity_z, b, load(values.beta_zz, b) * flow + load(values.beta_zt, b))
