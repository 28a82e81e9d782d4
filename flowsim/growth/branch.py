"""One side of a growth curve that blows up: inner and outer pieces, and the power law between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.growth.chebyshev import COEFFICIENTS, INTEGRAL
from flowsim.growth.distance_unit import DistanceUnit


@dataclass(frozen=True, eq=False)
class Stretch:
    """theta = exp(log_scale) x on an interval of z of length ``exp((2 - L) log_scale) h``, outwards.

    `x` (k, N + 1), `size` and `slope` (N + 1,) are values at the nodes: of x, and of ``|B|`` and ``|B'|`` in powers L
    and 2 L - 2 of the scale.
    """

    log_scale: float
    h: float
    x: Array
    size: Array
    slope: Array

    def log_length(self, order: int) -> float:
        """ln of the length of the interval of z."""
        return math.log(self.h) + (2 - order) * self.log_scale


@dataclass(frozen=True, eq=False)
class Chain:
    """Pieces by ascending distance; beyond its ends values are those at the ends."""

    #: (P,), distances, in the unit of the chain
    low: Array
    high: Array
    log_scale: Array  #: (P,)
    #: (P, k, N + 1), (P, N + 1), (P, N + 1), Chebyshev coefficients
    x: Array
    size: Array
    slope: Array

    @classmethod
    def of(cls, pieces: list[Stretch], order: int, last: float, log_unit: float, ascending: bool = True) -> Chain:
        """From pieces outwards, the last of which ends at the distance `last`; or by distance travelled from `last`."""
        k, width = pieces[0].x.shape if pieces else (0, len(INTEGRAL))
        lengths = np.array([math.exp(min(piece.log_length(order) + log_unit, 700.0)) for piece in pieces])
        inwards = pieces[::-1] if ascending else pieces
        edges = last + np.concatenate([[0.0], np.cumsum(lengths[::-1] if ascending else lengths)])
        direction = -1 if ascending else 1

        def coefficients(values: list[Array], shape: tuple[int, ...]) -> Array:
            if not values:
                return np.zeros((0, *shape))
            return np.array(values)[..., ::direction] @ COEFFICIENTS.T

        return cls(
            low=edges[:-1],
            high=edges[1:],
            log_scale=np.array([piece.log_scale for piece in inwards]),
            x=coefficients([piece.x for piece in inwards], (k, width)),
            size=coefficients([piece.size for piece in inwards], (width,)),
            slope=coefficients([piece.slope for piece in inwards], (width,)),
        )

    @property
    def top(self) -> float:
        """The largest distance."""
        return float(self.high[-1]) if len(self.high) else -math.inf

    @property
    def bottom(self) -> float:
        """The smallest distance."""
        return float(self.low[0]) if len(self.low) else math.inf

    def read(self, distance: Array) -> tuple[Array, Array, Array, Array]:
        """x (k, T), size and slope (T,) as on their piece, and log_scale (T,)."""
        piece = np.clip(np.searchsorted(self.high, distance), 0, len(self.high) - 1)
        low, high = self.low[piece], self.high[piece]
        at = np.clip((2 * distance - low - high) / (high - low), -1.0, 1.0)
        size, slope = (_values(part[piece].T, at) for part in (self.size, self.slope))
        return _values(self.x[piece].transpose(2, 1, 0), at), size, slope, self.log_scale[piece]


def _values(coefficients: Array, at: Array) -> Array:
    """Chebyshev series (N + 1, ..., T), one at each point (T,)."""
    return np.asarray(np.polynomial.chebyshev.chebval(at, coefficients, tensor=False), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """``theta = r w`` with ``r^(2 - L) = (L - 2) lambda Y``, and decaying deviations along other directions."""

    direction: Array  #: (k,), w, of length 1
    rate: float  #: lambda
    log_first: float  #: ln r where the direction has converged
    #: (k, k), (k,), directions across w, and the powers of r with which deviations along them change
    basis: Array
    growth: Array
    deviation: Array  #: (k,), of the weights, at log_first and relative to r there

    def at(self, log_r: Array) -> tuple[Array, Array]:
        """Signs and logarithms of the moduli (k, T) of ``theta / r``, at ln r (T,)."""
        # Deviations below rounding are dropped: all starts share the rest of the curve.
        logs = np.repeat(log_abs(self.direction)[:, None], len(log_r), axis=1)
        sign = np.repeat(np.sign(self.direction)[:, None], len(log_r), axis=1)
        for a in np.flatnonzero(self.direction == 0):
            terms = self.basis[a] * self.deviation
            sizes = log_abs(terms)[:, None] + np.outer(self.growth - 1.0, log_r - self.log_first)
            top = sizes.max(axis=0)
            top[np.isneginf(top)] = 0.0
            total = np.sign(terms) @ np.exp(sizes - top)
            logs[a], sign[a] = top + log_abs(total), np.sign(total)
        return sign, logs


@dataclass(frozen=True, eq=False)
class Branch:
    """One side of a coordinate."""

    order: int
    weights: int
    sign: float  #: +1 where z, and beta, increase
    slope: float  #: rate of change of the distance with z; 0 for a side on which weights never exceed the start's size
    start: float  #: the distance at z = 0, times alpha^(L - 2), as in the inner chain; 0 where slope is 0
    log_alpha: float
    inner: Chain
    outer: Chain
    law: PowerLaw | None  #: between the two
    rests: bool  #: whether it ends at a critical point of the formula

    def read(self, unit: DistanceUnit, distance: Array) -> tuple[Array, Array, Array, Array]:
        """Signs and logarithms of the moduli (k, T) of the weights, B and ``ln B'`` (T,), at distances (T,).

        On a side without a blow-up, distances are those travelled since the start.
        """
        k, count = self.weights, len(distance)
        sign, logs = np.zeros((k, count)), np.zeros((k, count))
        scale, size, slope = np.zeros(count), np.zeros(count), np.zeros(count)
        with np.errstate(over="ignore"):
            real = distance * math.exp(unit.near)
        own = distance * math.exp(unit.wait + (self.order - 2) * self.log_alpha)
        near = np.zeros(count, dtype=bool)
        if len(self.outer.low):
            near = np.ones(count, dtype=bool) if self.law is None else real <= self.outer.top
        if self.law is None:
            by_law = np.zeros(count, dtype=bool)
        else:
            by_law = ~near & ((own < self.inner.bottom) if self.slope else (own > self.inner.top))
        L = self.order
        with np.errstate(divide="ignore"):
            for chain, where, at in ((self.outer, near, real), (self.inner, ~near & ~by_law, own)):
                if where.any():
                    x, size[where], slope[where], scale[where] = chain.read(at[where])
                    sign[:, where], logs[:, where] = np.sign(x), np.log(np.abs(x)) + scale[where]
            slope = np.log(np.abs(slope)) + (2 * L - 2) * scale
            size = self.sign * np.sign(size) * np.exp(np.log(np.abs(size)) + L * scale)
        if by_law.any():
            found = self._by_law(unit.log(distance[by_law]), own[by_law])
            sign[:, by_law], logs[:, by_law], size[by_law], slope[by_law] = found
        return sign, logs, size, slope

    def _by_law(self, log_distance: Array, own: Array) -> tuple[Array, Array, Array, Array]:
        law, L = self.law, self.order
        assert law is not None
        with np.errstate(divide="ignore", over="ignore"):
            if self.slope:
                logs = log_distance - math.log(self.slope)
            else:
                # Weights shrink to zero: distances count from that at the beginning of the law.
                first = math.exp((2 - L) * (law.log_first - self.log_alpha)) / ((L - 2) * abs(law.rate))
                logs = np.log(first + own - max(self.inner.top, 0.0)) - (L - 2) * self.log_alpha
        scale = -(logs + math.log((L - 2) * abs(law.rate))) / (L - 2)
        size = self.sign * law.rate / L * np.exp(L * scale)
        slope = 2 * math.log(abs(law.rate)) + (2 * L - 2) * scale
        sign, shape = law.at(scale)
        return sign, shape + scale, size, slope
