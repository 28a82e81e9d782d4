r"""Small dense linear algebra for compiled loops.

Vectors come padded with zeros to a multiple of :data:`flowsim.solvers.compilation.LANES`, so that every loop over one
is whole vector registers.
Entries are addressed by two indices, not through views of rows: a view counts its references, atomically, and that
costs more than the row.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import FAST, bare, padded

__all__ = ["dot", "factor", "fill_wide", "invert", "move", "move_two", "multiply", "resolve", "substitute"]


@bare(fastmath=FAST, inline="always")
def dot(X, i, Y, j, size):
    """The product of the beginnings of two rows."""
    total = 0.0
    for k in range(size):
        total += X[i, k] * Y[j, k]
    return total


@bare(fastmath=FAST, inline="always")
def multiply(S, x, m, mp, scale, out, place):
    """out[place] = scale S x for S of m rows, padded."""
    for i in range(m):
        total = 0.0
        for j in range(mp):
            total += S[i, j] * x[j]
        out[place, i] = scale * total
    for i in range(m, mp):
        out[place, i] = 0.0


@bare(fastmath=FAST, inline="always")
def resolve(S, weight, m, mp, first, second):
    r"""S becomes ``(S^-1 + diag(weight))^-1 = S (I + diag(weight) S)^-1``, weight >= 0, in place; S may be singular.

    Two pivots of a symmetric Gauss-Jordan elimination at a time. No difference of near equals decides anything: the
    pivots are ``1 + weight_i S_ii`` of ever smaller S_ii >= 0.
    """
    for i in range(0, m - 1, 2):
        shrink_1 = 1.0 / (1.0 + weight[i] * S[i, i])
        scale_1 = weight[i] * shrink_1
        mixed = S[i, i + 1] * scale_1
        for k in range(mp):
            first[k] = S[i, k]
            second[k] = S[i + 1, k] - mixed * S[i, k]
        second[i] = first[i + 1] * shrink_1
        shrink_2 = 1.0 / (1.0 + weight[i + 1] * second[i + 1])
        scale_2 = weight[i + 1] * shrink_2
        for j in range(m):
            a, b = scale_1 * first[j], scale_2 * second[j]
            for k in range(mp):
                S[j, k] -= a * first[k] + b * second[k]
        mixed = first[i + 1] * shrink_1 * scale_2
        for k in range(mp):
            first[k] = first[k] * shrink_1 - mixed * second[k]
            second[k] *= shrink_2
        first[i + 1] = second[i]
        for k in range(mp):
            S[i, k] = first[k]
            S[i + 1, k] = second[k]
        for j in range(m):
            S[j, i] = first[j]
            S[j, i + 1] = second[j]
    if m % 2:
        i = m - 1
        shrink_1 = 1.0 / (1.0 + weight[i] * S[i, i])
        scale_1 = weight[i] * shrink_1
        for k in range(mp):
            first[k] = S[i, k]
        for j in range(m):
            a = scale_1 * first[j]
            for k in range(mp):
                S[j, k] -= a * first[k]
        for k in range(mp):
            S[i, k] = first[k] * shrink_1
        for j in range(m):
            S[j, i] = first[j] * shrink_1


@bare(fastmath=FAST, inline="always")
def factor(M, inverse, m):
    """Lower Cholesky factor in place, reciprocal diagonal aside; False if M is not positive definite."""
    for i in range(m):
        for j in range(i):
            M[i, j] = (M[i, j] - dot(M, i, M, j, j)) * inverse[j]
        pivot = M[i, i] - dot(M, i, M, i, i)
        if not (pivot > 0.0 and pivot < np.inf):
            return False
        M[i, i] = math.sqrt(pivot)
        inverse[i] = 1.0 / M[i, i]
    return True


@bare(fastmath=FAST, inline="always")
def invert(M, m, mp, row):
    """M, symmetric, becomes its inverse by Gauss-Jordan elimination; False if it is not positive definite."""
    for i in range(m):
        pivot = M[i, i]
        if not (pivot > 0.0 and pivot < np.inf):
            return False
        M[i, i] = 1.0
        for k in range(mp):
            row[k] = M[i, k] / pivot
        for j in range(m):
            value = M[j, i]
            if j != i:
                M[j, i] = 0.0
                for k in range(mp):
                    M[j, k] -= value * row[k]
        for k in range(mp):
            M[i, k] = row[k]
    return True


@bare(fastmath=FAST, inline="always")
def substitute(M, inverse, x, m):
    """x becomes ``(M M^T)^-1 x`` for the factor M."""
    for i in range(m):
        total = x[i]
        for j in range(i):
            total -= M[i, j] * x[j]
        x[i] = total * inverse[i]
    for i in range(m - 1, -1, -1):
        x[i] *= inverse[i]
        value = x[i]
        for j in range(i):
            x[j] -= value * M[i, j]


@bare(fastmath=FAST, inline="always")
def fill_wide(M, AQ, D, scale, mp, r, row):
    """``M = I + scale A D A^T`` for A of r rows, padded."""
    for p in range(r):
        for s in range(mp):
            row[s] = scale * D[s] * AQ[p, s]
        for q in range(p + 1):
            total = 0.0
            for s in range(mp):
                total += row[s] * AQ[q, s]
            M[p, q] = M[q, p] = total
        M[p, p] += 1.0
        for q in range(r, padded(r)):
            M[p, q] = 0.0


@bare(fastmath=FAST)
def move(G, AT, grams, which, m, r, n, v, work, out):
    """out = G[:, which] v on all loaded coordinates."""
    w = len(out)
    if grams and m <= 4 * r:
        for j in range(w):
            out[j] = 0.0
        for s in range(m):
            i = which[s]
            for j in range(w):
                out[j] += v[s] * G[i, j]
    else:
        for q in range(r):
            work[q] = 0.0
        for s in range(m):
            i, value = which[s], v[s] / n
            for q in range(r):
                work[q] += value * AT[i, q]
        for j in range(w):
            total = 0.0
            for q in range(r):
                total += AT[j, q] * work[q]
            out[j] = total


@bare(fastmath=FAST)
def move_two(G, AT, grams, which, m, r, n, first, second, work, out_first, out_second):
    """G[:, which] times two vectors at once, on all loaded coordinates."""
    if not (grams and m <= 4 * r):
        move(G, AT, grams, which, m, r, n, first, work, out_first)
        move(G, AT, grams, which, m, r, n, second, work, out_second)
        return
    w = len(out_first)
    for j in range(w):
        out_first[j] = 0.0
        out_second[j] = 0.0
    for s in range(m):
        i = which[s]
        for j in range(w):
            out_first[j] += first[s] * G[i, j]
            out_second[j] += second[s] * G[i, j]
