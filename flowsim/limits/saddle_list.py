"""The data of a limit path: its saddles, jump times, thresholds, and the growth of its coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.growth.modes import Memory
from flowsim.growth.origin_curves import OriginCurves
from flowsim.limits.rational import ExactPath
from flowsim.limits.staircase import Staircase


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Saddles(Staircase):
    """The saddles of a diagonal network, and the growth of its coordinates.

    Attributes besides those of :class:`flowsim.limits.staircase.Staircase`:

    Attributes
    ----------
    supports, values : tuples of K + 1 arrays
        The coordinates other than 0 of each saddle, ascending, and their coefficients.
    hits : tuple of K arrays
        The coordinates whose growth reached its threshold at each jump; more than one if they tie.
    thresholds : pair of arrays (d,)
        Growth thresholds (t+, t-) counted from the start.
    penalties : pair of arrays (d,)
        Penalties of weight noise and decay per unit of positive and negative coefficient; zeros without.
    speeds : pair of arrays (d,)
        Rates of response of a positive and a negative coefficient to the gradient (:mod:`flowsim.limits.orbits`).
    memory : callable or None
        Growth of coordinates with the dual (:mod:`flowsim.limits.selection`); None if not in closed form.
    curves : OriginCurves or None
        Growth of coordinates of general formulas (:mod:`flowsim.growth.origin_curves`); None where closed forms exist.
    offset : array (d,) or float
        Added to beta by the noise before the loss is taken (zero for products of weights).
    start_beta : array (d,) or None
        beta of a start that does not vanish, which relaxes to ``saddles[0]`` in time O(1). None: 0.
    exact : ExactPath or None
        The fractions, if requested.

    ``stats`` holds jumps, gradients (products with X^T), columns (inner products computed one by one), seconds,
    product_seconds (of both), dual_rounding (largest rounding error of the dual at a hit, relative to its threshold).
    """

    supports: tuple[Integers, ...] = field(repr=False)
    values: tuple[Array, ...] = field(repr=False)
    hits: tuple[Integers, ...] = field(repr=False)
    thresholds: tuple[Array, Array] = field(default_factory=lambda: (np.ones(1), np.ones(1)), repr=False)
    penalties: tuple[Array, Array] = field(default_factory=lambda: (np.zeros(1), np.zeros(1)), repr=False)
    speeds: tuple[Array, Array] = field(default_factory=lambda: (np.ones(1), np.ones(1)), repr=False)
    memory: Memory | None = field(default=None, repr=False)
    curves: OriginCurves | None = field(default=None, repr=False)
    offset: Array | float = 0.0
    start_beta: Array | None = field(default=None, repr=False)
    exact: ExactPath | None = field(default=None, repr=False)
