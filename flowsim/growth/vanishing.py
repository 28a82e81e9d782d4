"""The growth maps of a network as the scale of its start vanishes: thresholds, and growth beyond them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, Integers, chosen, is_uniform
from flowsim.growth.arrivals import growth_thresholds
from flowsim.growth.modes import Memory
from flowsim.growth.origin_curves import OriginCurves
from flowsim.network import DiagonalNetwork
from flowsim.symbolic import order_at_origin


@dataclass(frozen=True)
class VanishingGrowth:
    """The growth of coordinates with the dual once they have left 0."""

    order: int  #: order of the formula at the origin: 2 for two-layer type, L for products of L weights
    #: two (d,), a positive (negative) coordinate moves by ``beta' = speed |beta|^(2 - 2/order) (-g -+ kappa)`` in
    #: unscaled time
    speeds: tuple[Array, Array]
    #: coefficients and rates of the sums of exponentials (:func:`flowsim.growth.modes.start_memory`)
    memory: Memory | None
    curves: OriginCurves | None = None  #: curves of general formulas
    #: (L, d) or None, weights of products; zeros for coordinates from a vanishing start, NaN if unknown
    weights: Array | None = None

    def among(self, keep: Integers) -> VanishingGrowth:
        """Of some coordinates."""
        memory = self.memory
        return VanishingGrowth(
            self.order,
            (chosen(self.speeds[0], keep), chosen(self.speeds[1], keep)),
            None if memory is None else lambda index: memory(keep[index]),
            None if self.curves is None else self.curves.among(keep),
            None if self.weights is None else self.weights[:, keep],
        )


def order_of(net: DiagonalNetwork) -> int:
    """Order of the network's first formula at the origin."""
    return order_at_origin(net.distinct[0])


def is_product(net: DiagonalNetwork) -> bool:
    return all(formula.product_of is not None for formula in net.distinct)


def thresholds_and_rates(net: DiagonalNetwork, direction: Array, d: int) -> tuple[Array, Array, Array]:
    """``t^+``, ``t^-`` (d,), and the rates (2, d) at which ``ln |beta|`` grows by z there, twice those of the weights.

    As :func:`flowsim.growth.arrivals.growth_thresholds`; one coordinate stands for all that start alike.
    """
    if net.is_mixed or not is_uniform(direction):
        return growth_thresholds(net, direction, d)
    plus, minus, rates = growth_thresholds(net, direction[:, :1], 1)
    return np.broadcast_to(plus, (d,)), np.broadcast_to(minus, (d,)), np.broadcast_to(rates, (2, d))
