"""One jump of a limit path as a curve, parametrised by the distance travelled."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.card import one_line

#: Distances between points on an orbit, relative to its length, that count as zero.
_NEGLIGIBLE = 1e-13
#: Tangents that deviate from their chord by more than this are rounding.
_BENT = 0.3


@dataclass(frozen=True, eq=False)
class Orbit:
    """One jump as a curve, parametrised by the distance travelled.

    Attributes
    ----------
    jump : int
    coordinates : array (m,)
        The coordinates that move.
    distance : array (N,)
        From 0 to `length`.
    points : array (N, m)
        Coefficients of `coordinates`.
    tangents : array (N, m)
        Unit vectors ``d beta / d distance``.
    """

    jump: int
    coordinates: Integers
    distance: Array
    points: Array
    tangents: Array

    __repr__ = one_line

    @property
    def length(self) -> float:
        return float(self.distance[-1])

    def at(self, distance: Array) -> Array:
        """Coefficients of `coordinates` after some distance, shape (K, m)."""
        from scipy.interpolate import CubicHermiteSpline

        if len(self.distance) < 2:
            return np.repeat(self.points[:1], len(distance), axis=0)
        # In units near the length, whose cubes are floats.
        unit = math.frexp(self.length)[1]
        own, points = np.ldexp(self.distance, -unit), np.ldexp(self.points, -unit)
        spline = CubicHermiteSpline(own, points, self.tangents, axis=0)
        return np.ldexp(spline(np.clip(np.ldexp(distance, -unit), 0.0, own[-1])), unit)

    def times_power_of_two(self, exponent: int) -> Orbit:
        """The orbit of coefficients multiplied by ``2^exponent``."""
        if not exponent:
            return self
        return replace(self, distance=np.ldexp(self.distance, exponent), points=np.ldexp(self.points, exponent))


class SpentError(Exception):
    """The evaluations that an orbit may take are spent."""


def integrated(
    rate: Callable[[float, Array], Array], duration: float, state: Array, refine: int = 0, **options: Any
) -> tuple[Any, Array] | None:
    """SciPy's solution of ``state' = rate(t, state)`` over [0, duration], and states (N, T).

    The states are those at the steps; with `refine` as many in each step, the last at its end.
    None if the solution fails, is not finite, or `rate` raises SpentError.
    """
    from scipy.integrate import solve_ivp

    try:
        with warnings.catch_warnings():  # failures are detected by their flag, singular matrices are tried anew
            warnings.simplefilter("ignore")
            solution = solve_ivp(rate, (0.0, duration), state, dense_output=refine > 0, **options)
    except SpentError:
        return None
    if not (solution.success and np.isfinite(solution.y).all()):
        return None
    if not refine:
        return solution, solution.y
    steps = [np.linspace(a, b, refine + 1)[1:] for a, b in itertools.pairwise(solution.t)]
    return solution, solution.sol(np.concatenate(steps))


def by_distance(velocity: Array, jump: int, coordinates: Integers, beta0: Array, beta1: Array, points: Array) -> Orbit:
    """Reparametrise by distance travelled: chords, each lengthened to the arc spanned by its end tangents.

    The speed is not integrated: near the next saddle it is rounding of a vanishing force, times ever longer steps.
    """
    chords = np.diff(points, axis=0)
    lengths = np.linalg.norm(chords, axis=1)
    speed = np.linalg.norm(velocity, axis=1)
    tangents = velocity / np.where(speed > 0, speed, 1.0)[:, None]
    directions = chords / np.where(lengths > 0, lengths, 1.0)[:, None]
    bends = [np.linalg.norm(tangents[side] - directions, axis=1) for side in (slice(None, -1), slice(1, None))]
    half = np.linalg.norm(tangents[1:] - tangents[:-1], axis=1) / 2  # sine of half the angle, to second order
    smooth = np.maximum(*bends) < _BENT
    lengths = np.where(smooth, lengths * (1.0 + half**2 / 6.0), lengths)
    # Where tangents are rounding the chords replace them.
    blurred = np.concatenate([[False], ~smooth])
    tangents[blurred] = directions[blurred[1:]]
    head, tail = float(np.linalg.norm(points[0] - beta0)), float(np.linalg.norm(beta1 - points[-1]))
    distance = np.concatenate([[0.0], head + np.concatenate([[0.0], np.cumsum(lengths)])])
    all_points = np.concatenate([beta0[None], points])
    all_tangents = np.concatenate([tangents[:1], tangents])
    if tail > 0:
        distance = np.append(distance, distance[-1] + tail)
        all_points = np.concatenate([all_points, beta1[None]])
        all_tangents = np.concatenate([all_tangents, ((beta1 - points[-1]) / tail)[None]])
    # Pieces shorter than rounding have no tangent.
    steps = np.floor(distance / (_NEGLIGIBLE * distance[-1]))
    keep = np.concatenate([[True], np.diff(steps) > 0])
    keep[1:-1] &= steps[1:-1] < steps[-1]
    keep[-1] = True
    return Orbit(jump, coordinates, distance[keep], all_points[keep], all_tangents[keep])
