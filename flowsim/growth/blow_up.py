r"""Growth of a formula of order L >= 3 out of a vanishing start, by the distance of z from where it blows up.

.. math:: \frac{d\theta}{dz} = \nabla\phi(\theta), \qquad \theta(0) = \alpha\,\theta^* .

Near the origin the lowest homogeneous part of phi decides: with ``theta = r w`` the direction w tends to a maximum of
it on the sphere, and then ``r^(2 - L) = (L - 2) lambda Y`` with ``lambda = L phi_L(w)`` and Y the distance of z from
the blow-up of that part. It is ``alpha^(2 - L)`` at the start and of order 1 where weights are: z could not hold both.
What counts here is the distance in units in which ``|beta| = ((L - 2) Y)^(-L / (L - 2))``.

Pieces are Chebyshev polynomials of ``theta / r`` in z, r that of their beginning: any alpha is an ordinary number.
Where the direction has settled and higher orders are below rounding one power law stands in for all decades between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowsim.growth.chebyshev import COEFFICIENTS, INTEGRAL, is_resolved, picard
from flowsim.growth.formula_origin import gradient_of
from flowsim.growth.homogeneous import leading_of
from flowsim.network import Formula

__all__ = ["FARTHER", "Branch", "Chain", "grow"]

Array = NDArray[np.float64]

#: First length of a piece as a share of |theta| / |grad phi|; the next is longer by this factor where that is resolved.
_FIRST, _LONGER = 0.3, 1.6
_SHORTEST = 1e-10
#: A direction has settled when its change is below this share of the growth; the rest of a way is nothing below ...
_SETTLED, _RESTS = 1e-15, 1e-18
#: Rounding of a gradient, and the share of it that a critical point leaves.
_ROUNDING, _CRITICAL = 1e-15, 1e-12
#: Curves end where weights are as large as this.
_LARGEST = 1e12
#: Components below this share of the weights stay what they are, to themselves, where the direction has settled.
_SMALL, _DIGITS = 1e-9, 14
#: Pieces of one way; from so many on a curve ends at so many times the coefficients asked for.
_PIECES, _MANY, _ENOUGH = 3000, 400, 30.0
#: Coefficients are tabulated to this many times the size of those asked for. Where they are this share of those, or by
#: so many e-foldings below the largest, distances are tied to a power law.
FARTHER, _TIED, _BELOW = 1e10, 1e-6, 5.0


@dataclass(frozen=True, eq=False)
class Piece:
    """theta = exp(log_scale) x over a stretch of z of length ``exp((2 - L) log_scale) h``, outwards.

    Attributes
    ----------
    log_scale, h : float
    x, size, slope : array (k, N + 1), (N + 1,), (N + 1,)
        Values at the nodes of x, and of ``|B|`` and ``|B'|`` in powers L and 2 L - 2 of the scale.
    """

    log_scale: float
    h: float
    x: Array
    size: Array
    slope: Array

    def log_length(self, order: int) -> float:
        """ln of the stretch of z."""
        return math.log(self.h) + (2 - order) * self.log_scale


@dataclass(frozen=True, eq=False)
class Chain:
    """Pieces by ascending distance; what is beyond its ends is read at them.

    Attributes
    ----------
    low, high : array (P,)
        Distances, in the unit of the chain.
    log_scale : array (P,)
    x, size, slope : array (P, k, N + 1), (P, N + 1), (P, N + 1)
        Chebyshev coefficients.
    """

    low: Array
    high: Array
    log_scale: Array
    x: Array
    size: Array
    slope: Array

    @classmethod
    def of(cls, pieces: list[Piece], order: int, last: float, log_unit: float, ascending: bool = True) -> Chain:
        """From pieces outwards, the last of which ends at the distance `last`; or by the way travelled from `last`."""
        k, width = pieces[0].x.shape if pieces else (0, len(INTEGRAL))
        lengths = np.array([math.exp(min(piece.log_length(order) + log_unit, 700.0)) for piece in pieces])
        inwards = pieces[::-1] if ascending else pieces
        edges = last + np.concatenate([[0.0], np.cumsum(lengths[::-1] if ascending else lengths)])
        way = -1 if ascending else 1

        def coefficients(values: list[Array], shape: tuple[int, ...]) -> Array:
            if not values:
                return np.zeros((0, *shape))
            out: Array = np.array(values)[..., ::way] @ COEFFICIENTS.T
            return out

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
        value = np.polynomial.chebyshev.chebval
        x = value(at, np.moveaxis(self.x[piece], -1, 0).transpose(0, 2, 1), tensor=False)
        return (
            x,
            value(at, self.size[piece].T, tensor=False),
            value(at, self.slope[piece].T, tensor=False),
            (self.log_scale[piece]),
        )


@dataclass(frozen=True, eq=False)
class Law:
    """``theta = r w`` with ``r^(2 - L) = (L - 2) lambda Y``; besides, what is left of other directions.

    Attributes
    ----------
    direction : array (k,)
        w, of length 1.
    rate : float
        lambda.
    log_first : float
        ln r where the direction has settled.
    basis, growth : array (k, k), (k,)
        Directions across w, and the powers of r with which deviations along them go.
    deviation : array (k,)
        Of the weights, at log_first and relative to r there.
    """

    direction: Array
    rate: float
    log_first: float
    basis: Array
    growth: Array
    deviation: Array

    def at(self, log_r: Array) -> tuple[Array, Array]:
        """Signs and logarithms of the moduli (k, T) of ``theta / r``, at ln r (T,)."""
        with np.errstate(divide="ignore"):
            # What has settled to rounding has settled: starts share what comes then.
            logs = np.repeat(np.log(np.abs(self.direction))[:, None], len(log_r), axis=1)
            sign = np.repeat(np.sign(self.direction)[:, None], len(log_r), axis=1)
            for a in np.flatnonzero(self.direction == 0):
                terms = self.basis[a] * self.deviation
                sizes = np.log(np.abs(terms))[:, None] + np.outer(self.growth - 1.0, log_r - self.log_first)
                top = sizes.max(axis=0)
                top[np.isneginf(top)] = 0.0
                total = np.sign(terms) @ np.exp(sizes - top)
                logs[a], sign[a] = top + np.log(np.abs(total)), np.sign(total)
        return sign, logs


class _Walk:
    """The curve outwards from weights ``exp(log_scale) x``, piece by piece."""

    def __init__(self, formula: Formula, sign: float, log_scale: float, x: Array, farthest: float) -> None:
        self.formula, self.sign, self.farthest = formula, sign, farthest
        self.leading = leading_of(formula)
        self.order = self.leading.order
        self._plain = gradient_of(formula)
        self.pieces: list[Piece] = []
        self.ended = ""
        self.x, self.log_scale = x, log_scale
        self.size = self.sign * self.leading.value(self.x, self.log_scale)
        #: of a gradient at weights of length 1
        self._uncancelled = float(
            np.abs(self.leading.series.coefficient[self.leading.series.degree == self.order]).sum()
        )
        self._h = self._first_step()

    def gradient(self, x: Array, log_scale: float) -> Array:
        """``sign grad phi(exp(log_scale) x) / exp((L - 1) log_scale)`` at columns (k, P)."""
        size = float(np.abs(x).max())
        if not 0 < size < math.inf:
            return np.full_like(x, math.nan)
        if log_scale + math.log(size) <= self.leading.log_small:
            return self.sign * self.leading.gradient(x, log_scale)
        return self.sign * self._plain(math.exp(log_scale) * x) * np.exp((1 - self.order) * log_scale)

    def _first_step(self) -> float:
        speed = float(np.linalg.norm(self.gradient(self.x[:, None], self.log_scale)))
        return _FIRST * float(np.linalg.norm(self.x)) / speed if speed > 0 else 1.0

    def rescale(self) -> None:
        """Weights of size 1 in a scale of their own."""
        size = float(np.linalg.norm(self.x))
        change = math.log(size)
        self.x = self.x / size
        self.log_scale += change
        self.size *= math.exp(-self.order * change)
        self._h *= math.exp((self.order - 2) * change)

    def step(self) -> None:
        """One more piece, or a reason why there is none."""
        self.rescale()
        h, x0, scale = self._h, self.x, self.log_scale
        least = _SHORTEST * h
        with np.errstate(all="ignore"):
            while True:
                # The rounding of a gradient that cancels is that of one that does not.
                rounding = _ROUNDING * h * self._uncancelled
                x = picard(lambda y: self.gradient(y, scale), x0, 0.5 * h, rounding)
                if x is not None and is_resolved(x, rounding):
                    slope = (self.gradient(x, scale) ** 2).sum(axis=0)
                    noise = self._uncancelled * math.sqrt(float(slope.max()))
                    if is_resolved(slope[None], _ROUNDING * max(abs(self.size) / h, noise)):
                        break
                h /= 2
                if h < least:
                    self.ended = "far"
                    return
        size = self.size + 0.5 * h * (INTEGRAL @ slope)
        if not (np.isfinite(size).all() and np.isfinite(slope).all()):
            self.ended = "far"
            return
        self._h = h if h < self._h else _LONGER * h
        self.pieces.append(Piece(scale, h, x, size, slope))
        self.x, self.size = x[:, -1], float(size[-1])
        length = float(np.linalg.norm(self.x))
        speed = math.sqrt(float(slope[-1]))
        reached = math.exp(min(700.0, self.order * scale)) * abs(self.size)
        enough = self.farthest if len(self.pieces) < _MANY else self.farthest * _ENOUGH / FARTHER
        if scale > math.log(_LARGEST) or reached > enough:
            self.ended = "far"
        elif slope[-1] < slope[0] and (speed * h <= _RESTS * length or self._is_critical(speed, length)):
            self.ended = "rest"

    def _is_critical(self, speed: float, length: float) -> bool:
        """Whether the gradient is the rounding of a critical point of the formula."""
        far = self.log_scale > self.leading.log_small
        return far and speed <= _CRITICAL * self._uncancelled * length ** (self.order - 1)

    def has_settled(self) -> bool:
        """Whether the direction of the weights is one that the leading part does not change."""
        w = self.x / np.linalg.norm(self.x)
        g = self.sign * self.leading.gradient(w[:, None], -math.inf)[:, 0]
        rate = float(w @ g)
        across = float(np.abs(g - rate * w).max())
        return across <= _SETTLED * abs(rate)

    @property
    def here(self) -> float:
        """ln of the size of the weights."""
        return self.log_scale + math.log(float(np.linalg.norm(self.x)))

    def law(self) -> Law:
        """The power law from here on."""
        w = self.x / np.linalg.norm(self.x)
        w0 = np.where(np.abs(w) > _SMALL, w, 0.0)
        w0 = np.round(w0 / np.linalg.norm(w0), _DIGITS)
        rate = float(w0 @ (self.sign * self.leading.gradient(w0[:, None], -math.inf)[:, 0]))
        across = np.eye(len(w0)) - np.outer(w0, w0)
        values, basis = np.linalg.eigh(across @ (self.sign * self.leading.hessian(w0)) @ across)
        basis = np.where(np.abs(basis) > _SMALL, basis, 0.0)
        return Law(w0, rate, self.here, basis, values / rate, basis.T @ np.where(np.abs(w) > _SMALL, 0.0, w))


@dataclass(frozen=True, eq=False)
class Branch:
    """One side of a coordinate.

    Attributes
    ----------
    order, weights : int
    sign : float
        +1 where z, and beta, increase.
    slope : float
        What z moves the distance by; 0 for a side that never comes to more than the start's size.
    start : float
        The distance at z = 0, times alpha^(L - 2); the inner chain counts so too, from 0 where slope is 0.
    inner, outer : Chain
    law : Law or None
        Between the two.
    rests : bool
        Whether it ends at a critical point of the formula.
    """

    order: int
    weights: int
    sign: float
    slope: float
    start: float
    log_alpha: float
    inner: Chain
    outer: Chain
    law: Law | None
    rests: bool

    def read(self, log_unit: float, distance: Array) -> tuple[Array, Array, Array, Array]:
        """Signs and logarithms of the moduli (k, T) of the weights, B and ``ln B'`` (T,), at distances (T,).

        Distances are in units of exp(log_unit); of a side without any, they are the way travelled since the start.
        """
        k, count = self.weights, len(distance)
        sign, logs = np.zeros((k, count)), np.zeros((k, count))
        scale, size, slope = np.zeros(count), np.zeros(count), np.zeros(count)
        with np.errstate(over="ignore"):
            real = distance * math.exp(log_unit)
        own = distance * math.exp(log_unit + (self.order - 2) * self.log_alpha)
        near = np.zeros(count, dtype=bool)
        if len(self.outer.low):
            near = np.ones(count, dtype=bool) if self.law is None else real <= self.outer.top
        if self.law is None:
            settled = np.zeros(count, dtype=bool)
        else:
            settled = ~near & ((own < self.inner.bottom) if self.slope else (own > self.inner.top))
        L = self.order
        with np.errstate(divide="ignore"):
            for chain, where, at in ((self.outer, near, real), (self.inner, ~near & ~settled, own)):
                if where.any():
                    x, size[where], slope[where], scale[where] = chain.read(at[where])
                    sign[:, where], logs[:, where] = np.sign(x), np.log(np.abs(x)) + scale[where]
            slope = np.log(np.abs(slope)) + (2 * L - 2) * scale
            size = self.sign * np.sign(size) * np.exp(np.log(np.abs(size)) + L * scale)
        if settled.any():
            found = self._by_law(real[settled], own[settled])
            sign[:, settled], logs[:, settled], size[settled], slope[settled] = found
        return sign, logs, size, slope

    def _by_law(self, real: Array, own: Array) -> tuple[Array, Array, Array, Array]:
        law, L = self.law, self.order
        assert law is not None
        with np.errstate(divide="ignore", over="ignore"):
            if self.slope:
                unit = -(L - 2) * self.log_alpha
                logs = np.where(own > 0, np.log(own) + unit, np.log(real)) - math.log(self.slope)
            else:
                # Weights shrink to nothing: from a distance that the law has at its beginning.
                first = math.exp((2 - L) * (law.log_first - self.log_alpha)) / ((L - 2) * abs(law.rate))
                logs = np.log(first + own - max(self.inner.top, 0.0)) - (L - 2) * self.log_alpha
        scale = -(logs + math.log((L - 2) * abs(law.rate))) / (L - 2)
        size = self.sign * law.rate / L * np.exp(L * scale)
        slope = 2 * math.log(abs(law.rate)) + (2 * L - 2) * scale
        sign, shape = law.at(scale)
        return sign, shape + scale, size, slope


def grow(formula: Formula, direction: Array, log_alpha: float, sign: float, farthest: float) -> Branch:
    """One side of the curve from ``alpha * direction``.

    Raises
    ------
    ArithmeticError
        If the direction of growth does not settle, or leads to a saddle of the formula.
    """
    walk = _Walk(formula, sign, log_alpha, direction, farthest)
    leading, order, k = walk.leading, walk.order, len(direction)
    law = None
    while law is None and not walk.ended:
        if len(walk.pieces) >= _PIECES:
            raise ArithmeticError("the direction of growth does not settle")
        is_settled = walk.has_settled()
        if is_settled and walk.here < leading.log_negligible:
            law = walk.law()
        else:
            walk.step()
    shrinks = law is not None and law.rate < 0
    if shrinks or (walk.ended == "rest" and walk.here < leading.log_small):
        inner = Chain.of(walk.pieces, order, 0.0, (order - 2) * log_alpha, ascending=False)
        return Branch(order, k, sign, 0.0, 0.0, log_alpha, inner, Chain.of([], order, 0.0, 0.0), law, True)
    if law is None:
        return _tied(walk.pieces, [], None, walk.ended, order, k, sign, log_alpha, farthest)
    outer, ended = [], "far"
    if math.isfinite(leading.log_negligible):
        signs, logs = law.at(np.array([leading.log_negligible]))
        x = tuple((signs * np.exp(logs))[:, 0].tolist())
        outer, ended = _beyond(formula, sign, leading.log_negligible, x, farthest)
    return _tied(outer, walk.pieces, law, ended, order, k, sign, log_alpha, farthest)


@lru_cache(maxsize=256)
def _beyond(
    formula: Formula, sign: float, log_scale: float, x: tuple[float, ...], farthest: float
) -> tuple[list[Piece], str]:
    """From where higher orders begin to count: the same for all starts that settle to one direction."""
    walk = _Walk(formula, sign, log_scale, np.array(x), farthest)
    while not walk.ended:
        if len(walk.pieces) >= _PIECES:
            raise ArithmeticError("the curve does not come to its end")
        walk.step()
    return walk.pieces, walk.ended


def _tied(
    pieces: list[Piece],
    inner: list[Piece],
    law: Law | None,
    ended: str,
    order: int,
    k: int,
    sign: float,
    log_alpha: float,
    farthest: float,
) -> Branch:
    """The branch, its distances tied to a power law where coefficients are small."""
    power, log_unit = order / (order - 2.0), (order - 2) * log_alpha
    if law is not None:
        slope = law.rate ** (2 / order) * order ** (1 - 2 / order)
    outer = Chain.of([], order, 0.0, 0.0)
    if pieces:
        log_size = np.array([math.log(abs(piece.size[-1]) or 1e-300) + order * piece.log_scale for piece in pieces])
        goal = min(math.log(_TIED * farthest / FARTHER), float(log_size[-1]) - _BELOW)
        tied = min(int(np.searchsorted(log_size, goal)), len(pieces) - 1)
        distance = math.exp(-log_size[tied] / power) / (order - 2)
        if law is None:
            piece = pieces[tied]
            log_slope = math.log(piece.slope[-1]) + (2 * order - 2) * piece.log_scale
            slope = math.exp(log_slope - log_size[tied]) * distance / power
        last = distance - math.fsum(math.exp(each.log_length(order)) * slope for each in pieces[tied + 1 :])
        outer = Chain.of(pieces, order, last, math.log(slope))
    rests = ended == "rest"
    if law is None:
        none = Chain.of([], order, 0.0, 0.0)
        return Branch(order, k, sign, slope, outer.top * math.exp(log_unit), log_alpha, none, outer, None, rests)
    settled = math.exp((2 - order) * (law.log_first - log_alpha)) * slope / ((order - 2) * law.rate)
    chain = Chain.of(inner, order, settled, log_unit + math.log(slope))
    return Branch(order, k, sign, slope, chain.top if inner else settled, log_alpha, chain, outer, law, rests)
