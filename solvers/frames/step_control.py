"""What limits the steps of collocation: their errors, turning directions, and the approach to rest."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.frames.pairs import example
from flowsim.solvers.matrices.algebra import eigen, norm, product, product_tn
from flowsim.solvers.matrices.calls import Entry

#: The polynomial through the nodes misses the ends of the step by more than it misses the integral.
#: Calibrated on closed forms: the error of a run is then 0.01 to 1 times the tolerance.
DEFECT_WEIGHT = 0.05
#: Below this remaining distance (relative to the state) rounding decides, not truncation.
ROUNDING_FLOOR = 2e-12
SAFETY, LARGEST_CUT, NEWTON_CUT = 0.9, 0.2, 0.4
#: Least error, relative to what is allowed, from which a trend is followed.
TREND = 0.01
LARGEST_GROWTH, CAUTIOUS_GROWTH = 2.5, 1.3
SMALLEST_STEP = 1e-14
#: Distance from a minimum of squares, relative to the product, from which on rounding decides about long steps.
AT_MINIMUM = 1e-12
#: Relaxation matters in a step where the defect of the polynomial through G exceeds the response to it by this factor.
_STIFF = 2.0
#: Size of S f, relative to f and S, below which it is rounding.
_NO_TURN = 1e-13


class Control(NamedTuple):
    """Limits of the steps."""

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


@bare()
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


#: The same in plain Python.
error_and_factor = judge.py_func


@bare()
def turning(work, frame, G, level, order):
    """How fast S turns directions below exp(level), ``max |S^m f|^(1/m)``, m the order of a step's first error.

    What overlaps little with the fastest directions grows at their rate later in the step; where the product answers,
    the error of the step tells. For f = (a, b) / sqrt(2) and odd m: powers of ``G^T G`` in its eigenvectors.
    """
    (R, w), p = frame.A.shape, G.shape[1]
    squares, vectors = eigen(work, product_tn(work, G, G))
    top = 0.0
    for c in range(p):
        top = max(top, squares[c])
    if top <= 0.0:
        return 0.0
    pushed, pulled = product(work, G, frame.B), product_tn(work, G, frame.A)
    along, against = product_tn(work, vectors, frame.B), product_tn(work, vectors, pulled)
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


@bare()
def rests(work, frame, G, kappa, growth, control):
    """Whether active directions are separated from waiting ones, and near enough to rest for long steps.

    With damping also where none waits, or what waits shrinks.
    """
    w, grown = len(frame.logs), 0
    while grown < w and frame.logs[grown] > control.waits:
        grown += 1
    outer = frame.neutral_log
    for i in range(w):
        outer = max(outer, frame.minus_logs[i])
    waiting = grown < w and frame.logs[grown] > -np.inf
    if not waiting or growth <= 0.0:
        growth = norm(G) if kappa > 0.0 else 0.0
    if outer > control.waits or growth <= 0.0:
        return False
    if grown == 0:
        return True
    if waiting and not frame.logs[grown - 1] - frame.logs[grown] >= control.apart:
        return False
    pushed, pulled = product(work, G, frame.B), product_tn(work, G, frame.A)
    total = 0.0
    for i in range(grown):
        for r in range(len(pushed)):
            total += (pushed[r, i] - kappa * frame.A[r, i]) ** 2
        for c in range(len(pulled)):
            total += (pulled[c, i] - kappa * frame.B[c, i]) ** 2
    rest = control.rest if grown == control.grown else np.inf
    return math.sqrt(0.5 * total) <= min(rest, control.near * growth)


#: Entry point for Python.
turning_rate = Entry(turning, lambda: (example(), np.zeros((1, 1)), 0.0, 1))
