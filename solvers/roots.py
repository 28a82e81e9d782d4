"""Roots of many functions at once, each in a bracket of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowsim.solvers.array_kinds import Array

#: Width of the final bracket in [0, 1], and evaluations at most; bisection alone would take 51.
_WIDTH = 2.0**-51
_EVALUATIONS = 100


def first_positions(
    function: Callable[[Array], Array], at_low: Array, at_high: Array, rounding: Array | float = 0.0
) -> Array:
    """The first positions in [0, 1], to rounding, at which each of K functions has its sign at 1; zero is positive.

    Chandrupatla's method (Advances in Engineering Software 28, 1997): inverse quadratic interpolation where it is safe,
    else bisection. Where the signs at 0 and 1 agree the position is 0.

    Parameters
    ----------
    function : callable (positions (K,)) -> (K,)
    at_low, at_high : array (K,)
        Values at 0 and at 1.
    rounding : float or array (K,), default 0
        Error of the values. Where a value is not larger its sign is not known: such a position is returned at once.
    """
    goal = at_high >= 0
    b, fb, a, fa = np.zeros(len(goal)), at_low, np.ones(len(goal)), at_high
    part, found, root = np.full(len(goal), 0.5), np.zeros(len(goal), dtype=bool), np.zeros(len(goal))
    for _ in range(_EVALUATIONS):
        # The root lies between a, the last point evaluated, and b.
        x = a + part * (b - a)
        f = function(x)
        same = (f >= 0) == (fa >= 0)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, f
        width = np.abs(b - a)
        root = np.where(~found & (np.abs(f) < rounding), x, root)
        found |= np.abs(f) < rounding
        if (found | (width <= _WIDTH)).all():
            break
        with np.errstate(all="ignore"):
            xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
            inverse = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
            part = np.where((phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi) & np.isfinite(inverse), inverse, 0.5)
            least = np.minimum(_WIDTH / (2 * width), 0.5)
        part = np.clip(part, least, 1 - least)
    root = np.where(found, root, np.where((fa >= 0) == goal, a, b))
    return np.where((at_low >= 0) == goal, 0.0, root)
