"""Products and factorisations of matrices with tens of rows, for compiled functions.

At these sizes the overhead of BLAS and LAPACK exceeds the work, and every function compiled with one of Numba's
wrappers of these takes seconds longer to compile.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import FAST, part

#: Jacobi's method: sweeps, and the squared norm of the off-diagonal part relative to that of the matrix.
_SWEEPS, _OFF_DIAGONAL = 30, 1e-32


# Numba's assignment to a slice brings its error messages along, seconds of compilation.


@part()
def copy(A, out):
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            out[i, j] = A[i, j]


@part()
def identity(n):
    out = np.zeros((n, n))
    for i in range(n):
        out[i, i] = 1.0
    return out


@part(fastmath=FAST)
def add_product(A, B, out):
    """``out += A B``."""
    for i in range(A.shape[0]):
        for k in range(A.shape[1]):
            a = A[i, k]
            for j in range(B.shape[1]):
                out[i, j] += a * B[k, j]


@part()
def product(A, B):
    """``A B``."""
    out = np.zeros((A.shape[0], B.shape[1]))
    add_product(A, B, out)
    return out


@part(fastmath=FAST)
def product_tn(A, B):
    """``A^T B``."""
    out = np.zeros((A.shape[1], B.shape[1]))
    for k in range(A.shape[0]):
        for i in range(A.shape[1]):
            a = A[k, i]
            for j in range(B.shape[1]):
                out[i, j] += a * B[k, j]
    return out


@part(fastmath=FAST)
def product_nt(A, B):
    """``A B^T``."""
    out = np.empty((A.shape[0], B.shape[0]))
    for i in range(A.shape[0]):
        for j in range(B.shape[0]):
            total = 0.0
            for k in range(A.shape[1]):
                total += A[i, k] * B[j, k]
            out[i, j] = total
    return out


@part(fastmath=FAST)
def solve(matrix, right):
    """``matrix^-1 right`` by elimination with partial pivoting; non-finite entries propagate."""
    n, q = right.shape
    M = np.empty((n, n + q))
    for r in range(n):
        for c in range(n):
            M[r, c] = matrix[r, c]
        for c in range(q):
            M[r, n + c] = right[r, c]
    for i in range(n):
        pivot = i
        for r in range(i + 1, n):
            if abs(M[r, i]) > abs(M[pivot, i]):
                pivot = r
        if pivot != i:
            for c in range(i, n + q):
                M[i, c], M[pivot, c] = M[pivot, c], M[i, c]
        scale = 1.0 / M[i, i]
        for r in range(i + 1, n):
            factor = M[r, i] * scale
            for c in range(i + 1, n + q):
                M[r, c] -= factor * M[i, c]
    X = np.empty((n, q))
    for i in range(n - 1, -1, -1):
        for c in range(q):
            X[i, c] = M[i, n + c]
        for r in range(i + 1, n):
            factor = M[i, r]
            for c in range(q):
                X[i, c] -= factor * X[r, c]
        scale = 1.0 / M[i, i]
        for c in range(q):
            X[i, c] *= scale
    return X


@part()
def invert(M):
    """The inverse in place, of a complex matrix, by Gauss-Jordan elimination with partial pivoting."""
    n = M.shape[0]
    order = np.empty(n, np.int64)
    for i in range(n):
        order[i] = i
    for i in range(n):
        pivot = i
        for r in range(i + 1, n):
            if abs(M[r, i]) > abs(M[pivot, i]):
                pivot = r
        if pivot != i:
            order[i], order[pivot] = order[pivot], order[i]
            for c in range(n):
                M[i, c], M[pivot, c] = M[pivot, c], M[i, c]
        scale = 1.0 / M[i, i]
        M[i, i] = 1.0
        for c in range(n):
            M[i, c] *= scale
        for r in range(n):
            if r != i:
                factor = M[r, i]
                M[r, i] = 0.0
                for c in range(n):
                    M[r, c] -= factor * M[i, c]
    # Undo the exchanges of rows on the columns of the inverse.
    row = np.empty(n, M.dtype)
    for r in range(n):
        for c in range(n):
            row[order[c]] = M[r, c]
        for c in range(n):
            M[r, c] = row[c]


@part(fastmath=FAST)
def orthonormal(matrix):
    """QR with a positive diagonal, by Gram-Schmidt orthogonalisation done twice."""
    Q, (n, w) = matrix.copy(), matrix.shape
    triangle = np.zeros((w, w))
    for j in range(w):
        for _ in range(2):
            for i in range(j):
                along = 0.0
                for r in range(n):
                    along += Q[r, i] * Q[r, j]
                triangle[i, j] += along
                for r in range(n):
                    Q[r, j] -= along * Q[r, i]
        size = 0.0
        for r in range(n):
            size += Q[r, j] * Q[r, j]
        size = math.sqrt(size)
        triangle[j, j] = size
        for r in range(n):
            Q[r, j] /= size
    return Q, triangle


@part(fastmath=FAST)
def upper_inverse(triangle):
    """The inverse of an upper triangular matrix."""
    n = triangle.shape[0]
    out = np.zeros((n, n))
    for j in range(n):
        out[j, j] = 1.0 / triangle[j, j]
        for i in range(j - 1, -1, -1):
            total = 0.0
            for k in range(i + 1, j + 1):
                total += triangle[i, k] * out[k, j]
            out[i, j] = -total / triangle[i, i]
    return out


@part(fastmath=FAST)
def eigen(matrix):
    """Eigenvalues, unordered, and eigenvectors in columns of a symmetric matrix, by Jacobi's method."""
    A, n = matrix.copy(), matrix.shape[0]
    V = identity(n)
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += A[i, j] * A[i, j]
    for _ in range(_SWEEPS):
        off = 0.0
        for i in range(n):
            for j in range(i):
                off += A[i, j] * A[i, j]
        if off <= _OFF_DIAGONAL * total:
            break
        for p in range(n - 1):
            for q in range(p + 1, n):
                if A[p, q] == 0.0:
                    continue
                ratio = (A[q, q] - A[p, p]) / (2.0 * A[p, q])
                t = 1.0 / (abs(ratio) + math.sqrt(1.0 + ratio * ratio))
                t = -t if ratio < 0.0 else t
                c = 1.0 / math.sqrt(1.0 + t * t)
                s = t * c
                for k in range(n):
                    x, y = A[k, p], A[k, q]
                    A[k, p], A[k, q] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = A[p, k], A[q, k]
                    A[p, k], A[q, k] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = V[k, p], V[k, q]
                    V[k, p], V[k, q] = c * x - s * y, s * x + c * y
    values = np.empty(n)
    for i in range(n):
        values[i] = A[i, i]
    return values, V
