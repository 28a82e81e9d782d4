"""Types of arrays for annotations, and broadcast arrays of one number."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Index = NDArray[np.intp]


def is_uniform(values: Array) -> bool:
    """Whether the last axis is a broadcast of one number."""
    return values.strides[-1] == 0 and values.size > 0


def compact(values: Array) -> Array:
    """Broadcast one number where all entries are equal, so that passes over a million coordinates stay in cache."""
    if is_uniform(values):
        return values
    if len(values) and (values == values[0]).all():
        return np.broadcast_to(float(values[0]), values.shape)
    return np.ascontiguousarray(values, dtype=float)


def times_of(t: ArrayLike) -> Array:
    """A number or a vector of times given by a caller."""
    try:
        times = np.asarray(t, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"`t` must be a number or a vector of numbers in the range of floats; received {t!r}."
        ) from None
    if times.ndim > 1:
        raise ValueError(f"`t` must be a number or a vector; received shape {times.shape}.")
    return times


def chosen(values: Array, keep: Integers) -> Array:
    """Some entries of a vector; a broadcast of one number if the vector is."""
    return np.broadcast_to(values[0], keep.shape) if is_uniform(values) else compact(values[keep])


def log_abs(values: ArrayLike) -> Array:
    """``ln |values|``, -inf at zeros."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.abs(values)), dtype=np.float64)


def signed_exp(sign: Array, logs: Array) -> Array:
    """``sign * exp(logs)``; 0 on underflow, infinite on overflow."""
    with np.errstate(over="ignore"):
        return np.asarray(sign * np.exp(logs), dtype=np.float64)


def gauss_points(edges: Array, count: int) -> tuple[Array, Array]:
    """Points and weights (S, count) of Gauss's rule between neighbouring `edges` (S + 1,)."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (nodes + 1), half * weights
