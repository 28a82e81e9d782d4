r"""Growth thresholds: the values of the dual at which the coordinates of a vanishing start leave 0.

With ``s_i = -int g_i`` in the units of accelerated time, coordinate i started at ``alpha * a`` becomes positive when
s_i reaches ``t_i^+`` and negative at ``-t_i^-``. For formulas of order two a component of the start along an
eigenvector of the Hessian, of eigenvalue mu, reaches order one when ``mu s = ln(1/alpha)``: the threshold is
``1 / mu``. One that the start lacks and higher orders create with amplitude ``C alpha^e`` has ``e / mu``. For order
three and more see :mod:`flowsim.symbolic.thresholds`.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.formula_origin import created_components, origin_of
from flowsim.network import DiagonalNetwork, Formula
from flowsim.symbolic.origin import leading_part, order_at_origin
from flowsim.symbolic.thresholds import blow_up_time, product_thresholds

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

    Thresholds are in units of accelerated time times gradient, infinite for a side that cannot be reached from the
    direction (k, d). See arXiv:2607.12332.
    Raises ValueError if the origin is not a critical point with value 0, or if formulas of different order are mixed:
    their time scales differ.
    """
    if direction.shape != (len(net.weights), d):
        raise ValueError(f"`direction` must have shape ({len(net.weights)}, {d}); received {direction.shape}.")
    orders = {formula: order_at_origin(formula) for formula in net.distinct}
    for formula, order in orders.items():
        if order < 2:
            what = "phi(0) != 0" if order == 0 else "grad phi(0) != 0"
            raise ValueError(
                f"`formula` {formula.text!r} has {what}: the origin is not a critical point with value 0, "
                "so a vanishing initialisation has no growth thresholds."
            )
    if len(set(orders.values())) > 1:
        listed = ", ".join(f"{formula.text!r}: {order}" for formula, order in orders.items())
        raise ValueError(
            f"`formula` mixes orders at the origin ({listed}); their time scales differ, so there is no common limit."
        )
    found = np.empty((2, 2, d))
    for formula, rows, own in net.parts(d):
        if own.size:
            found[:, :, own] = _of_formula(formula, orders[formula], direction[np.ix_(rows, own)])
    return found[0, 0], found[0, 1], 2.0 * found[1]


def _of_formula(formula: Formula, order: int, start: Array) -> Array:
    """Thresholds and rates to both sides, (2, 2, P), from starts (k, P)."""
    if formula.product_of is not None:
        if order > 2:
            return np.stack([np.stack(product_thresholds(start)), np.full((2, start.shape[1]), np.nan)])
        grows = np.stack([start[0] + start[1], start[0] - start[1]]) != 0
        return np.stack([np.where(grows, 1.0, np.inf), np.where(grows, 1.0, 0.0)])
    found = np.full((2, 2, start.shape[1]), np.nan)
    for side, sign in enumerate((1.0, -1.0)):
        left = np.ones(start.shape[1], dtype=bool)
        if order == 2:  # the fastest component arrives first, if the start has it
            origin = origin_of(formula)
            top = (sign * origin.rate).max()
            left = ~(origin.components(start)[sign * origin.rate == top] != 0).any(axis=0) | (top <= 0)
            found[0, side, ~left], found[1, side, ~left] = 1.0 / top if top > 0 else np.inf, top
        columns, inverse = np.unique(start[:, left], axis=1, return_inverse=True)
        own = [_threshold(formula, order, column, sign) for column in columns.T]
        found[:, side, left] = np.reshape(own, (-1, 2)).T[:, inverse.ravel()]
    return found


def _threshold(formula: Formula, order: int, start: Array, sign: float) -> tuple[float, float]:
    return (
        arrival(formula, start, sign)[:2] if order == 2 else (blow_up_time(leading_part(formula), start, sign), np.nan)
    )
