r"""Units of distances from a blow-up that span more than floats do.

A distance is ``alpha^(2 - L)`` while a weight waits and of order 1 where it has grown. Counted so that the first is
1e300, the second is a float down to 1e-300. Where alpha^(L - 2) is smaller still, the two are counted in units of their
own: in between, at 1e200 to 1e400, nothing stays. Weights that wait pass there along straight lines, known to 1e-16;
those that have grown are below. What this leaves out is smaller than 1e-200 of any time or coefficient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array
from flowsim.network import InitialScale

#: ln of the longest distance at alpha, of the largest unit of one where weights are, and of where both units meet.
_FARTHEST, _LARGEST = math.log(1e300), math.log(1e302)
_MEET = 200 * math.log(10), 400 * math.log(10)


@dataclass(frozen=True)
class DistanceUnit:
    """Logarithms of units.

    Attributes
    ----------
    wait : float
        Of time, and of distances of the size of ``alpha^(2 - L)``.
    near : float
        Of distances of order 1: less than `wait` where alpha^(L - 2) is below 1e-602.
    """

    wait: float
    near: float

    @classmethod
    def of(cls, order: int, scale: InitialScale) -> DistanceUnit:
        """For a formula of an order L >= 3."""
        wait = max(0.0, (order - 2) * -scale.log - _FARTHEST)
        return cls(wait, min(wait, _LARGEST))

    def log(self, distance: Array) -> Array:
        """Natural logarithms of distances; -inf for 0."""
        with np.errstate(divide="ignore"):
            logs: Array = np.log(distance) + self.near
        if self.wait > self.near:
            logs = logs + (self.wait - self.near) * np.clip((logs - _MEET[0]) / (_MEET[1] - _MEET[0]), 0.0, 1.0)
        return logs
