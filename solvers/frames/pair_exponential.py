"""Over a plateau, the exponential of a constant generator on the waiting directions of a paired frame, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array, Index
from flowsim.solvers.compilation import bare
from flowsim.solvers.frames.graded import rows_added, triangularised
from flowsim.solvers.frames.pairs import Pairs, example, sorted_pairs
from flowsim.solvers.matrices.algebra import (
    add,
    copied,
    copy,
    identity,
    norm,
    orthonormal,
    product,
    product_tn,
    rows_from,
    scale,
    transposed,
    upper_inverse,
)
from flowsim.solvers.matrices.bare_arrays import shaped
from flowsim.solvers.matrices.calls import entry
from flowsim.solvers.matrices.interpreted import stands_for
from flowsim.solvers.matrices.scratch import empty, full, zeros

_HALF = math.sqrt(0.5)
#: Relative size of a component that is rounding of the others.
_ROUNDING = 1e-14
#: Growth ``rate * time`` over which a pair that is not yet along a singular vector is turned at once.
_TURN = 4.0
#: Logarithm of the largest ratio that is exponentiated.
_LARGEST = 700.0


@bare()
def _overlaps(work, vectors, frame, count):
    """Overlaps of the vectors with waiting directions, f^+ first, then with the rest of each column; and its unit.

    An overlap of zero must stay zero: rounding would grow as well.
    """
    (R, w), p, k, n = frame.A.shape, len(frame.B), frame.rows.shape[1], len(vectors)
    base = frame.neutral_log
    for i in range(count, w):
        base = max(base, frame.minus_logs[i])
    columns = zeros(work, (R + p, w - count + k))
    for i in range(count, w):
        weight = math.exp(frame.minus_logs[i] - base) if frame.minus_logs[i] > -np.inf else 0.0
        for r in range(R + p):
            value = _HALF * (frame.A[r, i] if r < R else frame.B[r - R, i])
            columns[r, i - count] = value
            signed = weight * (value if r < R else -value)
            for c in range(k):
                columns[r, w - count + c] += signed * frame.minus_rows[i, c]
    if frame.neutral_log > -np.inf:
        weight = math.exp(frame.neutral_log - base)
        for r in range(R):
            for c in range(k):
                columns[r, w - count + c] += weight * frame.neutral[r, c]
    M = product(work, vectors, columns)
    for c in range(M.shape[1]):
        top = 0.0
        for i in range(n):
            top = max(top, abs(M[i, c]))
        for i in range(n):
            if abs(M[i, c]) <= _ROUNDING * top:
                M[i, c] = 0.0
    return M, base


@stands_for(_overlaps)
def _(work: None, vectors: Array, frame: Pairs, count: int) -> tuple[Array, float]:
    R, logs = len(frame.A), frame.minus_logs[count:]
    base = max(frame.neutral_log, logs.max(initial=-np.inf))
    plus = _HALF * np.concatenate([frame.A, frame.B])[:, count:]
    minus = plus * np.where(np.arange(len(plus)) < R, 1.0, -1.0)[:, None]
    rest = (minus * np.where(logs > -np.inf, np.exp(logs - base), 0.0)) @ frame.minus_rows[count:]
    if frame.neutral_log > -np.inf:
        rest[:R] += np.exp(frame.neutral_log - base) * frame.neutral
    M = vectors @ np.concatenate([plus, rest], axis=1)
    M[np.abs(M) <= _ROUNDING * np.abs(M).max(axis=0, initial=0.0)] = 0.0
    return M, base


@bare()
def _reach(work, M, rates, wide):
    """The time for which rounding does not decide between a singular vector and its mirror image.

    Paired directions span a subspace that is orthogonal to itself in J, and of two such, (u, v) added and (u, -v)
    added, only one need be in reach: the minor of the other vanishes, but its rounding grows. Once directions are
    along the vectors to rounding nothing is left of that. Overlaps of zero part vectors and directions into groups,
    and vectors turn in groups that reach neutral vectors or mirror images.
    """
    n, reached, turning = len(M), zeros(work, (wide,)), 0.0
    for r in range(wide, n):
        if r < n - wide or _overlap(M, r - n + wide, wide):
            for c in range(wide):
                if M[r, c] != 0.0:
                    reached[c] = 1.0
    spreads = True
    while spreads:
        spreads = False
        for r in range(n):
            joins = False
            for c in range(wide):
                joins = joins or (M[r, c] != 0.0 and reached[c] > 0.0)
            if joins:
                turning = max(turning, rates[r]) if r < wide else turning
                for c in range(wide):
                    if M[r, c] != 0.0 and reached[c] == 0.0:
                        reached[c], spreads = 1.0, True
    return _TURN / turning if turning > 0.0 else np.inf


@bare()
def _overlap(M, i, wide):
    """Whether vector i overlaps with any of the directions."""
    found = False
    for c in range(wide):
        found = found or M[i, c] != 0.0
    return found


@bare()
def _together(work, A, count, basis, first, wide):
    """Orthonormal columns: the first ones, then parts of the rows of a basis."""
    size = len(A)
    out = empty(work, (size, count + wide))
    for r in range(size):
        for i in range(count):
            out[r, i] = A[r, i]
        for i in range(wide):
            out[r, count + i] = basis[i, first + r] / _HALF
    return orthonormal(work, out)[0]


@bare()
def _outside(work, A, basis, M, exponents, wide):
    """``sum_r e^exponent_r basis_r rows_r``, r >= wide, outside of the span of A, and its logarithm."""
    R, k, top = len(A), M.shape[1] - wide, -np.inf
    for i in range(wide, len(M)):
        square = 0.0
        for c in range(k):
            square += M[i, wide + c] ** 2
        if square > 0.0:
            top = max(top, 0.5 * math.log(square) + exponents[i])
    if A.shape[1] == R or top == -np.inf:
        return zeros(work, (R, k)), -np.inf
    left, right = empty(work, (len(M) - wide, R)), empty(work, (len(M) - wide, k))
    for i in range(wide, len(M)):
        weight = math.exp(min(exponents[i] - top, _LARGEST))
        copy(shaped(basis, i * basis.shape[1], (R,), 0.0), left[i - wide])
        scale(left[i - wide], weight)
        copy(shaped(M, i * M.shape[1] + wide, (k,), 0.0), right[i - wide])
    total = product_tn(work, left, right)
    for _ in range(2):
        add(total, -1.0, product(work, A, product_tn(work, A, total)))
    size = norm(total)
    if size == 0.0:
        return total, -np.inf
    scale(total, 1.0 / size)
    return total, top + math.log(size)


@bare()
def _sorted(work, X, order):
    """Rows of a matrix in an order."""
    out = empty(work, X.shape)
    for i in range(len(order)):
        for c in range(X.shape[1]):
            out[i, c] = X[order[i], c]
    return out


@bare()
def _moved(work, vectors, rates, order, kappa, frame, count, overlaps, t):
    """The frame after a time within reach."""
    (M, base), (R, w), k, n = overlaps, frame.A.shape, frame.rows.shape[1], len(vectors)
    wide = w - count
    basis, rows, exponents = _sorted(work, vectors, order), _sorted(work, M, order), empty(work, (n,))
    for i in range(n):
        exponents[i] = t * rates[order[i]]
    triangularised(work, rows, exponents, basis, wide)
    triangle, fed = zeros(work, (wide, wide)), empty(work, (wide, k))
    for i in range(wide):
        for j in range(i, wide):
            triangle[i, j] = rows[i, j]
        for c in range(k):
            fed[i, c] = rows[i, wide + c]
    logs, minus_logs = copied(work, frame.logs), copied(work, frame.minus_logs)
    all_rows, minus_rows = copied(work, frame.rows), copied(work, frame.minus_rows)
    new, new_rows = full(work, (wide,), -np.inf), zeros(work, (wide, k))
    rows_added(work, new, new_rows, triangle, shaped(logs, count, (wide,), 0.0), rows_from(all_rows, count, w))
    if base > -np.inf:
        rows_added(work, new, new_rows, identity(work, wide), full(work, (wide,), base), fed)
    minus, new_minus = full(work, (wide,), -np.inf), zeros(work, (wide, k))
    inverse = transposed(work, upper_inverse(work, triangle))
    waiting = shaped(minus_logs, count, (wide,), 0.0), rows_from(minus_rows, count, w)
    rows_added(work, minus, new_minus, inverse, waiting[0], waiting[1])
    for i in range(w):
        minus_logs[i] -= 2.0 * kappa * t
    for i in range(wide):
        logs[count + i] = new[i] + exponents[i] - kappa * t
        minus_logs[count + i] = minus[i] - exponents[i] - kappa * t
    copy(new_rows, rows_from(all_rows, count, w))
    copy(new_minus, waiting[1])
    A = _together(work, frame.A, count, basis, 0, wide)
    B = _together(work, frame.B, count, basis, R, wide)
    neutral, neutral_log = _outside(work, A, basis, rows, exponents, wide)
    neutral_log += base - kappa * t
    return sorted_pairs(work, Pairs(A, B, logs, all_rows, minus_logs, minus_rows, neutral_log, neutral))


def _examples() -> tuple[Any, ...]:
    return np.zeros((1, 1)), np.zeros(1), np.zeros(1, np.int64), 0.0, example(), 0, 0.0


@entry(_examples)
@bare()
def _exponential(work, vectors, rates, order, kappa, frame, count, t):
    while True:
        overlaps = _overlaps(work, vectors, frame, count)
        step = min(t, _reach(work, overlaps[0], rates, len(frame.logs) - count))
        frame = _moved(work, vectors, rates, order, kappa, frame, count, overlaps, step)
        t -= step
        if not t > 0.0:
            return frame


def exponential(vectors: Array, rates: Array, order: Index, kappa: float, frame: Pairs, count: int, t: float) -> Pairs:
    """``exp(t S)`` on all but the first `count` directions, which rest.

    `vectors`, `rates` (n, R + p), (n,): eigenvectors of S in rows: pairs (u, v), neutral ones, pairs (u, -v); `order`
    (n,): by falling rates; `kappa`: damping, which is not in the rates.
    """
    found: Pairs = _exponential(np.ascontiguousarray(vectors), rates, order, kappa, frame, count, t)
    return found
