"""The gradient ``a = scale * X^T (X beta - target)``, its two products fused so that X is read once.

Each also returns the sum of squared residuals, by which divergence is detected before weights overflow.
Reassociation of sums is allowed here and nowhere else.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numba import typeof

from flowsim.arrays import Array, Integers
from flowsim.descent.tiles import LANES, aligned, lane_products, pack
from flowsim.problem import Problem, Regression
from flowsim.problem.entries import dense
from flowsim.solvers.compilation import INTEGERS, VECTOR, address_of, bare, compiled, part
from flowsim.solvers.matrices.bare_arrays import call_at
from flowsim.solvers.matrices.interpreted import stands_for
from flowsim.solvers.simd import EIGHT, add_up, at_address, call_on_arrays, constant, load, pointer, store

_FAST = {"reassoc", "contract", "nsz"}


class Data(NamedTuple):
    """X in the layout of the loops: dense rows, padded with zeros to whole vectors, or CSR (then `X` is empty); for
    many runs packed as well. `loss` is the address of the derivatives of a loss, 0 for squares; `weight` (n,) are
    sample weights. `products` is the address of the function for such data (:meth:`located`)."""

    X: Array
    values: Array
    columns: Integers
    row_starts: Integers
    is_sparse: bool
    packed: Array
    packed_columns: Array
    loss: int = 0
    weight: Array = np.ones(1)
    products: int = 0

    def for_lanes(self, d: int) -> Data:
        """The same with X packed for the tiles of many runs."""
        return self._replace(packed=pack(self.X[:, :d]), packed_columns=pack(self.X[:, :d].T))

    def located(self, lanes: int) -> Data:
        """The same with the function of :func:`products`, compiled now if it is not yet, for one run or LANES."""
        of_one = _losses if self.loss else _sparse if self.is_sparse else _dense
        function = of_one if lanes == 1 else _lanes
        return self._replace(products=address_of(function, typeof(self), VECTOR, INTEGERS, *[VECTOR] * 5))


def load_data(problem: Problem) -> Data:
    """X as arrays; a LinearOperator is evaluated to a dense matrix."""
    X, loss = problem.X, (loss_address(problem), problem.entry_weights.ravel().copy())
    none = np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    if hasattr(X, "indptr"):
        entries = X.data.astype(float), X.indices.astype(np.int64), X.indptr.astype(np.int64)
        return Data(np.empty((0, 0)), *entries, True, np.empty(0), np.empty(0), *loss)
    X = aligned(np.asarray(dense(problem), dtype=float), -(-problem.d // EIGHT) * EIGHT)
    return Data(X, *none, False, np.empty(0), np.empty(0), *loss)


def loss_address(problem: Problem) -> int:
    """The address of the compiled derivatives of a loss; 0 for squares.

    Raises ValueError for a loss without compiled derivatives.
    """
    if isinstance(problem, Regression):
        return 0
    kernel = problem.loss_function.kernel
    if kernel is None:
        name = problem.loss_function.name
        raise ValueError(f"`problem` must have a loss with a compiled `kernel` for descent; {name!r} has none.")
    return address_of(kernel(), *[VECTOR] * 5)


@part()
def loss_slopes(loss, f, y, weight, slope):
    """``slope = w loss'(f, y)``; returns the sum of squares of f and slope, not finite where a run diverged."""
    other = np.empty(f.size)
    arrays = (
        at_address(f.ctypes.data, 0, 1.0),
        at_address(y.ctypes.data, 0, 1.0),
        at_address(weight.ctypes.data, 0, 1.0),
        at_address(slope.ctypes.data, 0, 1.0),
        at_address(other.ctypes.data, 0, 1.0),
    )
    call_on_arrays(loss, arrays, f.size)
    total = 0.0
    for i in range(f.size):
        total += f[i] * f[i] + slope[i] * slope[i]
    return total


#: Decorator of the functions that :func:`products` calls by their address.
_kind = partial(compiled, once=True, no_cpython_wrapper=True)


@_kind()
def _losses(data, target, rows, beta, scale, residual, out, square):
    """``out = scale * X^T (w loss'(X beta, y))`` of one run."""
    n = data.row_starts.size - 1 if data.is_sparse else data.X.shape[0]
    count = rows.size if rows.size else n
    f, y, weight, slope = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    for p in range(count):
        j = rows[p] if rows.size else p
        s = 0.0
        if data.is_sparse:
            for position in range(data.row_starts[j], data.row_starts[j + 1]):
                s += data.values[position] * beta[data.columns[position]]
        else:
            for i in range(beta.size):
                s += data.X[j, i] * beta[i]
        f[p], y[p], weight[p] = s, target[j], data.weight[j]
    square[0] = loss_slopes(data.loss, f, y, weight, slope)
    out[:] = 0.0
    for p in range(count):
        j = rows[p] if rows.size else p
        s = scale[0] * slope[p]
        if data.is_sparse:
            for position in range(data.row_starts[j], data.row_starts[j + 1]):
                out[data.columns[position]] += s * data.values[position]
        else:
            for i in range(beta.size):
                out[i] += s * data.X[j, i]


