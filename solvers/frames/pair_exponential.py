"""Over a plateau, the exponential of a constant generator on the waiting directions of a paired frame, compiled."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import compiled, part
from flowsim.solvers.frames.graded import rows_added, triangularised
from flowsim.solvers.frames.pairs import Pairs, sorted_pairs
from flowsim.solvers.frames.small_matrices import identity, orthonormal, product, product_tn, upper_inverse

_HALF = math.sqrt(0.5)
#: Relative size of a component that is rounding of the others.
_ROUNDING = 1e-14
#: Growth ``rate * time`` over which a pair that is not yet along a singular vector is turned at once.
_TURN = 4.0
#: Logarithm of the largest ratio that is exponentiated.
_LARGEST = 700.0


@part()
def _overlaps(vectors, frame, count):
    """Overlaps of the vectors with waiting directions, f^+ first, then with the rest of each column; and its unit.

    An overlap of zero must stay zero: rounding would grow as well.
    """
    (R, w), p, k, n = frame.A.shape, len(frame.B), frame.rows.shape[1], len(vectors)
    base = frame.neutral_log
    for i in range(count, w):
        base = max(base, frame.minus_logs[i])
    columns = np.zeros((R + p, w - count + k))
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
    M = product(vectors, columns)
    for c in range(M.shape[1]):
        top = 0.0
        for i in range(n):
            top = max(top, abs(M[i, c]))
        for i in range(n):
            if abs(M[i, c]) <= _ROUNDING * top:
                M[i, c] = 0.0
    return M, base


@part()
def _reach(M, rates, wide):
    """The time for which rounding does not decide between a singular vector and its mirror image.

    Paired directions span a subspace that is orthogonal to itself in J, and of two such, (u, v) added and (u, -v)
    added, only one need be in reach: the minor of the other vanishes, but its rounding grows. Once directions are
    along the vectors to rounding nothing is left of that.
    """
    n = len(M)
    there = np.zeros(n, np.bool_)
    outside = False
    for i in range(n):
        for c in range(wide):
            there[i] = there[i] or M[i, c] != 0.0
        outside = outside or (there[i] and wide <= i < n - wide)
    turning = 0.0
    for i in range(wide):
        if there[i] and (outside or there[n - wide + i]):
            turning = max(turning, rates[i])
    return _TURN / turning if turning > 0.0 else np.inf


@part()
def _together(A, count, basis, first, wide):
    """Orthonormal columns: the first ones, then parts of the rows of a basis."""
    size = len(A)
    out = np.empty((size, count + wide))
    for r in range(size):
        for i in range(count):
            out[r, i] = A[r, i]
        for i in range(wide):
            out[r, count + i] = basis[i, first + r] / _HALF
    return orthonormal(out)[0]


@part()
def _outside(A, basis, M, exponents, wide):
    """``sum_r e^exponent_r basis_r rows_r``, r >= wide, outside of the span of A, and its logarithm."""
    R, k = len(A), M.shape[1] - wide
    total, top = np.zeros((R, k)), -np.inf
    sizes = np.full(len(M), -np.inf)
    for i in range(wide, len(M)):
        square = 0.0
        for c in range(k):
            square += M[i, wide + c] ** 2
        if square > 0.0:
            sizes[i] = 0.5 * math.log(square) + exponents[i]
            top = max(top, sizes[i])
    if A.shape[1] == R or top == -np.inf:
        return total, -np.inf
    for i in range(wide, len(M)):
        weight = math.exp(min(exponents[i] - top, _LARGEST))
        for r in range(R):
            for c in range(k):
                total[r, c] += weight * basis[i, r] * M[i, wide + c]
    for _ in range(2):
        along = product(A, product_tn(A, total))
        for r in range(R):
            for c in range(k):
                total[r, c] -= along[r, c]
    square = 0.0
    for r in range(R):
        for c in range(k):
            square += total[r, c] ** 2
    size = math.sqrt(square)
    if size == 0.0:
        return total, -np.inf
    for r in range(R):
        for c in range(k):
            total[r, c] /= size
    return total, top + math.log(size)


@part()
def _moved(vectors, rates, order, kappa, frame, count, M, base, t):
    """The frame after a time within reach."""
    (R, w), k = frame.A.shape, frame.rows.shape[1]
    wide, n = w - count, len(vectors)
    basis, rows, exponents = np.empty_like(vectors), np.empty_like(M), np.empty(n)
    for i in range(n):
        exponents[i] = t * rates[order[i]]
        for c in range(vectors.shape[1]):
            basis[i, c] = vectors[order[i], c]
        for c in range(M.shape[1]):
            rows[i, c] = M[order[i], c]
    triangularised(rows, exponents, basis, wide)
    triangle, fed = np.zeros((wide, wide)), np.empty((wide, k))
    for i in range(wide):
        for j in range(i, wide):
            triangle[i, j] = rows[i, j]
        for c in range(k):
            fed[i, c] = rows[i, wide + c]
    logs, minus_logs = frame.logs.copy(), frame.minus_logs.copy()
    all_rows, minus_rows = frame.rows.copy(), frame.minus_rows.copy()
    new, new_rows = np.full(wide, -np.inf), np.zeros((wide, k))
    rows_added(new, new_rows, triangle, frame.logs[count:], frame.rows[count:])
    if base > -np.inf:
        rows_added(new, new_rows, identity(wide), np.full(wide, base), fed)
    minus, new_minus = np.full(wide, -np.inf), np.zeros((wide, k))
    inverse = np.ascontiguousarray(upper_inverse(triangle).T)
    rows_added(minus, new_minus, inverse, frame.minus_logs[count:], frame.minus_rows[count:])
    for i in range(w):
        minus_logs[i] -= 2.0 * kappa * t
    for i in range(wide):
        logs[count + i] = new[i] + exponents[i] - kappa * t
        minus_logs[count + i] = minus[i] - exponents[i] - kappa * t
        for c in range(k):
            all_rows[count + i, c], minus_rows[count + i, c] = new_rows[i, c], new_minus[i, c]
    A = _together(frame.A, count, basis, 0, wide)
    B = _together(frame.B, count, basis, R, wide)
    neutral, neutral_log = _outside(A, basis, rows, exponents, wide)
    return sorted_pairs(Pairs(A, B, logs, all_rows, minus_logs, minus_rows, neutral_log + base - kappa * t, neutral))


@compiled()
def exponential(vectors, rates, order, kappa, frame, count, t):
    """``exp(t S)`` on all but the first `count` directions, which rest.

    `vectors`, `rates` (n, R + p), (n,): eigenvectors of S in rows: pairs (u, v), neutral ones, pairs (u, -v); `order`
    (n,): by falling rates; `kappa`: damping, which is not in the rates.
    """
    while True:
        M, base = _overlaps(vectors, frame, count)
        step = min(t, _reach(M, rates, len(frame.logs) - count))
        frame = _moved(vectors, rates, order, kappa, frame, count, M, base, step)
        t -= step
        if not t > 0.0:
            return frame
