"""The data of a limit path: its saddles, jump times, thresholds, and the growth of its coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.growth.modes import Memory
from flowsim.growth.origin_curves import OriginCurves
from flowsim.limits.convex import Escape
from flowsim.limits.rational import ExactPath
from flowsim.problem import Problem


@dataclass(frozen=True, eq=False, repr=False)
class Saddles:
    """The saddles of a limit process, and the growth of its coordinates.

    Attributes
    ----------
    problem : Problem
    jump_times : array (K,)
        Accelerated times ``t / ln(1/alpha)`` (depth L >= 3: ``t * alpha**(L - 2)``) of the jumps; 0 is not one.
    hits : tuple of K arrays
        The coordinates whose growth reached its threshold at each jump; more than one if they tie.
    horizon : float
        The time up to which the path is known: inf, unless it was stopped early.
    complete : bool
        Whether the last saddle is a global minimiser of the limit problem, hence the limit as t -> inf.
    message : str
    thresholds : pair of arrays (d,)
        Growth thresholds (t+, t-) counted from the start.
    penalties : pair of arrays (d,)
        Penalties of weight noise and decay per unit of positive and negative coefficient; zeros without.
    speeds : pair of arrays (d,)
        Rates of response of a positive and a negative coefficient to the gradient (:mod:`flowsim.limits.orbits`).
    order : int
        2 for networks of two-layer type, L for products of L weights.
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
    escape : Escape or None
        Time and direction of the escape, if the loss has no minimum (separable data).
    stats : dict
        jumps, gradients (products with X^T), columns (inner products computed one by one), seconds, product_seconds
        (of both), dual_rounding (largest rounding error of the dual at a hit, relative to its threshold).
    """

    problem: Problem
    jump_times: Array
    supports: tuple[Integers, ...] = field(repr=False)
    values: tuple[Array, ...] = field(repr=False)
    hits: tuple[Integers, ...] = field(repr=False)
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
