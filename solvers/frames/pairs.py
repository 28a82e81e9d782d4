"""A collocation step of a paired frame, compiled: its preparation, and the frame after it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import compiled, part
from flowsim.solvers.frames.collocation import propagated
from flowsim.solvers.frames.graded import rows_added
from flowsim.solvers.frames.relaxation import Relaxation
from flowsim.solvers.frames.small_matrices import (
    copy,
    eigen,
    identity,
    orthonormal,
    product,
    product_nt,
    product_tn,
    solve,
    upper_inverse,
)

_HALF = math.sqrt(0.5)
#: Logarithm, relative to the largest, below which a direction has no effect on a product.
INVISIBLE = -45.0


class Pairs(NamedTuple):
    """The arrays of a :class:`flowsim.solvers.frames.Frame`, by the same names."""

    A: Array
    B: Array
    logs: Array
    rows: Array
    minus_logs: Array
    minus_rows: Array
    neutral_log: float
    neutral: Array


@part()
def _scaled_rows(logs, rows, shift):
    out = np.zeros_like(rows)
    for i in range(len(logs)):
        if logs[i] > -np.inf:
            scale = math.exp(logs[i] - shift) * _HALF
            for c in range(rows.shape[1]):
                out[i, c] = scale * rows[i, c]
    return out


@part()
def _add(X, scale, Y):
    """``X += scale Y``."""
    for i in range(X.shape[0]):
        for c in range(X.shape[1]):
            X[i, c] += scale * Y[i, c]


@part()
def _scale(X, factor):
    for i in range(X.shape[0]):
        for c in range(X.shape[1]):
            X[i, c] *= factor


@part()
def _norm(X):
    total = 0.0
    for i in range(X.shape[0]):
        for c in range(X.shape[1]):
            total += X[i, c] * X[i, c]
    return math.sqrt(total)


@part()
def halves(frame):
    """``Z_1, Z_2``."""
    both = _scaled_rows(frame.logs, frame.rows, 0.0)
    minus = _scaled_rows(frame.minus_logs, frame.minus_rows, 0.0)
    _add(both, 1.0, minus)
    first = product(frame.A, both)
    if frame.neutral_log > -np.inf:
        _add(first, math.exp(frame.neutral_log), frame.neutral)
    _add(both, -2.0, minus)
    return first, product(frame.B, both)


@part()
def _largest_minus(frame):
    top = frame.neutral_log
    for each in frame.minus_logs:
        top = max(top, each)
    return top


@part()
def begun(frame, G, bends):
    """The quantities that all steps from one state share.

    `G` (R, p); `bends`: curvatures of rows and columns.

    Returns
    -------
    first, second, gram : array (R, q), (p, q), (q, q)
        ``Z_1 Z_2^T = first gram second^T`` to rounding; an empty Gram matrix is the identity.
    relaxation : Relaxation
        With ``P_1 = A inner A^T + rest (1 - A A^T)`` on average, ``P_2 = outer``.
    growth : float
        The largest rate at which a direction of the state grows or shrinks.
    """
    R, w = frame.A.shape
    first, second = halves(frame)
    inner = product_tn(frame.A, first)
    rest = 0.0
    if w < R and frame.neutral_log > -np.inf:
        rest = (math.exp(frame.neutral_log) * _norm(frame.neutral)) ** 2 / (R - w)
    relaxation = _relaxation(bends, frame.A, product_nt(inner, inner), product_nt(second, second), rest)
    growth = _growth(frame, G)
    others = _largest_minus(frame)
    top = max(frame.logs[0], others)
    if others > top + INVISIBLE:
        return first, second, np.zeros((0, 0)), relaxation, growth
    kept = 0
    for i in range(w):
        if frame.logs[i] > top + INVISIBLE:
            kept += 1
    seen = _scaled_rows(frame.logs[:kept], frame.rows[:kept], 0.0)
    return frame.A[:, :kept].copy(), frame.B[:, :kept].copy(), product_nt(seen, seen), relaxation, growth


#: Entry point for Python.
begin = compiled()(begun.py_func)


@part()
def _relaxation(bends, basis, inner, outer, nu):
    rows, columns = bends
    small, left = eigen(inner)
    values, vectors = eigen(outer)
    kind = 0
    for each in columns:
        kind = kind if each == columns[0] else 1
    for values_of in (small, values):
        for i in range(len(values_of)):
            values_of[i] = max(values_of[i], 0.0)
    return Relaxation(kind, rows, columns, product(basis, left), small, nu, vectors, values, outer)


@part()
def _growth(frame, G):
    there = np.flatnonzero(frame.logs > -np.inf)
    moved = product(G, frame.B)
    cross = np.empty((len(there), len(there)))
    for i in range(len(there)):
        for j in range(len(there)):
            total = 0.0
            for r in range(G.shape[0]):
                total += frame.A[r, there[i]] * moved[r, there[j]] + frame.A[r, there[j]] * moved[r, there[i]]
            cross[i, j] = 0.5 * total
    growth = 0.0
    for each in eigen(cross)[0]:
        growth = max(growth, abs(each))
    return growth


@part()
def advanced(frame, first, second, damped):
    """The frame after a propagator that took :func:`all_columns` to (first; second); N follows A if it is not there."""
    R, w = frame.A.shape
    k = frame.rows.shape[1]
    plus_first, plus_second = first[:, :w].copy(), second[:, :w].copy()
    minus_first, minus_second = plus_first.copy(), plus_second.copy()
    for half, plus, minus in ((first, plus_first, minus_first), (second, plus_second, minus_second)):
        other = half[:, w : 2 * w].copy()
        _add(plus, 1.0, other)
        _add(minus, -1.0, other)
    A, triangle = orthonormal(plus_first)
    B, other = orthonormal(plus_second)
    _add(triangle, 1.0, other)
    fed = product_tn(A, minus_first)
    _add(fed, 1.0, product_tn(B, minus_second))
    _scale(triangle, 0.5)
    _scale(fed, 0.5)
    logs, rows = np.full(w, -np.inf), np.zeros((w, k))
    rows_added(logs, rows, triangle, frame.logs, frame.rows)
    rows_added(logs, rows, fed, frame.minus_logs, frame.minus_rows)
    neutral, neutral_log = frame.neutral, -np.inf
    moved = first[:, 2 * w :].copy()
    apart = frame.neutral_log > -np.inf and moved.shape[1] == 0
    if frame.neutral_log > -np.inf and not apart:
        fed = product_tn(A, moved)
        _add(fed, 1.0, product_tn(B, second[:, 2 * w :].copy()))
        rows_added(logs, rows, identity(w), np.full(w, frame.neutral_log + math.log(_HALF)), fed)
    base = _largest_minus(frame)
    if apart:
        neutral, neutral_log = _rotated(neutral, frame.A, A), frame.neutral_log
    elif base > -np.inf and w < R:
        neutral = product(minus_first, _scaled_rows(frame.minus_logs, frame.minus_rows, base))
        if frame.neutral_log > -np.inf:
            _add(neutral, math.exp(frame.neutral_log - base), moved)
        for _ in range(2):
            _add(neutral, -1.0, product(A, product_tn(A, neutral)))
        size = _norm(neutral)
        if size > 0.0:
            neutral_log = base + math.log(size)
            _scale(neutral, 1.0 / size)
    unit = np.empty((w, w))
    for i in range(w):
        for j in range(w):
            unit[i, j] = triangle[i, j] / triangle[i, i]
    minus_logs, minus_rows = np.full(w, -np.inf), np.zeros((w, k))
    rows_added(minus_logs, minus_rows, np.ascontiguousarray(upper_inverse(unit).T), frame.minus_logs, frame.minus_rows)
    for i in range(w):
        logs[i] -= damped
        minus_logs[i] -= math.log(triangle[i, i]) + damped
    return sorted_pairs(Pairs(A, B, logs, rows, minus_logs, minus_rows, neutral_log - damped, neutral))


#: Entry point for Python.
advance = compiled()(advanced.py_func)


@compiled()
def carry(frame, G, h, damping, first, second, damped):
    """Frames (n + 1 of each array, including the start) over n steps in a known G (n, s, R, p).

    The first r directions are rotated onto their known positions at the ends, the spans of the columns of `first`
    and `second`, (n, R, r) and (n, p, r), so that their errors do not grow. The conserved quantity is independent of
    directions.
    """
    n = len(G)
    frames = stacks(frame, n + 1)
    keep(frames, 0, frame)
    for at in range(n):
        moved = propagated(G[at], h, damping, *all_columns(frame))[1]
        frame = _turned(advanced(frame, moved[0], moved[1], damped), first[at], second[at])
        keep(frames, at + 1, frame)
    return frames


@part()
def stacks(frame, n):
    """Uninitialised arrays for n frames of the shapes of one."""
    (R, w), p, k = frame.A.shape, len(frame.B), frame.rows.shape[1]
    return (
        np.empty((n, R, w)), np.empty((n, p, w)), np.empty((n, w)), np.empty((n, w, k)), np.empty((n, w)),
        np.empty((n, w, k)), np.empty(n), np.empty((n, R, frame.neutral.shape[1])),
    )  # fmt: skip


@part()
def keep(stack, at, frame):
    """Store a frame as number `at`."""
    A, B, logs, rows, minus_logs, minus_rows, neutral_log, neutral = stack
    copy(frame.A, A[at])
    copy(frame.B, B[at])
    copy(frame.rows, rows[at])
    copy(frame.minus_rows, minus_rows[at])
    copy(frame.neutral, neutral[at])
    for i in range(len(frame.logs)):
        logs[at, i], minus_logs[at, i] = frame.logs[i], frame.minus_logs[i]
    neutral_log[at] = frame.neutral_log


@part()
def all_columns(frame):
    """``[A 0 N; 0 B 0]``, without N where it is below the rounding of every f^+ and every f^- below that of N."""
    (R, w), p = frame.A.shape, len(frame.B)
    apart = True
    for i in range(w):
        apart = apart and frame.minus_logs[i] < frame.neutral_log + INVISIBLE < frame.logs[i] + 2 * INVISIBLE
    k = frame.neutral.shape[1] if frame.neutral_log > -np.inf and not apart else 0
    first, second = np.zeros((R, 2 * w + k)), np.zeros((p, 2 * w + k))
    for i in range(R):
        for c in range(w):
            first[i, c] = frame.A[i, c]
        for c in range(k):
            first[i, 2 * w + c] = frame.neutral[i, c]
    for i in range(p):
        for c in range(w):
            second[i, w + c] = frame.B[i, c]
    return first, second


@part()
def _turned(frame, first, second):
    A, B = _onto(frame.A, first), _onto(frame.B, second)
    neutral = _rotated(frame.neutral, frame.A, A) if frame.neutral_log > -np.inf else frame.neutral
    return Pairs(A, B, frame.logs, frame.rows, frame.minus_logs, frame.minus_rows, frame.neutral_log, neutral)


@part()
def _rotated(vectors, old, new):
    """The rotation from one basis to another, applied to vectors orthogonal to the first."""
    cosines = product_tn(new, old)
    for i in range(len(cosines)):
        cosines[i, i] += 1.0
    both = new.copy()
    _add(both, 1.0, old)
    out = vectors.copy()
    _add(out, -1.0, product(both, solve(cosines, product_tn(new, vectors))))
    return out


@part()
def _onto(A, span):
    """Orthonormal columns, the first of them projected onto a span of equal dimension."""
    Q = orthonormal(span)[0]
    A, head = A.copy(), product(Q, product_tn(Q, A[:, : span.shape[1]].copy()))
    for i in range(head.shape[0]):
        for c in range(head.shape[1]):
            A[i, c] = head[i, c]
    return orthonormal(A)[0]


@part()
def sorted_pairs(frame):
    """Directions with the largest part of the state first; of a pair that with the larger is f^+."""
    w = len(frame.logs)
    for i in range(w):
        if frame.minus_logs[i] > frame.logs[i]:
            for r in range(frame.B.shape[0]):
                frame.B[r, i] = -frame.B[r, i]
            frame.logs[i], frame.minus_logs[i] = frame.minus_logs[i], frame.logs[i]
            for c in range(frame.rows.shape[1]):
                frame.rows[i, c], frame.minus_rows[i, c] = frame.minus_rows[i, c], frame.rows[i, c]
    falling = True
    for i in range(1, w):
        falling = falling and frame.logs[i] <= frame.logs[i - 1]
    if falling:
        return frame
    order = np.empty(w, np.int64)
    for i in range(w):
        order[i] = i
        for j in range(i, 0, -1):
            if frame.logs[order[j]] > frame.logs[order[j - 1]]:
                order[j], order[j - 1] = order[j - 1], order[j]
    A, B, logs, minus_logs = np.empty_like(frame.A), np.empty_like(frame.B), np.empty(w), np.empty(w)
    rows, minus_rows = np.empty_like(frame.rows), np.empty_like(frame.rows)
    for i in range(w):
        old = order[i]
        for r in range(A.shape[0]):
            A[r, i] = frame.A[r, old]
        for r in range(B.shape[0]):
            B[r, i] = frame.B[r, old]
        logs[i], minus_logs[i] = frame.logs[old], frame.minus_logs[old]
        for c in range(rows.shape[1]):
            rows[i, c], minus_rows[i, c] = frame.rows[old, c], frame.minus_rows[old, c]
    return Pairs(A, B, logs, rows, minus_logs, minus_rows, frame.neutral_log, frame.neutral)
