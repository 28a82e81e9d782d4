"""Coordinates that blow up at finite z, as arrays for compiled loops."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array

#: Terms of the series of a product: enough to reach rounding within the kernel's bound on its argument.
_TERMS = 16


class Branches(NamedTuple):
    """Tables of coordinates that grow like a power at first."""

    branch: NDArray[np.int64]  #: (2, d), the table of each side of a coordinate, or -1 for a product
    #: (T + 1,), (T,), the first piece of each table, by falling distance; and whether beta is constant beyond the
    #: table, or undefined
    first: NDArray[np.int64]
    rests: NDArray[np.int64]
    #: (P,), distances, in a unit of 1, that bound each piece; above the first the power law holds
    low: Array
    high: Array
    #: (P, N), Chebyshev coefficients of ``|beta|`` and ``-d |beta| / d Y`` on each piece
    size: Array
    fall: Array


class PowerLaws(NamedTuple):
    r"""Coordinates that blow up at finite z, ``|beta| ~ ((L - 2) Y)^(-L/(L - 2))`` at a distance Y of it."""

    power: Any  #: L; 0 for exponentials, for which the other attributes are unused
    log_unit: Any  #: logarithm of the unit of distances, of z and of t
    #: (L - 1, d), (S, d), m^2 of a product of weights, and the series of its inverse product of roots
    squares: Any
    series: Any
    branches: Branches


def power_laws(power: int, log_unit: float, d: int, squares: Array | None, branches: Branches | None) -> PowerLaws:
    """The arrays for products of weights, for tables, or (with power = 0) for neither."""
    if power == 0 or squares is None:
        squares = np.zeros((max(power - 1, 0), d))
    series = np.zeros((_TERMS if squares.any() else 1, d))
    series[0] = 1.0
    for square in squares if len(series) > 1 else ():
        # times (1 + square u)^(-1/2)
        factor = np.ones((_TERMS, d))
        for k in range(1, _TERMS):
            factor[k] = factor[k - 1] * square * (0.5 - k) / k
        series = np.array([(series[: k + 1] * factor[k::-1]).sum(axis=0) for k in range(_TERMS)])
    if branches is None:
        none, table = np.zeros(0), np.zeros((0, 1))
        branches = Branches(
            np.full((2, d), -1, dtype=np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64), none, none, table, table
        )
    return PowerLaws(power, log_unit, squares, series, branches)
