"""Collocation steps of a paired frame whose coupling is linear, as many as there are to take, compiled.

One attempt at a step is :func:`attempt`: guess, nonlinear equations, end, error estimate. :mod:`.steps` does the same
for other frames and couplings.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import compiled, part
from flowsim.solvers.frames.collocation import Damping, damping_of, propagated
from flowsim.solvers.frames.iteration import EigenPairs, StepData, eigen_pairs, solve_stages
from flowsim.solvers.frames.pairs import advanced, all_columns, begun, halves, keep, stacks
from flowsim.solvers.frames.relaxation import defects, factored, fastest
from flowsim.solvers.frames.small_matrices import copy, eigen, product, product_nt, product_tn
from flowsim.solvers.gauss import GaussTableau

#: The polynomial through the nodes misses the ends of the step by more than it misses the integral.
#: Calibrated on closed forms: the error of a run is then 0.01 to 1 times the tolerance.
DEFECT_WEIGHT = 0.05
#: Below this remaining distance (relative to the state) rounding decides, not truncation.
ROUNDING_FLOOR = 2e-12
SAFETY, LARGEST_CUT, NEWTON_CUT = 0.9, 0.2, 0.4
#: Least error, relative to what is allowed, from which a trend is followed.
_TREND = 0.01
LARGEST_GROWTH, CAUTIOUS_GROWTH = 2.5, 1.3
SMALLEST_STEP = 1e-14
#: Relaxation matters in a step where the defect of the polynomial through G exceeds the response to it by this factor.
_STIFF = 2.0
#: Size of S f, relative to f and S, below which it is rounding.
_NO_TURN = 1e-13
#: A guess is extrapolated over this many lengths of the step before, and from so many of its last nodes.
_EXTRAPOLATED, _GUESS_NODES = 1.5, 4
#: Rate times length of a step that damps what relaxes by four orders.
_DAMPED = 10.0
#: How a march ended.
GOES_ON, STEP_FLOOR, NON_FINITE = 0, 1, 2


class GaussMethod(NamedTuple):
    """Gauss's: 0, the nodes and 1; the polynomial at both ends; for the iteration; no damping."""

    nodes: Array
    at_ends: Array
    pairs: EigenPairs
    damping: Damping


class Control(NamedTuple):
    """Tolerances and limits of the steps."""

    tol: float  #: relative error of Z that a step may make
    linear: float  #: rate times length that a step resolves
    answered: float  #: a direction above exp(this) affects the product
    #: directions above exp(waits) have grown; logarithm of the ratio from which they are apart from the others
    waits: float
    apart: float
    #: how far from rest, against the rate of what waits and, if this many have grown, absolutely, what has grown is
    #: left to long steps
    near: float
    rest: float
    grown: int


class MarchPosition(NamedTuple):
    """Time and its end, the next length, steps that still go straight to Newton's method."""

    t: float
    t_end: float
    h: float
    careful: int


class Counts(NamedTuple):
    """Counters of a march."""

    rejected: int
    begun: int
    iterations: int


@cache
def method_of(tableau: GaussTableau) -> GaussMethod:
    nodes = np.concatenate([[0.0], tableau.c, [1.0]])
    return GaussMethod(nodes, tableau.at_ends, eigen_pairs(tableau), damping_of(tableau, 0.0, np.zeros(1), np.zeros(1)))


@part()
def judge(size, tol, stages):
    """Error and next length of a step with the defects of :func:`.defects`, as changes of Z.

    Returns
    -------
    ratio : float
        Its error relative to what is allowed.
    stiff : bool
        Whether relaxation limits its length.
    factor : float
        By which the next step is longer.
    """
    ends = max(size[0], size[1])
    # Relative to the remaining distance, so that a vanishing loss keeps its relative accuracy.
    allowed = max(tol * min(1.0, size[2]), ROUNDING_FLOOR)
    ratio = DEFECT_WEIGHT * ends / allowed
    ratio = ratio if ratio == ratio else np.inf
    factor = SAFETY * ratio ** (-1.0 / (stages + 1)) if ratio > 0.0 else LARGEST_GROWTH
    return ratio, size[3] > max(allowed, _STIFF * ends), min(max(factor, LARGEST_CUT), LARGEST_GROWTH)


