r"""Units of distances from a blow-up, which span more than the range of floats.

A distance is ``alpha^(2 - L)`` while a weight waits and of order 1 where it has grown. In a unit in which the first is
1e300, the second may be as small as 1e-300. Where alpha^(L - 2) is smaller still, each has its own unit. No coordinate
stays in between: waiting weights cross that range along straight lines, known to a relative 1e-16, and grown ones
have distances below 1e60. The error is far below the rounding of any time or coefficient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from flowsim.arrays import Array
from flowsim.network import InitialScale

#: ln of the distance that is 1 on the accelerated clock, and of the largest unit for distances of order 1.
_FARTHEST, _LARGEST = math.log(1e270), math.log(1e272)
#: Where the unit changes: at this distance at least, and this far below the shortest distance of a start.
_MEET, _BELOW = math.log(1e60), math.log(1e36)


@dataclass(frozen=True)
class DistanceUnit:
    """Logarithms of units."""

    wait: float  #: ln of the unit of time, and of distances of the size of ``alpha^(2 - L)``
    near: float  #: the same for distances of order 1: less than `wait` where alpha^(L - 2) is below 1e-542
    far: float = math.inf  #: ln of the distance from which on the unit is `wait`

    @classmethod
    def of(cls, order: int, clock: InitialScale) -> DistanceUnit:
        """For a formula of an order L >= 3 and the alpha of the accelerated clock."""
        wait = max(0.0, (order - 2) * -clock.log - _FARTHEST)
        return cls(wait, min(wait, _LARGEST))

    def meeting(self, distance: Array) -> DistanceUnit:
        """The unit adapted to starts at distances in this unit.

        Raises ArithmeticError if they are too far apart.
        """
        shortest = float(distance[distance > 0].min(initial=math.inf))
        far = self.near + (math.log(shortest) if shortest < math.inf else _FARTHEST) - _BELOW
        if self.wait > self.near and not far > _MEET:
            raise ArithmeticError("the starts of coordinates are more than 1e200 apart in time")
        return replace(self, far=far)

    def log(self, distance: Array) -> Array:
        """Natural logarithms of distances; -inf for 0."""
        with np.errstate(divide="ignore"):
            logs: Array = np.log(distance) + self.near
        if self.wait > self.near:
            logs = logs + (self.wait - self.near) * np.clip((logs - _MEET) / (self.far - _MEET), 0.0, 1.0)
        return logs
