"""What files of limit paths hold of the growth of coordinates, which is made of functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.growth.origin_curves import OriginCurves
from flowsim.limits.saddle_list import Saddles
from flowsim.network import DiagonalNetwork
from flowsim.results.fields import fields_of


@dataclass(frozen=True, eq=False)
class TabulatedMemory:
    """The growth with the dual of the coordinates that take part in jumps, as numbers."""

    coordinates: Integers  #: (m,), ascending
    #: (k, m)
    coefficients: Array
    rates: Array

    @classmethod
    def of(cls, path: Saddles) -> TabulatedMemory:
        """The memory of the coordinates that a path visits."""
        assert path.memory is not None
        taking_part = [*path.supports, *path.hits, np.zeros(0, dtype=np.int64)]
        coordinates = np.unique(np.concatenate(taking_part)).astype(np.int64)
        return cls(coordinates, *path.memory(coordinates))

    def __call__(self, coordinates: Integers) -> tuple[Array, Array]:
        place = np.searchsorted(self.coordinates, coordinates)
        return self.coefficients[:, place], self.rates[:, place]


@fields_of.register
def _of_curves(curves: OriginCurves) -> dict[str, Any]:
    """Formulas and start, one column where all coordinates start alike: no code."""
    d = curves.values.shape[1]
    alike = d > 0 and bool((curves.values == curves.values[:, :1]).all())
    return {
        "formulas": [formula.text for formula in curves.net.distinct],
        "kinds": curves.kinds,
        "weights": list(curves.net.weights),
        "start": curves.values[:, :1] if alike else curves.values,
        "d": d,
        "order": curves.order,
        "fresh": curves.fresh,
    }


def make_curves(
    formulas: list[str], kinds: Any, weights: list[str], start: Array, d: int, order: int, fresh: bool
) -> OriginCurves:
    """The curves of these fields, derived again."""
    net = DiagonalNetwork(formulas[0] if kinds is None else [formulas[kind] for kind in kinds])
    rows = [weights.index(name) for name in net.weights]
    return OriginCurves(net, np.broadcast_to(start[rows], (len(rows), d)), order, fresh)
