"""Clocks of a run: how long it takes, how far its duals come at most (what waits for longer stands still), units."""

from __future__ import annotations

import math
import sys

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.coordinates import Coordinates
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem, Regression
from flowsim.symbolic.clock import acceleration, log_acceleration

#: Weights at which a start is near 0, and what the bound there is multiplied by.
_NEAR, _MARGIN = 1e-3, 2.0
_LOG_MOST = math.log(sys.float_info.max)


def longest(net: DiagonalNetwork, scale: InitialScale, t_end: float, clock: str) -> float:
    """The time that a run takes on its clock, infinite where that is not known."""
    if clock == "accelerated":
        log = math.log(t_end) - log_acceleration(net, scale)
        return math.exp(log) if log < _LOG_MOST else math.inf
    return t_end if clock == "time" else math.inf


def largest_pull(problem: Problem, scale: InitialScale, direction: Array) -> float:
    """What no |g_i| exceeds along a flow from the neighbourhood of 0, where the loss of squares only falls."""
    if not isinstance(problem, Regression) or scale.log + math.log(np.abs(direction).max()) > math.log(_NEAR):
        return math.inf
    size = np.sqrt(2.0 * float(problem.loss(np.zeros(problem.d))) * float(problem.feature_variances.max()))
    return _MARGIN * float(size)


def acceleration_in_units(
    net: DiagonalNetwork, scale: InitialScale, chosen: Coordinates, clock: str, exponent: int
) -> float:
    """``d accelerated_time / dt``, t in the coordinates' unit of time, which has a binary exponent besides."""
    unit = chosen.log_unit
    if unit or (chosen.name == "weights" and clock == "time"):
        # Accelerated time itself may be below the range of floats; time is not.
        rate = max(math.exp(log_acceleration(net, scale) + unit), sys.float_info.min)
    else:
        rate = acceleration(net, scale)
    try:
        rate = math.ldexp(rate, exponent)
    except OverflowError:
        rate = math.inf
    if not 0 < rate < math.inf:
        raise ValueError(
            f"`alpha` = {scale} and the size of `problem` put accelerated time, in units of 1/(X^T X), beyond the "
            "range of floats: divide y by a power of ten c, and alpha by its root of the formula's order, for the same "
            "flow divided by c."
        )
    return rate
