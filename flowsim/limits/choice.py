"""The one of many minimisers that the flow reaches, and whether the formula attains it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowsim.errors import IntegrationError
from flowsim.limits.dual_bounds import DualBounds
from flowsim.limits.selection import select, select_products

__all__ = ["NEGLIGIBLE", "check_reach", "selected"]

Array = NDArray[np.float64]

#: Relative to the largest: what the iterative choice among minimisers leaves of a zero.
NEGLIGIBLE = 1e-11


def selected(
    columns: Array,
    values: Array,
    coordinates: NDArray[np.int64],
    flags: NDArray[np.uint8],
    bounds: DualBounds,
    t: float,
) -> Array:
    """Where the minimiser is not unique: the one that the flow reaches."""
    up, low = (flags & 1) != 0, (flags & 2) != 0
    dual = np.where(
        up,
        bounds.upper[coordinates] + bounds.upper_penalty[coordinates] * t,
        -(bounds.lower[coordinates] + bounds.lower_penalty[coordinates] * t),
    )
    try:
        if bounds.weights is not None and bounds.curves is None:
            return select_products(columns, values, dual, (up, low), bounds.weights[:, coordinates])
        memory = None if bounds.memory is None else bounds.memory(coordinates)
        return select(columns, values, dual, (up, low), bounds.order, memory, bounds.curves, coordinates)
    except ArithmeticError as error:
        raise IntegrationError(
            f"the saddle at accelerated time {t:.6g} is not unique, as its active columns are linearly dependent, and "
            f"the one that the flow reaches cannot be told: {error}."
        ) from error


def check_reach(bounds: DualBounds, coordinates: NDArray[np.int64], values: Array, t: float) -> None:
    """Refuse coefficients of least squares that the formula does not attain on its way out of the origin."""
    if bounds.curves is None or (beyond := bounds.curves.out_of_reach(coordinates, values)) is None:
        return
    i, limit = beyond
    raise IntegrationError(
        f"the saddle at accelerated time {t:.6g} has a coefficient of {values[coordinates == i][0]:.6g} of the "
        f"formula {bounds.curves.formula(i).text!r}, which on its way out of the origin runs into a critical point at "
        f"{limit:.6g}: the coordinate stays there, and the process beyond is not known."
    )
