r"""The differences of squares that a product conserves, and their decay under noise.

.. math:: \frac{d}{dt} (w_l^2 - w_m^2) = -2 \sigma^2 \eta^2 \prod_{k \ne l, m} (w_k^2 + \eta^2)\, (w_l^2 - w_m^2).
"""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.network import DiagonalNetwork


def product_pairs(factors: tuple[str, ...] | None) -> dict[str, tuple[str, str]]:
    """``w_1^2 - w_l^2`` of a product, by name."""
    if factors is None:
        return {}
    return {f"{factors[0]}**2 - {other}**2": (factors[0], other) for other in factors[1:]}


def is_lawful(net: DiagonalNetwork, std: Array, name: str) -> bool:
    """Whether a conserved quantity obeys an exact law under the network's noise."""
    if net.noise is None or not std.any():
        return True
    pairs = [product_pairs(formula.product_of) for formula in net.distinct]
    known = {name: pair for each in pairs for name, pair in each.items()}
    if name not in known:
        return False
    users = [each for formula, each in zip(net.distinct, pairs, strict=True) if set(known[name]) & set(formula.weights)]
    return all(name in each for each in users) and (net.noise.multiplicative or np.ptp(std) == 0)


class ProductDecay:
    """The rates ``2 sigma^2 eta^2 prod_{k != l, m} (w_k^2 + eta^2)`` of the quantities `names` of a network.

    `kind` (d,) are the formulas of the coordinates, `s2` (d,) the variances sigma^2 of the features.
    """

    def __init__(self, net: DiagonalNetwork, kind: Integers, names: tuple[str, ...], eta2: float, s2: Array) -> None:
        self.shape, self.eta2 = (len(names), len(kind)), eta2
        #: row, coordinates, their factors 2 sigma^2 eta^2, and the weights in the product
        self._terms: list[tuple[int, Integers, Array, list[int]]] = []
        for index, formula in enumerate(net.distinct):
            here, pairs = np.flatnonzero(kind == index), product_pairs(formula.product_of)
            for row, name in enumerate(names):
                if name in pairs:
                    others = [net.weights.index(other) for other in formula.weights if other not in pairs[name]]
                    self._terms.append((row, here, 2 * eta2 * s2[here], others))

    def rates(self, w: Array) -> Array:
        """At weights (k, d), shape (len(names), d); 0 for formulas without the quantity."""
        rates = np.zeros(self.shape)
        moments = w * w + self.eta2
        for row, here, factor, others in self._terms:
            product = factor
            for other in others:
                product = product * moments[other, here]
            rates[row, here] = product
        return rates
