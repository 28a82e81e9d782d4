"""The two products of a gradient, ``a = scale * X^T (X beta - target)``, fused so that X is read once.

Each also gives the sum of squared residuals, which tells a diverging run before its weights overflow.
Reassociation is allowed here (a dot product has no preferred order) and nowhere else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from flowsim.descent.tiles import LANES, lane_products, pack
from flowsim.problem import Regression
from flowsim.solvers.eight import constant, load, store

__all__ = ["Data", "dense_products", "load_data", "move_on", "products"]

Array = NDArray[np.float64]

_FAST = {"reassoc", "contract", "nsz"}


class Data(NamedTuple):
    """X in the form the loops read: dense rows, or CSR (then `X` is empty); packed too for many runs."""

    X: Array
    values: Array
    columns: NDArray[np.int64]
    row_starts: NDArray[np.int64]
    is_sparse: bool
    packed: Array
    packed_columns: Array

    def for_lanes(self) -> Data:
        """The same with X packed for the tiles of many runs."""
        return self._replace(packed=pack(self.X), packed_columns=pack(self.X.T))


def load_data(problem: Regression) -> Data:
    """X as arrays; a LinearOperator is written out."""
    X = problem.X
    none = np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    if hasattr(X, "indptr"):
        entries = X.data.astype(float), X.indices.astype(np.int64), X.indptr.astype(np.int64)
        return Data(np.empty((0, 0)), *entries, True, np.empty(0), np.empty(0))
    if not isinstance(X, np.ndarray):
        X = np.asarray(X @ np.eye(problem.d))
    return Data(np.ascontiguousarray(X, dtype=float), *none, False, np.empty(0), np.empty(0))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def dense_products(X, target, beta, scale, out):
    """``out = scale * X^T (X beta - target)``; returns the sum of squared residuals."""
    # Four rows at a time stay in the first-level cache between the two products: X comes from memory once.
    n, d = X.shape
    out[:] = 0.0
    square = 0.0
    j = 0
    while j + 4 <= n:
        x0, x1, x2, x3 = X[j], X[j + 1], X[j + 2], X[j + 3]
        s0 = s1 = s2 = s3 = 0.0
        for i in range(d):
            b = beta[i]
            s0 += x0[i] * b
            s1 += x1[i] * b
            s2 += x2[i] * b
            s3 += x3[i] * b
        s0 -= target[j]
        s1 -= target[j + 1]
        s2 -= target[j + 2]
        s3 -= target[j + 3]
        square += s0 * s0 + s1 * s1 + s2 * s2 + s3 * s3
        s0 *= scale
        s1 *= scale
        s2 *= scale
        s3 *= scale
        for i in range(d):
            out[i] += s0 * x0[i] + s1 * x1[i] + s2 * x2[i] + s3 * x3[i]
        j += 4
    while j < n:
        x0 = X[j]
        s0 = 0.0
        for i in range(d):
            s0 += x0[i] * beta[i]
        s0 -= target[j]
        square += s0 * s0
        s0 *= scale
        for i in range(d):
            out[i] += s0 * x0[i]
        j += 1
    return square


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def _dense_rows(X, target, rows, beta, scale, out):
    d = X.shape[1]
    out[:] = 0.0
    square = 0.0
    for j in rows:
        x = X[j]
        s = 0.0
        for i in range(d):
            s += x[i] * beta[i]
        s -= target[j]
        square += s * s
        s *= scale
        for i in range(d):
            out[i] += s * x[i]
    return square


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def _sparse_row(values, columns, first, last, aim, beta, scale, out):
    s = 0.0
    for position in range(first, last):
        s += values[position] * beta[columns[position]]
    s -= aim
    square = s * s
    s *= scale
    for position in range(first, last):
        out[columns[position]] += s * values[position]
    return square


@njit(nogil=True, cache=True, error_model="numpy")
def _sparse(data, target, rows, beta, scale, out):
    out[:] = 0.0
    square = 0.0
    starts = data.row_starts
    for position in range(rows.size if rows.size else starts.size - 1):
        j = rows[position] if rows.size else position
        square += _sparse_row(data.values, data.columns, starts[j], starts[j + 1], target[j], beta, scale, out)
    return square


@njit(nogil=True, cache=True, error_model="numpy")
def products(data, target, rows, beta, scale, residual, out, square):
    """``out = scale * X^T (X beta - target)`` over all rows, or over `rows` if there are any.

    One run: target (n,), beta and out (d,). LANES runs: the same flattened from (n, LANES) and (d, LANES); `scale` and
    `square`, which receives the sums of squared residuals, are (LANES,).
    """
    if scale.size > 1:
        lane_products(data.packed, data.packed_columns, target, beta, scale, residual, out, square)
    elif data.is_sparse:
        square[0] = _sparse(data, target, rows, beta, scale[0], out)
    elif rows.size == 0:
        square[0] = dense_products(data.X, target, beta, scale[0], out)
    else:
        square[0] = _dense_rows(data.X, target, rows, beta, scale[0], out)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def move_on(new, beta, length):
    """Add ``||new - beta||`` of every lane to its length, then set beta to new."""
    if length.size == 1:
        total = 0.0
        for i in range(beta.size):
            total += (new[i] - beta[i]) ** 2
            beta[i] = new[i]
        length[0] += math.sqrt(total)
        return
    squares, total = np.empty(LANES), constant(0.0)
    for first in range(0, beta.size, LANES):
        there = load(new, first)
        step = there - load(beta, first)
        total = step * step + total
        store(beta, first, there)
    store(squares, 0, total)
    for lane in range(LANES):
        length[lane] += math.sqrt(squares[lane])
