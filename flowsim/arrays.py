"""The types of arrays in signatures, and arrays that repeat one number without storing it again."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]


def is_uniform(values: Array) -> bool:
    """Whether the last axis repeats one number without storing it again."""
    return values.strides[-1] == 0 and values.size > 0


def compact(values: Array) -> Array:
    """Equal entries share one number: passes over a million coordinates then read it from cache."""
    if is_uniform(values):
        return values
    if len(values) and (values == values[0]).all():
        return np.broadcast_to(float(values[0]), values.shape)
    return np.ascontiguousarray(values, dtype=float)


def times_of(t: ArrayLike) -> Array:
    """A number or a vector of times that a caller asks for."""
    try:
        times = np.asarray(t, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"`t` must be a number or a vector of numbers in the range of floats; received {t!r}."
        ) from None
    if times.ndim > 1:
        raise ValueError(f"`t` must be a number or a vector; received shape {times.shape}.")
    return times


def chosen(values: Array, keep: Index) -> Array:
    """Some entries of a vector, which share one number if all do."""
    return np.broadcast_to(values[0], keep.shape) if is_uniform(values) else compact(values[keep])
