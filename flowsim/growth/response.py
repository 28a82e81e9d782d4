r"""Growth maps as inverse mirror maps, by which a flow's end or its limit is selected among several minimisers.

Products of L >= 3 weights: pretrained ones keep the differences of their squares. Weights grown from a vanishing start
have none: with z the distance from their one pole, ``beta = (-(L - 2) z)^(-L/(L - 2))``.
"""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.product_map import ProductMap
from flowsim.growth.protocol import PotentialMap
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.solvers.entropy import Response

#: Bounds on a Newton step: part of the distance to a pole, and e-folds of the weights.
_NEAREST, _EFOLDS = 0.9, 2.0


class GrowthResponse(Response):
    """A growth map as a response for :func:`flowsim.solvers.entropy.mirror_interpolation`.

    `above`, `below` (d,): distances from z = 0 to the poles, infinite where there are none; `rate`: fastest relative
    growth of weights by z, 0 for poles alone.
    """

    def __init__(self, growth: PotentialMap, above: Array, below: Array, rate: float = 0.0) -> None:
        self.map, self.above, self.below, self.rate = growth, above, below, rate

    def _state(self, z: Array) -> Array:
        return self.map.state(z[None])

    def value(self, z: Array) -> Array:
        return self.map.value(self._state(z), 0.0)[0]

    def slope(self, z: Array) -> Array:
        return self.map.slope(self._state(z), 0.0)[0]

    def potential(self, z: Array) -> float:
        """Infinite beyond a pole."""
        inside = (z < self.above) & (z > -self.below)
        return float(self.map.potential(self._state(z)).sum()) if inside.all() else np.inf

    def reach(self, z: Array, dz: Array) -> float:
        left = np.where(dz > 0, self.above - z, self.below + z)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where(dz != 0, left / np.abs(dz), np.inf)
        fastest = self.rate * np.abs(dz).max()
        return float(min(1.0, _NEAREST * steps.min(), _EFOLDS / fastest if fastest > 0 else 1.0))


class ProductResponse(GrowthResponse):
    """The response of coordinates with weights (L, m).

    Raises ArithmeticError if weights are not known (NaN).
    `weights` (L, m): where the dual is 0; zeros for coordinates that grew from a vanishing start, whose dual counts
    from their pole; `sign` (m,): side to which those grew.
    """

    def __init__(self, weights: Array, sign: Array) -> None:
        if np.isnan(weights).any():
            raise ArithmeticError("the state of its start does not determine how its coordinates grow with the dual")
        grown = ~weights.any(axis=0)
        shape = np.where(grown, 1.0, weights)
        shape[0] = np.where(grown, sign, weights[0])
        growth = ProductMap(DiagonalNetwork(depth=len(weights)), InitialScale("1", 0.0), shape)
        super().__init__(growth, *np.where(grown & np.isfinite(growth.distance), 0.0, growth.distance))

    def _state(self, z: Array) -> Array:
        return np.concatenate([self.above - z, self.below + z])[None]
