"""Access to X by columns; for sparse data only to columns that are not empty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Bools, Integers
from flowsim.limits.hits import BLOCK, examine
from flowsim.problem import Problem
from flowsim.solvers.compilation import compiled

_IN_BLOCK = np.uint32(BLOCK - 1)


class Columns:
    """The columns of dense data or of an operator."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n, self.d = problem.n, problem.d
        self.is_dense = problem.is_dense

    @cached_property
    def norms(self) -> Array:
        return np.sqrt(self.problem.feature_variances) * math.sqrt(self.n)

    def column(self, i: int) -> Array:
        """A fresh contiguous vector (n,)."""
        if self.is_dense:
            return np.array(self.problem.X[:, i])
        unit = np.zeros(self.d)
        unit[i] = 1.0
        return np.array(self.problem.X @ unit, dtype=float)

    def transposed(self, vector: Array) -> Array:
        """``X^T vector``."""
        return np.ascontiguousarray(self.problem.rmatvec(vector))

    def number(self, place: Integers) -> Integers:
        """Indices in X of indices among these columns."""
        return place

    def underflow(self, suspects: Bools) -> bool:
        """Whether any of these columns, whose squares underflow, is not zero (columns of an operator count as zero)."""
        return bool(self.is_dense and self.problem.X[:, suspects].any())


@dataclass(frozen=True, eq=False)
class SparseColumns:
    """The non-empty columns of sparse data, and given others; memory in proportion to the entries."""

    n: int
    which: Integers  #: (m,), their indices in X, ascending
    #: (nnz,), the entries in order of columns: the index into `which`, the row, the value
    place: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    entries: Array
    norms: Array  #: (m,)
    is_dense = False

    @classmethod
    def of(cls, X: Any, also: Integers) -> SparseColumns:
        """Columns of a CSR array, each entry given once, and further ones even if they are empty."""
        order = np.argsort(X.indices, kind="stable")
        numbers = X.indices[order]
        fresh = np.diff(numbers, prepend=-1) != 0
        which = numbers[fresh].astype(np.int64)
        place = np.cumsum(fresh, dtype=np.uint32) - np.uint32(1)
        if len(also) and len(more := np.setdiff1d(also, which)):
            at = np.searchsorted(which, more)
            which = np.insert(which, at, more)
            place += np.searchsorted(at, place, side="right").astype(np.uint32)
        del numbers, fresh
        rows = np.repeat(np.arange(X.shape[0], dtype=np.uint32), np.diff(X.indptr))[order]
        entries = X.data[order]
        norms = np.sqrt(np.bincount(place, entries * entries, minlength=len(which)))
        return cls(X.shape[0], which, place, rows, entries, norms)

    @property
    def d(self) -> int:
        return len(self.which)

    def column(self, j: int) -> Array:
        """A fresh vector (n,)."""
        part = slice(*np.searchsorted(self.place, np.array([j, j + 1], dtype=np.uint32)))
        out = np.zeros(self.n)
        out[self.rows[part]] = self.entries[part]
        return out

    def transposed(self, vector: Array) -> Array:
        """As :meth:`Columns.transposed`."""
        return np.asarray(np.bincount(self.place, self.entries * vector[self.rows], self.d), dtype=float)

    def number(self, place: Integers) -> Integers:
        """As :meth:`Columns.number`."""
        return self.which[place]

    def underflow(self, suspects: Bools) -> bool:
        """As :meth:`Columns.underflow`."""
        return bool(self.entries[suspects[self.place]].any())

    def block_ends(self) -> Integers:
        """Where the entries of each block of columns begin and end."""
        return np.searchsorted(self.place, np.arange(0, self.d + BLOCK, BLOCK, dtype=np.uint32))


@compiled()
def sweep(place, rows, entries, ends, pair, bounds, stands, times, near):  # pragma: no cover - compiled
    """Duals and gradients of one block of columns after another, each processed while it is in cache.

    The last four arguments are those of :func:`flowsim.limits.hits.examine`.
    """
    best, count = np.inf, np.int64(0)
    d = len(stands[0])
    dual, g, late = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for block in range(len(ends) - 1):
        first = block * BLOCK
        size = min(BLOCK, d - first)
        dual[:] = 0.0
        g[:] = 0.0
        for p in range(ends[block], ends[block + 1]):
            j, row, x = place[p] & _IN_BLOCK, rows[p], entries[p]  # unsigned: an index without a sign to test
            dual[j] += x * pair[row, 0]
            g[j] += x * pair[row, 1]
        best, count = examine(best, count, first, dual[:size], g[:size], bounds, stands, times, near, late)
    return best, count
