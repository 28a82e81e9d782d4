"""Descents with varying steps: step sizes, given batches, and feature variances of batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Integers
from flowsim.descent.products import Data

#: Total number of rows of given batches that are stored.
_MOST_ROWS = 10**8


def read_steps(step: Any, n_steps: int) -> Array | None:
    """The sizes of all steps, (n_steps,), from an array or a function of the iteration k; None for one number.

    Raises ValueError for a wrong length, and sizes that are not positive and finite.
    """
    if callable(step):
        sizes = np.array([step(k) for k in range(n_steps)], dtype=float)
    elif isinstance(step, np.ndarray | list | tuple) and np.ndim(step) > 0:
        sizes = np.asarray(step, dtype=float)
    else:
        return None
    if sizes.shape != (n_steps,):
        raise ValueError(f"`step` must hold one size for each of {n_steps} steps; received shape {sizes.shape}.")
    bad = ~((sizes > 0) & np.isfinite(sizes))
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(f"`step` must be > 0 and finite; it is {sizes[k]} at iteration {k}.")
    return sizes


def read_batches(batches: Any, n: int, n_steps: int) -> Integers | None:
    """Rows of the batch of every step, (n_steps, b).

    Rows of unequal batches are repeated to the least common multiple of their lengths, which leaves the mean over a
    batch unchanged.

    Raises ValueError for a wrong shape, and indices out of range.
    """
    if batches is None:
        return None
    rows = _of_equal_length(batches)
    if rows.ndim != 2 or len(rows) != n_steps or not rows.shape[1] or rows.dtype.kind not in "iu":
        raise ValueError(
            f"`batches` must be integers of shape ({n_steps}, b), one row of indices per step; received shape "
            f"{rows.shape} of {rows.dtype}."
        )
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(f"`batches` must hold rows from 0 to {n - 1}; received {rows.min()} to {rows.max()}.")
    return rows.astype(np.int64)


def _of_equal_length(batches: Any) -> NDArray[Any]:
    """The batches, repeated to a common length where theirs differ."""
    try:
        return np.asarray(batches)
    except ValueError:  # lengths differ
        parts = [np.asarray(batch) for batch in batches]
    for k, part in enumerate(parts):
        if part.ndim != 1 or not part.size or part.dtype.kind not in "iu":
            raise ValueError(f"`batches` must hold one row of integers a step; that of step {k} is {batches[k]!r}.")
    lengths = {part.size for part in parts}
    common = math.lcm(*lengths)
    if common * len(parts) > _MOST_ROWS:
        raise ValueError(
            f"`batches` of lengths {', '.join(map(str, sorted(lengths)))} would be repeated to {common} rows each, "
            f"{common * len(parts)} in all; at most {_MOST_ROWS} fit. Give several runs, each from the state before."
        )
    return np.array([np.tile(part, common // part.size) for part in parts])


def constant_stretches(parts: Sequence[Array], first: int, last: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of the intervals of steps from `first` to `last` in which no array, indexed by steps, changes."""
    changes = np.zeros(max(last - first - 1, 0), dtype=bool)
    for values in parts:
        changes |= (np.diff(values[first:last], axis=0) != 0).any(axis=tuple(range(1, values.ndim)))
    edges = [first, *(first + 1 + np.flatnonzero(changes)).tolist(), last]
    for begin, end in itertools.pairwise(edges):
        if end > begin:
            yield begin, end


def batch_variances(data: Data, rows: Integers, d: int) -> Array:
    """``sum_{r in batch} X_ri^2 / b``, (d,): the variances of the features in a batch."""
    out = np.zeros(d)
    if data.is_sparse:
        for row in rows.tolist():
            part = slice(data.row_starts[row], data.row_starts[row + 1])
            np.add.at(out, data.columns[part], data.values[part] ** 2)
    else:
        out += (data.X[rows, :d] ** 2).sum(axis=0)
    return out / len(rows)
