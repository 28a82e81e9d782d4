"""What the network contributes to the limit process: thresholds, penalties of the noise, an offset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.network import DiagonalNetwork
from flowsim.problem import Regression

__all__ = ["Walls", "network_walls"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Walls:
    r"""The interval in which the dual of a coordinate moves freely.

    .. math:: -(t^-_i + \kappa^-_i t) \;\le\; s_i(t) \;\le\; t^+_i + \kappa^+_i t .

    At the upper wall the coordinate can be positive, at the lower one negative. All arrays (d,).
    """

    upper: Array
    lower: Array
    upper_penalty: Array
    lower_penalty: Array
    offset: Array | float = 0.0


def network_walls(
    net: DiagonalNetwork,
    problem: Regression,
    start: Mapping[str, ArrayLike] | None,
    thresholds: tuple[ArrayLike, ArrayLike] | None,
    penalties: tuple[ArrayLike, ArrayLike] | None,
) -> Walls:
    """Thresholds and penalties of a network, or the given ones.

    Raises
    ------
    ValueError
        For a network or noise that has no such limit, and for given values outside their range.
    """
    if not isinstance(net, DiagonalNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork; received {type(net).__name__}.")
    d = problem.d
    direction = net.direction(start, d)
    net.kinds(d)
    if thresholds is not None:
        upper, lower = _pair("thresholds", thresholds, d, positive=True)
    else:
        upper, lower = _thresholds(net, direction, d)
    if penalties is not None:
        up_cost, low_cost = _pair("penalties", penalties, d, positive=False)
    else:
        up_cost, low_cost = _penalties(net, problem, upper, lower)
    return Walls(upper, lower, up_cost, low_cost)


def _thresholds(net: DiagonalNetwork, direction: Array, d: int) -> tuple[Array, Array]:
    if all(formula.product_of is not None and len(formula.product_of) == 2 for formula in net.distinct):
        upper, lower = np.ones(d), np.ones(d)
        for kind, formula in enumerate(net.distinct):
            first, second = (direction[net.weights.index(name)] for name in formula.product_of or ())
            mine = net.kinds(d) == kind
            upper[mine & (first == -second)] = np.inf
            lower[mine & (first == second)] = np.inf
        return upper, lower
    from flowsim.symbolic import thresholds

    return thresholds(net, direction, d)


def _penalties(net: DiagonalNetwork, problem: Regression, upper: Array, lower: Array) -> tuple[Array, Array]:
    d = problem.d
    if net.noise is None or not np.any(net.noise.stds(net.weights)):
        zero = np.broadcast_to(0.0, (d,))
        return zero, zero
    if net.noise.multiplicative:
        raise ValueError("`noise` must be additive for this limit; received multiplicative noise.")
    stds = net.noise.stds(net.weights)
    if len(set(stds.tolist())) != 1:
        raise ValueError(f"`noise` must have one std for all weights for this limit; received {stds.tolist()}.")
    kappa = float(stds[0]) ** 2 * problem.feature_variances
    return kappa, kappa


def _pair(name: str, pair: tuple[ArrayLike, ArrayLike], d: int, positive: bool) -> tuple[Array, Array]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"`{name}` must be a pair (plus, minus); received {type(pair).__name__}.")
    out = []
    for value in pair:
        array = np.asarray(value, dtype=float)
        if array.shape not in ((), (d,)):
            raise ValueError(f"`{name}` must hold numbers or arrays of shape ({d},); received shape {array.shape}.")
        bad = ~(array > 0) if positive else ~((array >= 0) & np.isfinite(array))
        if bad.any():
            bound = "> 0" if positive else ">= 0 and finite"
            raise ValueError(f"`{name}` must be {bound}; received {np.atleast_1d(array)[np.atleast_1d(bad)][0]}.")
        out.append(np.broadcast_to(array, (d,)))
    return out[0], out[1]