#: Entry point for Python.
error_and_factor = compiled()(judge.py_func)


@part()
def _value(coupling, frame):
    """G at a frame."""
    first, second = halves(frame)
    G = product_nt(first, second)
    for i in range(G.shape[0]):
        for c in range(G.shape[1]):
            G[i, c] = coupling.signal[i, c] - coupling.rows[i] * G[i, c] * coupling.columns[c]
    return G


@part()
def turning(frame, G, level, order):
    """How fast S turns directions below exp(level), ``max |S^m f|^(1/m)``, m the order of a step's first error.

    What overlaps little with the fastest directions grows at their rate later in the step; where the product answers,
    the error of the step tells. For f = (a, b) / sqrt(2) and odd m: powers of ``G^T G`` in its eigenvectors.
    """
    (R, w), p = frame.A.shape, G.shape[1]
    squares, vectors = eigen(product_tn(G, G))
    top = 0.0
    for each in squares:
        top = max(top, each)
    if top <= 0.0:
        return 0.0
    pushed, pulled = product(G, frame.B), product_tn(G, frame.A)
    along, against = product_tn(vectors, frame.B), product_tn(vectors, pulled)
    largest = 0.0
    for i in range(w):
        if not -np.inf < frame.logs[i] < level:
            continue
        first = second = 0.0
        for r in range(R):
            first += pushed[r, i] ** 2
        for c in range(p):
            second += pulled[c, i] ** 2
        if max(first, second) <= _NO_TURN**2 * p * top:
            continue
        total = 0.0
        for c in range(p):
            # |(G G^T)^k G b|^2 and |(G^T G)^k G^T a|^2, 2 k + 1 = m
            share = max(squares[c] / top, 0.0) ** (order - 1)
            total += share * (squares[c] * along[c, i] ** 2 + against[c, i] ** 2)
        largest = max(largest, 0.5 * total)
    return math.sqrt(top) * (largest / top) ** (0.5 / order)


@part()
def _rests(frame, G, kappa, growth, control):
    """Whether active directions are separated from waiting ones, and near enough to rest for long steps."""
    w, grown = len(frame.logs), 0
    while grown < w and frame.logs[grown] > control.waits:
        grown += 1
    if grown == 0 or grown == w or growth <= 0.0 or not frame.logs[grown - 1] - frame.logs[grown] >= control.apart:
        return False
    pushed, pulled = product(G, frame.B), product_tn(G, frame.A)
    total = 0.0
    for i in range(grown):
        for r in range(len(pushed)):
            total += (pushed[r, i] - kappa * frame.A[r, i]) ** 2
        for c in range(len(pulled)):
            total += (pulled[c, i] - kappa * frame.B[c, i]) ** 2
    rest = control.rest if grown == control.grown else np.inf
    return math.sqrt(0.5 * total) <= min(rest, control.near * growth)


@part()
def _guess(method, G0, before, stretch):
    """G on the nodes: by the polynomial through the last nodes of the step before; constant for stretch 0."""
    s = len(method.nodes) - 2
    guess = np.zeros((s, *G0.shape))
    first = s + 2 - _GUESS_NODES
    for j in range(s):
        if stretch == 0.0:
            copy(G0, guess[j])
            continue
        x = 1.0 + stretch * method.nodes[j + 1]
        for a in range(first, s + 2):
            weight = 1.0
            for b in range(first, s + 2):
                if b != a:
                    weight *= (x - method.nodes[b]) / (method.nodes[a] - method.nodes[b])
            for i in range(G0.shape[0]):
                for c in range(G0.shape[1]):
                    guess[j, i, c] += weight * before[a, i, c]
    return guess


@part()
def attempt(method, coupling, kappa, common, frame, G, h, careful, tol):
    """One step of a length, from a guess of G on the nodes.

    Returns
    -------
    G, end, iterations, converged, careful
    """
    decay = np.empty(len(method.nodes) - 2)
    for j in range(len(decay)):
        decay[j] = math.exp(-2.0 * kappa * h * method.nodes[j + 1])
    data = StepData(h, method.damping, common[0], common[1], common[2], decay)
    factors = factored(common[3], h * method.pairs.values)
    G, iterations, converged, careful = solve_stages(coupling, data, method.pairs, factors, G, careful, tol)
    if not converged:
        return G, frame, iterations, converged, careful
    first, second = all_columns(frame)
    first, second = propagated(G, h, method.damping, first, second)[1]
    return G, advanced(frame, first, second, kappa * h), iterations, converged, careful


