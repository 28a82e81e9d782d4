"""What is known of a limit path without noise of travel: its saddles, and how coordinates leave them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.growth.modes import Memory
from flowsim.growth.origin_curves import OriginCurves
from flowsim.limits.convex import Escape
from flowsim.limits.rational import ExactPath
from flowsim.problem import Problem


@dataclass(frozen=True, eq=False, repr=False)
class Saddles:
    """The saddles of a limit process, and how its coordinates grow.

    Attributes
    ----------
    problem : Problem
    jump_times : array (K,)
        Accelerated times ``t / ln(1/alpha)`` (depth L >= 3: ``t * alpha**(L - 2)``) of the jumps; 0 is not one.
    hits : tuple of K arrays
        The coordinates whose growth reached its threshold at each jump; more than one if they tie.
    horizon : float
        Where the path's knowledge ends: inf, unless it was stopped early.
    complete : bool
        The last saddle is a global minimiser of the limit problem, nothing moves any more.
    message : str
    thresholds : pair of arrays (d,)
        Growth thresholds (t+, t-) counted from the start.
    penalties : pair of arrays (d,)
        What weight noise charges per unit of positive and negative coefficient; zeros without noise.
    speeds : pair of arrays (d,)
        How fast a positive and a negative coefficient responds to the gradient (:mod:`flowsim.limits.orbits`).
    order : int
        2 for networks of two-layer type, L for products of L weights.
    memory : callable or None
        How coordinates grow with the dual (:mod:`flowsim.limits.selection`); None if not in closed form.
    curves : OriginCurves or None
        The growth of coordinates of general formulas (:mod:`flowsim.growth.origin_curves`); None where closed forms do.
    offset : array (d,) or float
        Added to beta by the noise before the loss is taken (zero for products of weights).
    start_beta : array (d,) or None
        Where a start that does not vanish begins; it relaxes to ``saddles[0]`` at once. None: at 0.
    exact : ExactPath or None
        The fractions, if they were asked for.
    escape : Escape or None
        Where and along which direction beta grows without bound, if the loss has no minimum there (separable data).
    stats : dict
        jumps, gradients (products with X^T), columns (inner products computed one by one), seconds, product_seconds
        (of both), dual_rounding (largest rounding of the dual at a hit, relative to its threshold).
    """

    problem: Problem
    jump_times: Array
    supports: tuple[NDArray[np.int64], ...] = field(repr=False)
    values: tuple[Array, ...] = field(repr=False)
    hits: tuple[NDArray[np.int64], ...] = field(repr=False)
    horizon: float = math.inf
    complete: bool = True
    message: str = ""
    thresholds: tuple[Array, Array] = field(default_factory=lambda: (np.ones(1), np.ones(1)), repr=False)
    penalties: tuple[Array, Array] = field(default_factory=lambda: (np.zeros(1), np.zeros(1)), repr=False)
    speeds: tuple[Array, Array] = field(default_factory=lambda: (np.ones(1), np.ones(1)), repr=False)
    order: int = 2
    memory: Memory | None = field(default=None, repr=False)
    curves: OriginCurves | None = field(default=None, repr=False)
    offset: Array | float = 0.0
    start_beta: Array | None = field(default=None, repr=False)
    exact: ExactPath | None = field(default=None, repr=False)
    stats: dict[str, Any] = field(default_factory=dict, repr=False)
    escape: Escape | None = field(default=None, repr=False)
