"""A collocation step of a paired frame, compiled: its preparation, and the frame after it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import bare
from flowsim.solvers.frames.collocation import Damping, damping_of, propagated, propagation
from flowsim.solvers.frames.graded import rows_added
from flowsim.solvers.frames.relaxation import Relaxation
from flowsim.solvers.gauss import gauss_tableau
from flowsim.solvers.matrices.algebra import (
    add,
    columns,
    copied,
    copy,
    eigen,
    identity,
    norm,
    orthonormal,
    product,
    product_nt,
    product_tn,
    rows_from,
    scale,
    solve,
    transposed,
    upper_inverse,
)
from flowsim.solvers.matrices.calls import Entry, entry
from flowsim.solvers.matrices.scratch import empty, empty_integers, full, in_use, release, zeros

_HALF = math.sqrt(0.5)
#: Logarithm, relative to the largest, below which a direction has no effect on a product.
INVISIBLE = -45.0


class Pairs(NamedTuple):
    """The arrays of a :class:`flowsim.solvers.frames.Frame`, by the same names; or stacks of those of several."""

    A: Array
    B: Array
    logs: Array
    rows: Array
    minus_logs: Array
    minus_rows: Array
    neutral_log: Any
    neutral: Array


def example() -> Pairs:
    """Of the usual types."""
    vector, matrix = np.zeros(1), np.zeros((1, 1))
    return Pairs(matrix, matrix, vector, matrix, vector, matrix, 0.0, matrix)


@bare()
def _scaled_rows(work, logs, rows, shift):
    """``exp(logs - shift) rows / sqrt(2)``."""
    out = zeros(work, rows.shape)
    for i in range(rows.shape[0]):
        if logs[i] > -np.inf:
            factor = math.exp(logs[i] - shift) * _HALF
            for c in range(rows.shape[1]):
                out[i, c] = factor * rows[i, c]
    return out


@bare()
def halves(work, frame):
    """``Z_1, Z_2``."""
    both = _scaled_rows(work, frame.logs, frame.rows, 0.0)
    minus = _scaled_rows(work, frame.minus_logs, frame.minus_rows, 0.0)
    add(both, 1.0, minus)
    first = product(work, frame.A, both)
    if frame.neutral_log > -np.inf:
        add(first, math.exp(frame.neutral_log), frame.neutral)
    add(both, -2.0, minus)
    return first, product(work, frame.B, both)


@bare()
def _largest_minus(frame):
    top = frame.neutral_log
    for i in range(len(frame.minus_logs)):
        top = max(top, frame.minus_logs[i])
    return top


@bare()
def begun(work, frame, G, bends):
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
    first, second = halves(work, frame)
    inner = product_tn(work, frame.A, first)
    rest = 0.0
    if w < R and frame.neutral_log > -np.inf:
        rest = (math.exp(frame.neutral_log) * norm(frame.neutral)) ** 2 / (R - w)
    inner, outer = product_nt(work, inner, inner), product_nt(work, second, second)
    relaxation = _relaxation(work, bends, frame.A, inner, outer, rest)
    growth = _growth(work, frame, G)
    others = _largest_minus(frame)
    top = max(frame.logs[0], others)
    if others > top + INVISIBLE:
        return first, second, empty(work, (0, 0)), relaxation, growth
    kept = 0
    for i in range(w):
        if frame.logs[i] > top + INVISIBLE:
            kept += 1
    seen = _scaled_rows(work, frame.logs, rows_from(frame.rows, 0, kept), 0.0)
    first, second = columns(work, frame.A, 0, kept), columns(work, frame.B, 0, kept)
    return first, second, product_nt(work, seen, seen), relaxation, growth


#: Entry point for Python.
begin = Entry(begun, lambda: (example(), np.zeros((1, 1)), (np.zeros(1), np.zeros(1))))


@bare()
def _relaxation(work, bends, basis, inner, outer, nu):
    rows, columns = bends
    small, left = eigen(work, inner)
    values, vectors = eigen(work, outer)
    kind = 0
    for c in range(len(columns)):
        kind = kind if columns[c] == columns[0] else 1
    for i in range(len(small)):
        small[i] = max(small[i], 0.0)
    for i in range(len(values)):
        values[i] = max(values[i], 0.0)
    return Relaxation(kind, rows, columns, product(work, basis, left), small, nu, vectors, values, outer)


@bare()
def _growth(work, frame, G):
    there, count = empty_integers(work, len(frame.logs)), 0
    for i in range(len(frame.logs)):
        if frame.logs[i] > -np.inf:
            there[count] = i
            count += 1
    moved, cross = product(work, G, frame.B), empty(work, (count, count))
    for i in range(count):
        for j in range(count):
            total = 0.0
            for r in range(G.shape[0]):
                total += frame.A[r, there[i]] * moved[r, there[j]] + frame.A[r, there[j]] * moved[r, there[i]]
            cross[i, j] = 0.5 * total
    growth, rates = 0.0, eigen(work, cross)[0]
    for i in range(count):
        growth = max(growth, abs(rates[i]))
    return growth


@bare()
def advanced(work, frame, first, second, damped):
    """The frame after a propagator that took :func:`all_columns` to (first; second); N follows A if it is not there."""
    w, k = len(frame.logs), frame.rows.shape[1]
    plus_first, minus_first = _sum_and_difference(work, first, w)
    plus_second, minus_second = _sum_and_difference(work, second, w)
    A, triangle = orthonormal(work, plus_first)
    B, other = orthonormal(work, plus_second)
    add(triangle, 1.0, other)
    scale(triangle, 0.5)
    logs, rows = full(work, (w,), -np.inf), zeros(work, (w, k))
    rows_added(work, logs, rows, triangle, frame.logs, frame.rows)
    fed = product_tn(work, A, minus_first)
    add(fed, 1.0, product_tn(work, B, minus_second))
    scale(fed, 0.5)
    rows_added(work, logs, rows, fed, frame.minus_logs, frame.minus_rows)
    moved = columns(work, first, 2 * w, first.shape[1])
    if moved.shape[1] > 0:
        fed = product_tn(work, A, moved)
        add(fed, 1.0, product_tn(work, B, columns(work, second, 2 * w, second.shape[1])))
        rows_added(work, logs, rows, identity(work, w), full(work, (w,), frame.neutral_log + math.log(_HALF)), fed)
    neutral_log, neutral = _neutral_after(work, frame, A, minus_first, moved)
    unit = empty(work, (w, w))
    for i in range(w):
        for j in range(w):
            unit[i, j] = triangle[i, j] / triangle[i, i]
    minus_logs, minus_rows = full(work, (w,), -np.inf), zeros(work, (w, k))
    unit = transposed(work, upper_inverse(work, unit))
    rows_added(work, minus_logs, minus_rows, unit, frame.minus_logs, frame.minus_rows)
    for i in range(w):
        logs[i] -= damped
        minus_logs[i] -= math.log(triangle[i, i]) + damped
    return sorted_pairs(work, Pairs(A, B, logs, rows, minus_logs, minus_rows, neutral_log - damped, neutral))


@bare()
def _sum_and_difference(work, half, w):
    """Of the first w columns and those behind them."""
    plus, minus, other = columns(work, half, 0, w), columns(work, half, 0, w), columns(work, half, w, 2 * w)
    add(plus, 1.0, other)
    add(minus, -1.0, other)
    return plus, minus


@bare()
def _neutral_after(work, frame, A, minus, moved):
    """l^0 and N after a step, from the images of the f^- and of N; `moved` without columns: N follows A."""
    is_there = frame.neutral_log > -np.inf
    if is_there and moved.shape[1] == 0:
        return frame.neutral_log, _rotated(work, frame.neutral, frame.A, A)
    base = _largest_minus(frame)
    if base == -np.inf or A.shape[1] == A.shape[0]:
        return -np.inf, frame.neutral
    neutral = product(work, minus, _scaled_rows(work, frame.minus_logs, frame.minus_rows, base))
    if is_there:
        add(neutral, math.exp(frame.neutral_log - base), moved)
    for _ in range(2):
        add(neutral, -1.0, product(work, A, product_tn(work, A, neutral)))
    size = norm(neutral)
    if size == 0.0:
        return -np.inf, neutral
    scale(neutral, 1.0 / size)
    return base + math.log(size), neutral


#: Entry point for Python.
advance = Entry(advanced, lambda: (example(), np.zeros((1, 1)), np.zeros((1, 1)), 0.0))


def _examples() -> tuple[Any, ...]:
    cube, damping = np.zeros((1, 1, 1)), damping_of(gauss_tableau(1), 0.0, *np.zeros((2, 1)))
    return 0, stack_of(example(), 2), cube[None], np.zeros(1), damping, cube, cube, 0.0


@entry(_examples)
@bare()
def _carry(work, propagator, stack, G, h, damping, first, second, kappa):
    before = in_use(work)
    for at in range(len(G)):
        frame = stored(stack, at)
        start = all_columns(work, frame)
        moved = propagated(work, propagator, G[at], h[at], damping, start[0], start[1])[1]
        frame = advanced(work, frame, moved[0], moved[1], kappa * h[at])
        keep(stack, at + 1, _turned(work, frame, first[at], second[at]))
        release(work, before)


def carry(frame: Pairs, G: Array, h: Array, damping: Damping, first: Array, second: Array, kappa: float) -> Pairs:
    """Frames (n + 1 of each array, including the start) over n steps of lengths h in a known G (n, s, R, p).

    The first r directions are rotated onto their known positions at the ends, the spans of the columns of `first`
    and `second`, (n, R, r) and (n, p, r), so that their errors do not grow. The conserved quantity is independent of
    directions.
    """
    stack = stack_of(frame, len(G) + 1)
    _carry(propagation, stack, G, h, damping, first, second, kappa)
    return stack


def stack_of(frame: Pairs, n: int) -> Pairs:
    """Arrays for n frames of the shapes of one, which is the first."""
    stack: list[Array] = []
    for each in frame:
        stack.append(np.empty((n, *np.shape(each))))
        stack[-1][0] = each
    return Pairs(*stack)


@bare()
def keep(stack, at, frame):
    """Store a frame as number `at`."""
    copy(frame.A, stack.A[at])
    copy(frame.B, stack.B[at])
    copy(frame.logs, stack.logs[at])
    copy(frame.rows, stack.rows[at])
    copy(frame.minus_logs, stack.minus_logs[at])
    copy(frame.minus_rows, stack.minus_rows[at])
    copy(frame.neutral, stack.neutral[at])
    stack.neutral_log[at] = frame.neutral_log


@bare()
def stored(stack, at):
    """Frame number `at`, in the memory of the stack."""
    return Pairs(
        stack.A[at],
        stack.B[at],
        stack.logs[at],
        stack.rows[at],
        stack.minus_logs[at],
        stack.minus_rows[at],
        stack.neutral_log[at],
        stack.neutral[at],
    )


@bare()
def all_columns(work, frame):
    """``[A 0 N; 0 B 0]``, without N where it is below the rounding of every f^+ and every f^- below that of N."""
    (R, w), p = frame.A.shape, len(frame.B)
    apart = True
    for i in range(w):
        apart = apart and frame.minus_logs[i] < frame.neutral_log + INVISIBLE < frame.logs[i] + 2 * INVISIBLE
    k = frame.neutral.shape[1] if frame.neutral_log > -np.inf and not apart else 0
    first, second = zeros(work, (R, 2 * w + k)), zeros(work, (p, 2 * w + k))
    for i in range(R):
        for c in range(w):
            first[i, c] = frame.A[i, c]
        for c in range(k):
            first[i, 2 * w + c] = frame.neutral[i, c]
    for i in range(p):
        for c in range(w):
            second[i, w + c] = frame.B[i, c]
    return first, second


@bare()
def _turned(work, frame, first, second):
    A, B = _onto(work, frame.A, first), _onto(work, frame.B, second)
    is_there = frame.neutral_log > -np.inf
    neutral = _rotated(work, frame.neutral, frame.A, A) if is_there else frame.neutral
    return Pairs(A, B, frame.logs, frame.rows, frame.minus_logs, frame.minus_rows, frame.neutral_log, neutral)


@bare()
def _rotated(work, vectors, old, new):
    """The rotation from one basis to another, applied to vectors orthogonal to the first."""
    cosines = product_tn(work, new, old)
    for i in range(len(cosines)):
        cosines[i, i] += 1.0
    both, out = copied(work, new), copied(work, vectors)
    add(both, 1.0, old)
    add(out, -1.0, product(work, both, solve(work, cosines, product_tn(work, new, vectors))))
    return out


@bare()
def _onto(work, A, span):
    """Orthonormal columns, the first of them projected onto a span of equal dimension."""
    Q, A = orthonormal(work, span)[0], copied(work, A)
    head = product(work, Q, product_tn(work, Q, columns(work, A, 0, span.shape[1])))
    for i in range(head.shape[0]):
        for c in range(head.shape[1]):
            A[i, c] = head[i, c]
    return orthonormal(work, A)[0]


@bare()
def sorted_pairs(work, frame):
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
    order = empty_integers(work, w)
    for i in range(w):
        order[i] = i
        for j in range(i, 0, -1):
            if frame.logs[order[j]] > frame.logs[order[j - 1]]:
                order[j], order[j - 1] = order[j - 1], order[j]
    A, B = empty(work, frame.A.shape), empty(work, frame.B.shape)
    logs, minus_logs = empty(work, (w,)), empty(work, (w,))
    rows, minus_rows = empty(work, frame.rows.shape), empty(work, frame.rows.shape)
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