@bare(forceinline=True)
def dense_products(X, target, rows, chosen, beta, scale, out):
    """``out = scale * X^T (X beta - target)`` over all rows, or over the `chosen` first of `rows` if it is not 0.

    X as in :class:`Data`; beta and out are as long as its rows. Returns the sum of squared residuals.
    """
    # Four rows at a time stay in the first-level cache between the two products, so that X is read from memory once.
    width = X.shape[1]
    count = chosen if chosen else X.shape[0]
    for i in range(0, width, EIGHT):
        store(out, i, constant(0.0))
    square = 0.0
    fours = count - count % 4
    for j in range(0, fours, 4):
        j0, j1, j2, j3 = (rows[j], rows[j + 1], rows[j + 2], rows[j + 3]) if chosen else (j, j + 1, j + 2, j + 3)
        x0, x1, x2, x3 = j0 * width, j1 * width, j2 * width, j3 * width
        s0 = s1 = s2 = s3 = constant(0.0)
        for i in range(0, width, EIGHT):
            b = load(beta, i)
            s0 = load(X, x0 + i) * b + s0
            s1 = load(X, x1 + i) * b + s1
            s2 = load(X, x2 + i) * b + s2
            s3 = load(X, x3 + i) * b + s3
        r0, r1 = add_up(s0) - target[j0], add_up(s1) - target[j1]
        r2, r3 = add_up(s2) - target[j2], add_up(s3) - target[j3]
        square += (r0 * r0 + r1 * r1) + (r2 * r2 + r3 * r3)
        s0, s1, s2, s3 = constant(scale * r0), constant(scale * r1), constant(scale * r2), constant(scale * r3)
        for i in range(0, width, EIGHT):
            two = load(X, x0 + i) * s0 + load(X, x1 + i) * s1
            store(out, i, load(X, x3 + i) * s3 + (load(X, x2 + i) * s2 + (two + load(out, i))))
    for j in range(fours, count):
        j0 = rows[j] if chosen else j
        x0 = j0 * width
        s0 = constant(0.0)
        for i in range(0, width, EIGHT):
            s0 = load(X, x0 + i) * load(beta, i) + s0
        r0 = add_up(s0) - target[j0]
        square += r0 * r0
        s0 = constant(scale * r0)
        for i in range(0, width, EIGHT):
            store(out, i, load(X, x0 + i) * s0 + load(out, i))
    return square


@bare(fastmath=_FAST)
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


@_kind()
def _sparse(data, target, rows, beta, scale, residual, out, square):
    out[:] = 0.0
    square[0] = 0.0
    starts = data.row_starts
    for position in range(rows.size if rows.size else starts.size - 1):
        j = rows[position] if rows.size else position
        first, last = starts[j], starts[j + 1]
        square[0] += _sparse_row(data.values, data.columns, first, last, target[j], beta, scale[0], out)


@_kind(explicit=True)
def _dense(data, target, rows, beta, scale, residual, out, square):
    square[0] = dense_products(data.X, target, pointer(rows, 0), rows.size, beta, scale[0], out)


@_kind(explicit=True)
def _lanes(data, target, rows, beta, scale, residual, out, square):
    lane_products(data.packed, data.packed_columns, target, beta, scale, residual, out, square)


@part()
def products(data, target, rows, beta, scale, residual, out, square):
    """``out = scale * X^T (X beta - target)`` over all rows, or over `rows` if there are any.

    One run: target (n,), beta and out (d,). LANES runs: the same flattened from (n, LANES) and (d, LANES); `scale` and
    `square`, which receives the sums of squared residuals, are (LANES,). Losses other than squares: one run at a time.
    What depends on the data is compiled when it is first needed.
    """
    call_at(data.products, (data, target, rows, beta, scale, residual, out, square))


@bare(fastmath=_FAST)
def move_on(new, beta, length, square):
    """Add ``||new - beta||`` of every lane to its length, and set beta to new; `square` receives ``||new - beta||^2``.

    All but beta and new have an entry for each lane.
    """
    if length.size == 1:
        square[0] = 0.0
        for i in range(beta.size):
            square[0] += (new[i] - beta[i]) ** 2
            beta[i] = new[i]
        length[0] += math.sqrt(square[0])
        return
    total = constant(0.0)
    for first in range(0, beta.size, LANES):
        moved = load(new, first)
        step = moved - load(beta, first)
        total = step * step + total
        store(beta, first, moved)
    store(square, 0, total)
    for lane in range(LANES):
        length[lane] += math.sqrt(square[lane])


@stands_for(move_on)
def _(new: Array, beta: Array, length: Array, square: Array) -> None:
    square[:] = np.sum((new - beta).reshape(-1, length.size) ** 2, axis=0)
    length += np.sqrt(square)
    beta[:] = new
