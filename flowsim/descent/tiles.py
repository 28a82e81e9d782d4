r"""Products of X with the states of eight runs at a time, near the processor's peak rate.

One tile is four rows of X against eight runs,

.. math:: T_{rl} = \sum_k x_{kr} \, b_{kl}, \qquad r < 4, \; l < 8,

with its 32 sums in registers. Every sum is taken in the order of k, so that a run does not depend on the others.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.arrays import Array
from flowsim.solvers.compilation import bare, compiled
from flowsim.solvers.matrices.interpreted import stands_for
from flowsim.solvers.simd import EIGHT, constant, load, spread, store

#: Runs processed together.
LANES = EIGHT
#: Rows of a tile. Four vectors of sums keep one 512-bit multiplier busy over its latency, or two of 256 bits.
ROWS = 4
_CACHE_LINE = 64


def aligned(values: ArrayLike, columns: int | None = None) -> NDArray[Any]:
    """A contiguous copy aligned to a cache line: a vector across two lines costs two reads.

    With `columns` the last axis is padded with zeros to that length.
    """
    values = np.asarray(values)
    last = values.shape[-1]
    shape = (*values.shape[:-1], last if columns is None else columns)
    size = math.prod(shape) * values.itemsize
    buffer = np.zeros(size + _CACHE_LINE, np.uint8)
    first = -buffer.ctypes.data % _CACHE_LINE
    out = buffer[first : first + size].view(values.dtype).reshape(shape)
    out[..., :last] = values
    return out


@compiled(error_model="python")
def aligned_buffer(size):
    """``np.empty(size)``, aligned to a cache line."""
    whole = np.empty(size + EIGHT)
    first = -(whole.ctypes.data // whole.itemsize) % EIGHT
    return whole[first : first + size]


@bare()
def is_any(x):
    """Whether an entry of a flat array is not 0."""
    found = False
    for i in range(x.size):
        found |= x[i] != 0.0
    return found


@bare()
def copy_to(source, to):
    """``to[:] = source``, flat: for a slice assignment Numba would compile the code of its error message."""
    for i in range(source.size):
        to[i] = source[i]


@stands_for(copy_to)
def _(source: Array, to: Array) -> None:
    to[:] = source


@bare()
def add_multiple(x, factor, y, out):
    """``out = x + factor * y``, flat."""
    for i in range(y.size):
        out[i] = x[i] + factor * y[i]


@stands_for(add_multiple)
def _(x: Array, factor: float, y: Array, out: Array) -> None:
    out[:] = x + factor * y


def side_by_side(values: NDArray[Any], lanes: int) -> NDArray[Any]:
    """Repeat the last axis for every run, runs innermost, and pad it with zeros to whole vectors or tiles."""
    whole = EIGHT if lanes == 1 else ROWS
    return aligned(np.repeat(values, lanes, axis=-1), -(-values.shape[-1] // whole) * whole * lanes)


def pack(X: Array) -> Array:
    """Rows of X in groups of ROWS, each group by columns, the order of :func:`tile`; the last is padded with zeros."""
    n, d = X.shape
    groups = -(-n // ROWS)
    padded = np.zeros((groups * ROWS, d))
    padded[:n] = X
    return aligned(padded.reshape(groups, ROWS, d).transpose(0, 2, 1).ravel())


@bare(forceinline=True)
def tile(packed, first, panel, depth):
    """Four vectors of sums over k < depth of ``packed[first + 4 k + r] * panel[8 k + l]``."""
    s0 = s1 = s2 = s3 = constant(0.0)
    for k in range(depth):
        b, x = load(panel, k * LANES), first + k * ROWS
        s0 = spread(packed, x) * b + s0
        s1 = spread(packed, x + 1) * b + s1
        s2 = spread(packed, x + 2) * b + s2
        s3 = spread(packed, x + 3) * b + s3
    return s0, s1, s2, s3


@bare(forceinline=True)
def _residual(row, product, target, size, residual, total):
    s = product - load(target, row * LANES)
    store(residual, row * LANES, s * size)
    return s * s + total


@bare()
def lane_residuals(packed, target, beta, scale, residual, square):
    """``residual = scale * (X beta - target)``; `square` receives the unscaled sums of squares.

    All arrays are flat, runs innermost; `target` and `residual` hold whole tiles.
    """
    rows = target.size // LANES
    d = packed.size // rows
    size, total = load(scale, 0), constant(0.0)
    for row in range(0, rows, ROWS):
        s0, s1, s2, s3 = tile(packed, row * d, beta, d)
        total = _residual(row, s0, target, size, residual, total)
        total = _residual(row + 1, s1, target, size, residual, total)
        total = _residual(row + 2, s2, target, size, residual, total)
        total = _residual(row + 3, s3, target, size, residual, total)
    store(square, 0, total)


@bare()
def lane_products(packed, packed_columns, target, beta, scale, residual, out, square):
    """``out = scale * X^T (X beta - target)`` for LANES runs; `out` too holds whole tiles."""
    lane_residuals(packed, target, beta, scale, residual, square)
    columns = out.size // LANES
    n = packed_columns.size // columns
    for column in range(0, columns, ROWS):
        s0, s1, s2, s3 = tile(packed_columns, column * n, residual, n)
        store(out, column * LANES, s0)
        store(out, (column + 1) * LANES, s1)
        store(out, (column + 2) * LANES, s2)
        store(out, (column + 3) * LANES, s3)
