r"""Arc length along a solution.

.. math:: \frac{d\tau}{dt} = s(t, y) = c + \lVert \dot b(t, y) \rVert, \qquad c > 0,

where b(t, y) is the curve whose length is measured. With c > 0 the pair (y, t) advances with tau also where b is
stationary: on a plateau tau advances with time, in a jump with the distance travelled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.roots import first_positions

#: Gauss nodes per step: the speed is smooth along a step, so that eight nodes reach rounding on resolved steps.
_NODES = 8
_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(_NODES)
#: The curve of a smooth step is no longer than this times the polygon through ten of its points; and the relative
#: rounding error of those points.
_SMOOTH, _ROUNDING = 1.1, 1e-14


@dataclass(frozen=True, eq=False)
class ArcLength:
    """tau(t) along a piecewise smooth solution, and its inverse.

    Attributes
    ----------
    t : array (T,)
        Ends of the steps, 0 first.
    values : array (T,)
        tau at those times.
    antiderivatives : array (T - 1, _NODES + 1)
        On each step, the coefficients of tau - tau(start) in powers of the position in [0, 1].
    lengths : array (T - 1,)
        Durations of the steps; a step can be shorter than the spacing of floats at its ends.
    """

    t: Array
    values: Array
    antiderivatives: Array
    lengths: Array

    @classmethod
    def of_samples(cls, t: Array, lengths: Array, speed: Array) -> ArcLength:
        """From the speed at the positions :meth:`nodes` of every step, (T - 1, _NODES)."""
        raised = np.zeros((len(lengths), _NODES + 1))
        if len(lengths) == 0:
            return cls(t, np.zeros(len(t)), raised, lengths)
        sampled = speed.reshape(-1, _NODES)
        values = np.concatenate([[0.0], np.cumsum(lengths * (sampled @ _GAUSS_WEIGHTS) / 2)])
        coefficients = np.linalg.solve(np.vander(cls.nodes(), increasing=True), sampled.T).T
        raised[:, 1:] = lengths[:, None] * coefficients / np.arange(1, _NODES + 1)
        return cls(t, values, raised, lengths)

    def plus(self, rate: float) -> ArcLength:
        """The arc length ``tau + rate * t``."""
        raised = self.antiderivatives.copy()
        raised[:, 1] += rate * self.lengths
        passed = np.concatenate([[0.0], np.cumsum(self.lengths)])
        return ArcLength(self.t, self.values + rate * passed, raised, self.lengths)

    def times(self, factor: float) -> ArcLength:
        """The arc length in another unit: ``factor * tau``."""
        if factor == 1.0:
            return self
        return ArcLength(self.t, self.values * factor, self.antiderivatives * factor, self.lengths)

    @staticmethod
    def places_of_curves() -> Array:
        """Positions in [0, 1] of the points that :meth:`within_curves` takes."""
        return np.concatenate([[0.0], ArcLength.nodes(), [1.0]])

    def within_curves(self, points: Array) -> ArcLength:
        """The length, where errors amplified by stiffness dominate the speed, from a curve through points of each step.

        The curve is the interpolating polynomial where those errors are a small part, the polygon where they dominate.
        Points (T - 1, _NODES + 2, d) are at :meth:`places_of_curves`.
        """
        places = self.places_of_curves()
        slopes = np.arange(1, len(places)) * np.vander(self.nodes(), len(places) - 1, increasing=True)
        derivative = slopes @ np.linalg.inv(np.vander(places, increasing=True))[1:]
        smooth = np.linalg.norm(np.einsum("gk,tkd->tgd", derivative, points), axis=2) @ _GAUSS_WEIGHTS / 2
        polygons = np.linalg.norm(np.diff(points, axis=1), axis=2).sum(axis=1) + _ROUNDING * np.abs(points).max()
        own = np.diff(self.values)
        curves = np.where(own > _SMOOTH * polygons, polygons, np.minimum(own, smooth))
        shorter = np.divide(curves, own, out=np.ones_like(own), where=own > 0)
        values = self.values[0] + np.concatenate([[0.0], np.cumsum(shorter * own)])
        return replace(self, values=values, antiderivatives=shorter[:, None] * self.antiderivatives)

    @staticmethod
    def nodes() -> Array:
        """Positions in [0, 1] at which the speed is sampled on every step."""
        return (_GAUSS_NODES + 1) / 2

    def at_steps(self, step: NDArray[np.intp], position: Array) -> Array:
        """tau at positions in [0, 1] of the steps `step`."""
        if len(self.lengths) == 0:
            return np.full(len(step), self.values[0])
        return self.values[step] + self._raise(step, position)

    def rates(self, step: NDArray[np.intp], position: Array) -> Array:
        """``d tau/dt`` at positions in [0, 1] of the steps `step`; 0 where no step was taken."""
        if len(self.lengths) == 0:
            return np.zeros(len(step))
        total = np.zeros(len(position))
        for power in range(_NODES, 0, -1):
            total = total * position + power * self.antiderivatives[step, power]
        return total / self.lengths[step]

    def places(self, tau: Array) -> tuple[NDArray[np.intp], Array]:
        """The step and the position in it at which tau takes the values (K,)."""
        step = self._step(self.values, tau)
        target = tau - self.values[step]
        at_high = self._raise(step, np.ones(len(tau))) - target
        away = lambda position: self._raise(step, position) - target  # noqa: E731
        x = first_positions(away, -target, at_high, rounding=1e-16 * np.abs(tau))
        return step, np.where(at_high < 0, 1.0, x)

    def _raise(self, step: NDArray[np.intp], position: Array) -> Array:
        total = np.zeros(len(position))
        for power in range(_NODES, -1, -1):
            total = total * position + self.antiderivatives[step, power]
        return total

    @staticmethod
    def _step(nodes: Array, values: Array) -> NDArray[np.intp]:
        return np.clip(np.searchsorted(nodes, values, side="right") - 1, 0, len(nodes) - 2)
