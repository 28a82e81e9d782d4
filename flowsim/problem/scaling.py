"""Standardisation of columns, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array

#: A column whose entries differ by fewer spacings of floats than this is constant to rounding.
_ROUNDING = 8.0


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and scales of a table: ``X = (table - mean) / scale``, ``y = target - target_mean``.

    `mean` and `scale` are arrays (d,), `target_mean` () or (m,).
    """

    mean: Array
    scale: Array
    target_mean: Array

    def features(self, X: Array) -> Array:
        """A table (n', d) in the units of the problem."""
        return (X - self.mean) / self.scale

    def coefficients(self, beta: ArrayLike, axis: int) -> Array:
        """beta in the units of the table; `axis` is that of the features."""
        beta = np.asarray(beta, dtype=float)
        return beta / self.scale.reshape([-1 if place == axis % beta.ndim else 1 for place in range(beta.ndim)])

    def intercept(self, beta: ArrayLike, axis: int) -> Array:
        """The intercept of the coefficients in the units of the table."""
        own = self.coefficients(beta, axis)
        return np.asarray(self.target_mean - np.tensordot(own, self.mean, axes=(axis, 0)))


def standardised(X: Array, names: Sequence[str], weight: Array | None = None) -> tuple[Array, Array, Array]:
    """Columns with mean 0 and mean square 1, their means, and their root mean squares; `weight` (n,) of the rows.

    Every column is first divided by a power of two, without rounding, so that squares of 1e-300 do not underflow and
    sums of 1e300 do not overflow.

    Raises ValueError if a column is constant, or varies by no more than the rounding of its entries.
    """
    largest, smallest = X.max(axis=0), X.min(axis=0)
    size = np.maximum(np.abs(largest), np.abs(smallest))
    spread = largest / 2 - smallest / 2  # halves: the difference of two floats may overflow
    _refuse(spread == 0, names, size, "is constant")
    _refuse(
        spread <= _ROUNDING / 2 * np.spacing(size), names, size, "varies by no more than the rounding of its entries"
    )
    exponent = np.frexp(size)[1]
    small = np.ldexp(X, -exponent)
    mean = _mean(small, weight)
    rest = small - mean
    # The deviations may be far smaller than the entries: scaled themselves, so that their squares do not underflow.
    inner = np.frexp(np.abs(rest).max(axis=0))[1]
    rest = np.ldexp(rest, -inner)
    rest -= _mean(rest, weight)
    scale = np.sqrt(np.average(rest**2, axis=0, weights=weight))
    return rest / scale, np.ldexp(mean, exponent), np.ldexp(scale, exponent + inner)


def centred(y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Targets (n,) or (n, m) with mean 0, and the means; `weight` (n,) of the rows."""
    exponent = np.frexp(np.abs(y).max(axis=0))[1]
    small = np.ldexp(y, -exponent)
    mean = _mean(small, weight)
    return np.ldexp(small - mean, exponent), np.ldexp(mean, exponent)


def _mean(X: Array, weight: Array | None) -> Array:
    """The mean to rounding, also where it is far larger than the spread."""
    mean = np.average(X, axis=0, weights=weight)
    return np.asarray(mean + np.average(X - mean, axis=0, weights=weight))


def _refuse(bad: Array, names: Sequence[str], size: Array, what: str) -> None:
    if bad.any():
        place = int(np.argmax(bad))
        raise ValueError(
            f"`X` must vary in every column to be standardised; {names[place]!r} {what}, of size {size[place]:.6g}. "
            "Drop it."
        )
