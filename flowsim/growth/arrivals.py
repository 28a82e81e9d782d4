r"""Growth thresholds where the start has no component along the fastest direction and higher orders create one.

A component that is created with amplitude ``C alpha^e`` reaches order one when ``mu z = e ln(1/alpha)``: in units of
``ln(1/alpha)`` the threshold is e / mu, against 1 / mu for a component of the start itself.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.formula_origin import created_components, origin_of
from flowsim.network import DiagonalNetwork, Formula
from flowsim.symbolic import thresholds
from flowsim.symbolic.thresholds import HigherOrderError

#: Relative difference of waits below which components arrive together.
_TOGETHER = 1e-10


def arrival(formula: Formula, start: Array, sign: float) -> tuple[float, float, Array]:
    """The threshold of a formula of order 2 to one side, the rate of the component that arrives, its weights / alpha^e.

    The threshold is infinite, and the rate 0, if no component that the start has or creates grows to this side.
    """
    origin = origin_of(formula)
    degree, value = created_components(origin, origin.components(start), sign)
    growing = (sign * origin.rate > 0) & (value != 0)
    if not growing.any():
        return math.inf, 0.0, np.zeros(len(start))
    rate = np.abs(origin.rate)
    wait = np.divide(degree, rate, out=np.full(len(rate), np.inf), where=growing)
    first = float(wait.min())
    chosen = wait <= first * (1 + _TOGETHER)
    return first, float(rate[chosen].max()), origin.basis[:, chosen] @ value[chosen]


def growth_thresholds(net: DiagonalNetwork, direction: Array, d: int) -> tuple[Array, Array, Array]:
    """``t^+`` and ``t^-`` (d,), and the rates (2, d) at which ``ln |beta|`` grows by z there (order 2; else NaN).

    Raises ValueError as :func:`flowsim.symbolic.thresholds`, where higher orders create no growing component either.
    """
    from flowsim.symbolic import order_at_origin

    try:
        plus, minus = thresholds(net, direction, d)
    except HigherOrderError:
        own = np.empty((2, 2, d))
        kinds = net.kinds(d)
        for kind, formula in enumerate(net.distinct):
            here = np.flatnonzero(kinds == kind)
            if not here.size:
                continue
            rows = np.array([net.weights.index(name) for name in formula.weights])
            starts, inverse = np.unique(direction[np.ix_(rows, here)], axis=1, return_inverse=True)
            for side, sign in enumerate((1.0, -1.0)):
                found = np.array([arrival(formula, start, sign)[:2] for start in starts.T])
                own[:, side, here] = found[inverse.ravel()].T
        return own[0, 0], own[0, 1], 2.0 * own[1]
    if order_at_origin(net.distinct[0]) != 2:
        return plus, minus, np.full((2, d), np.nan)
    return plus, minus, 2.0 / np.stack([plus, minus])
