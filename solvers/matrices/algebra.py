"""Products and factorisations of matrices with tens of rows, for compiled functions.

At these sizes the overhead of BLAS and LAPACK exceeds the work, and every function compiled with one of Numba's
wrappers of these takes seconds longer to compile. Matrices are bare arrays; new ones are taken from scratch memory
`work`.
"""

from __future__ import annotations

import math

from flowsim.solvers.compilation import FAST, bare
from flowsim.solvers.matrices.bare_arrays import shaped
from flowsim.solvers.matrices.scratch import empty, empty_complex, empty_integers, zeros, zeros_complex

#: Jacobi's method: sweeps, and the squared norm of the off-diagonal part relative to that of the matrix.
_SWEEPS, _OFF_DIAGONAL = 30, 1e-32


@bare(forceinline=True)
def flat(X):
    """All entries as a vector, in the same memory."""
    return shaped(X, 0, (X.size,), 0.0)


@bare()
def copy(X, out):
    """Of any number of extents."""
    entry, target = flat(X), flat(out)
    for i in range(len(entry)):
        target[i] = entry[i]


@bare()
def copied(work, X):
    out = empty(work, X.shape)
    copy(X, out)
    return out


@bare()
def columns(work, A, first, last):
    """A copy of some columns."""
    out = empty(work, (A.shape[0], last - first))
    for i in range(A.shape[0]):
        for j in range(first, last):
            out[i, j - first] = A[i, j]
    return out


@bare(forceinline=True)
def rows_from(A, first, last):
    """Some rows, in the same memory."""
    return shaped(A, first * A.shape[1], (last - first, A.shape[1]), 0.0)


@bare()
def transposed(work, A):
    out = empty(work, (A.shape[1], A.shape[0]))
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            out[j, i] = A[i, j]
    return out


@bare()
def add(X, scale, Y):
    """``X += scale Y``."""
    entry, more = flat(X), flat(Y)
    for i in range(len(entry)):
        entry[i] += scale * more[i]


@bare()
def scale(X, factor):
    """``X *= factor``."""
    entry = flat(X)
    for i in range(len(entry)):
        entry[i] *= factor


@bare()
def norm(X):
    """The Frobenius norm."""
    entry, total = flat(X), 0.0
    for i in range(len(entry)):
        total += entry[i] * entry[i]
    return math.sqrt(total)


@bare(fastmath=FAST)
def inner(X, Y):
    """The inner product of all entries."""
    entry, other, total = flat(X), flat(Y), 0.0
    for i in range(len(entry)):
        total += entry[i] * other[i]
    return total


@bare(fastmath=FAST)
def add_combinations(out, factor, weights, X):
    """``out_k += factor sum_j weights_mkj X_j``, where part m of M equal ones of out_k and X_j has weights of its own.

    `weights` (M, K, J); `out` and `X` of any extents hold K out_k and J X_j.
    """
    (M, K, J), entry, target = weights.shape, flat(X), flat(out)
    size = len(target) // (K * M)
    for k in range(K):
        for m in range(M):
            first = (k * M + m) * size
            for j in range(J):
                weight, other = factor * weights[m, k, j], (j * M + m) * size
                for i in range(size):
                    target[first + i] += weight * entry[other + i]


@bare()
def scale_blocks(X, factors):
    """Multiply the equal blocks of a matrix by factors, a matrix."""
    n, m = X.shape[0] // factors.shape[0], X.shape[1] // factors.shape[1]
    for i in range(X.shape[0]):
        for b in range(factors.shape[1]):
            factor = factors[i // n, b]
            for j in range(b * m, b * m + m):
                X[i, j] *= factor


@bare()
def complex_combinations(work, weights, X):
    """``sum_j weights_kj X_j`` of real matrices X_j, (K, n, m)."""
    out = zeros_complex(work, (weights.shape[0], X.shape[1], X.shape[2]))
    for k in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            weight = weights[k, j]
            for i in range(X.shape[1]):
                for c in range(X.shape[2]):
                    out[k, i, c] += weight * X[j, i, c]
    return out


@bare()
def real_combinations(work, weights, X):
    """The real part of ``sum_j weights_kj X_j`` of complex matrices X_j, (K, n, m)."""
    out = zeros(work, (weights.shape[0], X.shape[1], X.shape[2]))
    for k in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            weight = weights[k, j]
            for i in range(X.shape[1]):
                for c in range(X.shape[2]):
                    value = X[j, i, c]
                    out[k, i, c] += weight.real * value.real - weight.imag * value.imag
    return out


@bare()
def identity(work, n):
    out = zeros(work, (n, n))
    for i in range(n):
        out[i, i] = 1.0
    return out


@bare(fastmath=FAST)
def add_product(A, B, out):
    """``out += A B``."""
    for i in range(A.shape[0]):
        for k in range(A.shape[1]):
            a = A[i, k]
            for j in range(B.shape[1]):
                out[i, j] += a * B[k, j]


@bare()
def product(work, A, B):
    """``A B``."""
    out = zeros(work, (A.shape[0], B.shape[1]))
    add_product(A, B, out)
    return out


@bare(fastmath=FAST)
def product_tn(work, A, B):
    """``A^T B``."""
    out = zeros(work, (A.shape[1], B.shape[1]))
    for k in range(A.shape[0]):
        for i in range(A.shape[1]):
            a = A[k, i]
            for j in range(B.shape[1]):
                out[i, j] += a * B[k, j]
    return out


@bare(fastmath=FAST)
def product_nt(work, A, B):
    """``A B^T``."""
    out = empty(work, (A.shape[0], B.shape[0]))
    for i in range(A.shape[0]):
        for j in range(B.shape[0]):
            total = 0.0
            for k in range(A.shape[1]):
                total += A[i, k] * B[j, k]
            out[i, j] = total
    return out


@bare(fastmath=FAST)
def solve(work, matrix, right):
    """``matrix^-1 right`` by elimination with partial pivoting; non-finite entries propagate."""
    n, q = right.shape
    M = empty(work, (n, n + q))
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
    X = empty(work, (n, q))
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


@bare()
def invert(work, M):
    """The inverse in place, of a complex matrix, by Gauss-Jordan elimination with partial pivoting."""
    n = M.shape[0]
    order = empty_integers(work, n)
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
    row = empty_complex(work, (n,))
    for r in range(n):
        for c in range(n):
            row[order[c]] = M[r, c]
        for c in range(n):
            M[r, c] = row[c]


@bare(fastmath=FAST)
def orthonormal(work, matrix):
    """QR with a positive diagonal, by Gram-Schmidt orthogonalisation done twice."""
    Q, (n, w) = copied(work, matrix), matrix.shape
    triangle = zeros(work, (w, w))
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


@bare(fastmath=FAST)
def upper_inverse(work, triangle):
    """The inverse of an upper triangular matrix."""
    n = triangle.shape[0]
    out = zeros(work, (n, n))
    for j in range(n):
        out[j, j] = 1.0 / triangle[j, j]
        for i in range(j - 1, -1, -1):
            total = 0.0
            for k in range(i + 1, j + 1):
                total += triangle[i, k] * out[k, j]
            out[i, j] = -total / triangle[i, i]
    return out


@bare(fastmath=FAST)
def eigen(work, matrix):
    """Eigenvalues, unordered, and eigenvectors in columns of a symmetric matrix, by Jacobi's method."""
    A, n = copied(work, matrix), matrix.shape[0]
    V = identity(work, n)
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
    values = empty(work, (n,))
    for i in range(n):
        values[i] = A[i, i]
    return values, V
