r"""Small dense linear algebra for compiled loops.

Vectors come padded with zeros to a multiple of :data:`flowsim.solvers.compilation.LANES`, so that every loop over one
runs over whole vector registers.
Entries are addressed by two indices, not through views of rows: a view is reference-counted atomically, which
costs more than the work on the row.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import FAST, bare


@bare(fastmath=FAST, inline="always")
def _dot(X, i, Y, j, size):
    """Inner product of the first `size` entries of row i of X and row j of Y."""
    total = 0.0
    for k in range(size):
        total += X[i, k] * Y[j, k]
    return total


@bare(fastmath=FAST, inline="always")
def factor(M, inverse, m):
    """Lower Cholesky factor in place, reciprocals of its diagonal in `inverse`; False if M is not positive definite."""
    for i in range(m):
        for j in range(i):
            M[i, j] = (M[i, j] - _dot(M, i, M, j, j)) * inverse[j]
        pivot = M[i, i] - _dot(M, i, M, i, i)
        if not (pivot > 0.0 and pivot < np.inf):
            return False
        M[i, i] = math.sqrt(pivot)
        inverse[i] = 1.0 / M[i, i]
    return True


@bare(fastmath=FAST, inline="always")
def invert(M, m, padded, row):
    """Invert a symmetric M in place by Gauss-Jordan elimination; False if it is not positive definite."""
    for i in range(m):
        pivot = M[i, i]
        if not (pivot > 0.0 and pivot < np.inf):
            return False
        M[i, i] = 1.0
        for k in range(padded):
            row[k] = M[i, k] / pivot
        for j in range(m):
            value = M[j, i]
            if j != i:
                M[j, i] = 0.0
                for k in range(padded):
                    M[j, k] -= value * row[k]
        for k in range(padded):
            M[i, k] = row[k]
    return True


@bare(fastmath=FAST, inline="always")
def substitute(M, inverse, x, m):
    """Replace x by ``(M M^T)^-1 x`` for the Cholesky factor M."""
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
