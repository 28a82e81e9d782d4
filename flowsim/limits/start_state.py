"""Starts that do not vanish: pretrained weights, or a state of an earlier path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.card import one_line
from flowsim.growth.modes import start_memory
from flowsim.network import DiagonalNetwork, GivenWeights


@dataclass(frozen=True, eq=False)
class StartState:
    r"""The state of a limit process: coefficients and the distances of each coordinate's dual to its two bounds.

    A coordinate at distance 0 from the upper (lower) bound can be positive (negative) at once; with both distances
    0 it is free. ``path.state(t)`` returns one, from which a process can be continued with other data.

    Attributes
    ----------
    beta : array (d,)
    upper, lower : array (d,)
        Distances >= 0 to the upper and lower bound; inf if that side cannot be reached.
    coefficients, rates : array (k, d) or None
        ``beta_i(z) = sum_k coefficients_ki exp(rates_ki z)``, the growth of a quadratic network's coordinate with the
        dual in unscaled time. Needed only where active columns are linearly dependent, to determine which of the
        minimisers the flow selects.
    weights : array (L, d) or None
        The same for products of L >= 3 weights: the weights of each coordinate, zeros where they vanish, NaN if
        unknown.
    """

    beta: Array
    upper: Array
    lower: Array
    coefficients: Array | None = None
    rates: Array | None = None
    weights: Array | None = None

    __repr__ = one_line

    def memory(self, coordinates: Integers) -> tuple[Array, Array]:
        """`coefficients` and `rates` of some coordinates; NaN if they are not known."""
        if self.coefficients is None or self.rates is None:
            unknown = np.full((1, len(coordinates)), np.nan)
            return unknown, unknown
        return self.coefficients[:, coordinates], self.rates[:, coordinates]

    def __post_init__(self) -> None:
        for name in ("beta", "upper", "lower"):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.ndim != 1 or value.shape != np.shape(self.beta):
                raise ValueError(f"`{name}` must be a vector as long as `beta`; received shape {value.shape}.")
            object.__setattr__(self, name, value)
            bad = ~np.isfinite(value) if name == "beta" else ~(value >= 0)
            if bad.any():
                bound = "finite" if name == "beta" else ">= 0"
                raise ValueError(f"`{name}` must be {bound}; received {value[bad][0]}.")
        stray = ((self.beta > 0) & (self.upper > 0)) | ((self.beta < 0) & (self.lower > 0))
        if stray.any():
            i = int(np.argmax(stray))
            raise ValueError(
                f"`beta` must be 0 away from the bounds; received beta[{i}]={self.beta[i]} at distances "
                f"{self.upper[i]} and {self.lower[i]}."
            )


def pretrained_state(
    net: DiagonalNetwork, weights: GivenWeights, direction: Array, thresholds: tuple[Array, Array]
) -> StartState:
    r"""The start ``weights + alpha * direction`` as alpha vanishes.

    A coordinate whose weights are all 0 has the usual start. For others the components of the weights along
    the growing directions decide: the dual is at the bound of each component that is not zero.

    Raises ValueError if `weights` do not fit the network, or the limit of such a start is not known.
    """
    d = direction.shape[1]
    values = net.direction(weights, d)
    upper, lower = (np.array(side) for side in thresholds)
    beta = np.zeros(d)
    index = np.arange(d)
    quadratic = start_memory(net, values, False)
    fresh = start_memory(net, direction, True)
    if quadratic is not None and fresh is not None:
        (own, own_rates), (new, new_rates) = quadratic(index), fresh(index)
        coefficients, rates = np.zeros((2 * len(own), d)), np.zeros((2 * len(own), d))
        for bound, sign in ((upper, 1.0), (lower, -1.0)):
            here = (sign * own > 0).any(axis=0)
            bound[here] = 0.0
            old_terms, new_terms = (sign * own > 0) & here, (sign * new > 0) & ~here
            coefficients += np.concatenate([own * old_terms, new * new_terms])
            rates += np.concatenate([own_rates * old_terms, new_rates * new_terms])
        return StartState(own.sum(axis=0), upper, lower, coefficients, rates)
    kept = np.zeros_like(values[: len(net.distinct[0].weights)])
    for formula, rows, members in net.parts(d):
        mine = members[(values[np.ix_(rows, members)] != 0).any(axis=0)]
        if not mine.size:
            continue
        if formula.product_of is None:
            raise ValueError(
                "`pretrained` weights have a known limit for quadratic formulas and products only; "
                f"received {formula.text!r}."
            )
        own = values[np.ix_(rows, mine)]
        size = np.sort(np.abs(own), axis=0)
        if (size[0] == size[1]).any():
            raise ValueError(
                f"`pretrained` weights of a product of {len(rows)} must not tie for the smallest modulus; those of "
                f"coordinate {int(mine[np.argmax(size[0] == size[1])])} do."
            )
        # Weights of different modulus cross zero in finite time: the coordinate is free.
        beta[mine], kept[:, mine] = own.prod(axis=0), own
        upper[mine] = lower[mine] = 0.0
    return StartState(beta, upper, lower, weights=kept)
