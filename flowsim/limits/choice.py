"""The one of many minimisers that the flow reaches, and whether the formula attains it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowsim.errors import IntegrationError
from flowsim.limits.selection import select, select_products
from flowsim.limits.walls import Walls

__all__ = ["NEGLIGIBLE", "check_reach", "selected"]

Array = NDArray[np.float64]

#: Relative to the largest: what the iterative choice among minimisers leaves of a zero.
NEGLIGIBLE = 1e-11


def selected(
    columns: Array, values: Array, coordinates: NDArray[np.int64], flags: NDArray[np.uint8], walls: Walls, t: float
) -> Array:
    """Where the minimiser is not unique: the one that the flow reaches."""
    up, low = (flags & 1) != 0, (flags & 2) != 0
    dual = np.where(
        up,
        walls.upper[coordinates] + walls.upper_penalty[coordinates] * t,
        -(walls.lower[coordinates] + walls.lower_penalty[coordinates] * t),
    )
    try:
        if walls.weights is not None and walls.curves is None:
            return select_products(columns, values, dual, (up, low), walls.weights[:, coordinates])
        memory = None if walls.memory is None else walls.memory(coordinates)
        return select(columns, values, dual, (up, low), walls.order, memory, walls.curves, coordinates)
    except ArithmeticError as error:
        raise IntegrationError(
            f"the saddle at accelerated time {t:.6g} is not unique, as its active columns are linearly dependent, and "
            f"the one that the flow reaches cannot be told: {error}."
        ) from error


def check_reach(walls: Walls, coordinates: NDArray[np.int64], values: Array, t: float) -> None:
    """Least squares may ask for coefficients that the formula does not attain on its way out of the origin."""
    if walls.curves is None or (beyond := walls.curves.out_of_reach(coordinates, values)) is None:
        return
    i, limit = beyond
    raise IntegrationError(
        f"the saddle at accelerated time {t:.6g} asks for a coefficient of {values[coordinates == i][0]:.6g} of the "
        f"formula {walls.curves.formula(i).text!r}, which on its way out of the origin runs into a critical point at "
        f"{limit:.6g}: the coordinate stays there, and the process beyond is not known."
    )
