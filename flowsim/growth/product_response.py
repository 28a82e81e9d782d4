r"""The inverse mirror map of products of L >= 3 weights, by which a limit selects one of several minimisers.

Pretrained weights keep the differences of their squares. Weights grown from a vanishing start have none: with z the
distance from their one pole, ``beta = (-(L - 2) z)^(-L/(L - 2))``.
"""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.product_map import ProductMap
from flowsim.network import DiagonalNetwork, InitialScale

#: Part of the distance to a pole that a Newton step may take.
_NEAREST = 0.9


class ProductResponse:
    """Coordinates with weights (L, m), a response for :func:`flowsim.solvers.entropy.mirror_interpolation`.

    Raises ArithmeticError if weights are not known (NaN).
    `weights` (L, m): where the dual is 0; zeros for coordinates that grew from a vanishing start, whose dual counts
    from their pole; `sign` (m,): side to which those grew.
    """

    depth = 0.0

    def __init__(self, weights: Array, sign: Array) -> None:
        if np.isnan(weights).any():
            raise ArithmeticError("the state of its start does not determine how its coordinates grow with the dual")
        grown = ~weights.any(axis=0)
        shape = np.where(grown, 1.0, weights)
        shape[0] = np.where(grown, sign, weights[0])
        self.map = ProductMap(DiagonalNetwork(depth=len(weights)), InitialScale("1", 0.0), shape)
        poles = self.map.distance
        self.poles = np.where(grown & np.isfinite(poles), 0.0, poles)

    def _state(self, z: Array) -> Array:
        above, below = self.poles
        return np.concatenate([above - z, below + z])[None]

    def value(self, z: Array) -> Array:
        return self.map.value(self._state(z), 0.0)[0]

    def slope(self, z: Array) -> Array:
        return self.map.slope(self._state(z), 0.0)[0]

    def potential(self, z: Array) -> float:
        """Infinite beyond a pole."""
        state = self._state(z)
        return float(self.map.potential(state, 0.0).sum()) if (state > 0).all() else np.inf

    def scaled(self, share: float) -> ProductResponse:
        return self

    def reach(self, z: Array, dz: Array) -> float:
        """The part of a Newton step to take, at most 1."""
        above, below = self.poles
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where(dz != 0, np.where(dz > 0, above - z, below + z) / np.abs(dz), np.inf)
        return float(min(1.0, _NEAREST * steps.min()))