@part()
def _finite(X):
    total = 0.0
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            total += X[i, j]
    return math.isfinite(total)


@compiled()
def march(method, coupling, kappa, control, frame, G0, before, place, most):
    """Steps from a frame, until long ones may be taken, or `most`.

    `kappa`: damping; `frame`, `G0`: the state, and G there; `before`: length of the step before, 0 if there is none,
    and its G.

    Returns
    -------
    h, stiff, G : array (n,), (n,), (n, s + 2, R, p)
        Of the steps: lengths, whether relaxation kept them, G at 0, the nodes and 1.
    frames : tuple of array (n + 1, ...)
    place : MarchPosition
    counts : Counts
    code : int
    """
    s, bends = len(method.nodes) - 2, (coupling.rows, coupling.columns)
    t, t_end, h, careful = place
    last, path = before
    lengths, stiff, kept = np.empty(most), np.zeros(most, np.bool_), np.empty((most, s + 2, *G0.shape))
    frames = stacks(frame, most + 1)
    keep(frames, 0, frame)
    count, rejected, begins, iterations, code, missed = 0, 0, 0, 0, GOES_ON, 0.0
    while count < most and t < t_end and code == GOES_ON:
        common = begun(frame, G0, bends)
        growth = common[4] - kappa
        begins += 1
        if count > 0 and _rests(frame, G0, kappa, growth, control):
            break
        growth = max(growth, turning(frame, G0, control.answered, 2 * s + 1))
        limit = control.linear / growth if growth > 0.0 else np.inf
        retry, failed = False, 0
        while True:
            h = min(h, limit, t_end - t)
            if not h > SMALLEST_STEP * max(t, 2.3e-308):
                code = STEP_FLOOR
                break
            stretch = 0.0 if retry or last == 0.0 or h > _EXTRAPOLATED * last else h / last
            guess = _guess(method, G0, path, stretch)
            G, end, spent, converged, careful = attempt(
                method, coupling, kappa, common, frame, guess, h, careful, control.tol
            )
            iterations += spent
            if not converged:
                rejected += 1
                h *= NEWTON_CUT
                retry = True
                continue
            G1 = _value(coupling, end)
            size = h * defects(factored(common[3], np.full(1, complex(h))), method.at_ends, G, G0, G1)
            ratio, relaxes, scale = judge(size, control.tol, s)
            if not ratio <= 1.0:
                rejected += 1
                # Where errors of the last step relax, the observed order is lower: each cut exceeds the one before.
                failed += 1
                h *= max(scale * 0.5 ** (failed - 1), LARGEST_CUT)
                if relaxes:
                    # Remaining errors of earlier steps: the method damps rates that are not large against 1/h.
                    h = min(h, _DAMPED / fastest(common[3]))
                retry = True
                continue
            if not (_finite(end.A) and _finite(end.B)):
                code = NON_FINITE
                break
            path = kept[count]
            copy(G0, path[0])
            for j in range(s):
                copy(G[j], path[j + 1])
            copy(G1, path[s + 1])
            if missed > 0.0:
                # The next error may change as this one did (Gustafsson's control; Hairer and Wanner, II, IV.8).
                scale = min(scale, max(SAFETY * scale * h / last * (missed / ratio) ** (1.0 / (s + 1)), LARGEST_CUT))
            lengths[count], stiff[count], last, missed = h, relaxes, h, max(ratio, _TREND)
            t = t_end if t + h >= t_end * (1.0 - 1e-15) else t + h
            h *= min(scale, CAUTIOUS_GROWTH) if retry else scale
            frame, G0 = end, G1
            count += 1
            keep(frames, count, frame)
            break
    return (
        lengths[:count].copy(), stiff[:count].copy(), kept[:count].copy(), frames, MarchPosition(t, t_end, h, careful),
        Counts(rejected, begins, iterations), code,
    )  # fmt: skip
