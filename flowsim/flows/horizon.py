"""Bounds on the duration of a run and on its gradient, hence on its duals; the unit of accelerated time."""

from __future__ import annotations

import math
import sys

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.coordinates import Coordinates
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem, Regression
from flowsim.symbolic.clock import acceleration, log_acceleration

#: Size of weights up to which a start is near 0, and the safety factor of the bound there.
_NEAR, _MARGIN = 1e-3, 2.0
_LOG_MOST = math.log(sys.float_info.max)


def longest(net: DiagonalNetwork, scale: InitialScale, t_end: float, clock: str) -> float:
    """The duration of a run in time, infinite where it is not known in advance."""
    if clock == "accelerated":
        log = math.log(t_end) - log_acceleration(net, scale)
        return math.exp(log) if log < _LOG_MOST else math.inf
    return t_end if clock == "time" else math.inf


def gradient_bound(problem: Problem, scale: InitialScale, direction: Array) -> float:
    """A bound on all |g_i| along a flow: by the limits of the slope, for squares from near 0 by the loss at 0."""
    steepest = float(np.sqrt(problem.feature_variances.max()))
    if not isinstance(problem, Regression):
        slopes = np.abs(problem.loss_function.recession(problem.y)).max(axis=0)
        return float(np.sqrt(np.mean((problem.entry_weights * slopes) ** 2))) * steepest if steepest else 0.0
    if scale.log + math.log(np.abs(direction).max()) > math.log(_NEAR):
        return math.inf
    return _MARGIN * math.sqrt(2.0 * float(problem.loss(np.zeros(problem.d)))) * steepest


def acceleration_in_units(
    net: DiagonalNetwork, scale: InitialScale, chosen: Coordinates, clock: str, exponent: int
) -> float:
    """``d accelerated_time / dt``, t in the coordinates' unit of time ``exp(log_unit) 2^exponent``."""
    unit = chosen.log_unit
    if unit or (chosen.name == "weights" and clock == "time"):
        # A power of two may bring back what alpha and the unit alone take out of the range of floats.
        log = log_acceleration(net, scale) + unit + exponent * math.log(2.0)
        rate = math.exp(log) if log < _LOG_MOST else math.inf
        if clock != "accelerated":  # accelerated time itself may be below the range of floats; time is not
            rate = max(rate, sys.float_info.min)
    else:
        try:
            rate = math.ldexp(acceleration(net, scale), exponent)
        except OverflowError:
            rate = math.inf
    if not 0 < rate < math.inf:
        raise ValueError(
            f"`alpha` = {scale} and the size of `problem` put accelerated time, in units of 1/(X^T X), beyond the "
            "range of floats: divide y by a power of ten c, and alpha by its root of the formula's order, for the same "
            "flow divided by c."
        )
    return rate
