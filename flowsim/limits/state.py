"""Starts other than a vanishing one: pretrained weights, or a place on an earlier path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.network import DiagonalNetwork, quadratic_form

__all__ = ["StartState", "pretrained_state"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StartState:
    r"""Where a limit process stands: coefficients and the distance of each coordinate's dual to its two walls.

    A coordinate at distance 0 from the upper (lower) wall can be positive (negative) at once; with both distances
    0 it is free. ``path.state(t)`` gives one, so that a process can go on with other data.

    Attributes
    ----------
    beta : array (d,)
    upper, lower : array (d,)
        Distances >= 0 to the upper and lower wall; inf if that side cannot be reached.
    coefficients, rates : array (k, d) or None
        ``beta_i(z) = sum_k coefficients_ki exp(rates_ki z)``, how a quadratic network's coordinate answers to the dual
        in unscaled time. Needed only where active columns are linearly dependent, to tell which of the
        minimisers the flow selects.
    """

    beta: Array
    upper: Array
    lower: Array
    coefficients: Array | None = None
    rates: Array | None = None

    def of(self, keep: NDArray[np.int64]) -> StartState:
        """The state of some coordinates."""
        memory = [None if table is None else table[:, keep] for table in (self.coefficients, self.rates)]
        return StartState(self.beta[keep], self.upper[keep], self.lower[keep], *memory)

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
                f"`beta` must be 0 away from the walls; received beta[{i}]={self.beta[i]} at distances "
                f"{self.upper[i]} and {self.lower[i]}."
            )


def pretrained_state(
    net: DiagonalNetwork, weights: Mapping[str, ArrayLike], d: int, thresholds: tuple[Array, Array]
) -> StartState:
    r"""The start ``weights + alpha * direction`` as alpha vanishes.

    Where all weights of a coordinate are 0 it starts like any other. Elsewhere the components of the weights along
    the growing directions decide: one that is not zero stands at its wall.

    Raises
    ------
    ValueError
        If `weights` do not fit the network, or the limit of such a start is not known.
    """
    values = net.direction(weights, d)
    upper, lower = (np.array(side) for side in thresholds)
    beta = np.zeros(d)
    k = len(net.weights)
    coefficients, rates = np.zeros((k, d)), np.zeros((k, d))
    kinds = net.kinds(d)
    for kind, formula in enumerate(net.distinct):
        rows = np.array([net.weights.index(name) for name in formula.weights])
        mine = np.flatnonzero((kinds == kind) & (values[rows] != 0).any(axis=0))
        if not mine.size:
            continue
        own = values[np.ix_(rows, mine)]
        form = quadratic_form(formula)
        if form is not None:
            mu, vectors = np.linalg.eigh(form)
            if formula.product_of is not None:  # u + v and u - v without rounding
                parts = np.array([own[0] - own[1], own[0] + own[1]]) / np.sqrt(2.0)
            else:
                parts = vectors.T @ own
                parts[np.abs(parts) <= 16 * np.finfo(float).eps * np.linalg.norm(own, axis=0)] = 0.0
            coefficients[np.ix_(np.arange(len(rows)), mine)] = mu[:, None] * parts**2
            rates[np.ix_(np.arange(len(rows)), mine)] = 4.0 * mu[:, None]
            beta[mine] = (mu[:, None] * parts**2).sum(axis=0)
            upper[mine[(parts[mu > 0] != 0).any(axis=0)]] = 0.0
            lower[mine[(parts[mu < 0] != 0).any(axis=0)]] = 0.0
        elif formula.product_of is not None:
            size = np.sort(np.abs(own), axis=0)
            if (size[0] == size[1]).any():
                name = net.weights[rows[0]]
                i = int(mine[np.argmax(size[0] == size[1])])
                raise ValueError(
                    f"`pretrained` weights of a product of {len(rows)} must not tie for the smallest modulus; "
                    f"coordinate {i} does ({name!r} and others)."
                )
            beta[mine] = own.prod(axis=0)
            upper[mine] = lower[mine] = 0.0
            coefficients[:, mine] = np.nan
        else:
            raise ValueError(
                "`pretrained` weights have a known limit for quadratic formulas and products only; "
                f"received {formula.text!r}."
            )
    return StartState(beta, upper, lower, coefficients, rates)
