r"""Growth of a formula of order L >= 3 out of a vanishing start, by the distance of z from the blow-up.

.. math:: \frac{d\theta}{dz} = \nabla\phi(\theta), \qquad \theta(0) = \alpha\,\theta^* .

Near the origin the lowest homogeneous part of phi dominates: with ``theta = r w`` the direction w tends to a maximum of
it on the sphere, and then ``r^(2 - L) = (L - 2) lambda Y`` with ``lambda = L phi_L(w)`` and Y the distance of z from
the blow-up of that part. Y is ``alpha^(2 - L)`` at the start and of order 1 where weights are: z cannot resolve both.
Distances are in units in which ``|beta| = ((L - 2) Y)^(-L / (L - 2))``.

Pieces are Chebyshev polynomials of ``theta / r`` in z, r the size at their start, so that no alpha underflows.
Where the direction has converged and higher orders are below rounding, one power law covers all decades between.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.branch import Branch, Chain, PowerLaw, Stretch
from flowsim.growth.chebyshev import INTEGRAL, is_resolved, picard
from flowsim.growth.formula_origin import Gradient
from flowsim.growth.homogeneous import scaled_series
from flowsim.network import Formula

#: First length of a piece relative to |theta| / |grad phi|; growth factor of the next where a piece is well resolved.
_FIRST, _LONGER = 0.3, 1.6
_SHORTEST = 1e-10
#: A direction has converged when its change is below this part of the growth; the rest of a curve is dropped below ...
_STATIONARY, _RESTS = 1e-15, 1e-18
#: Rounding of a gradient, and the part of its terms that is left at a critical point.
_ROUNDING, _CRITICAL = 1e-15, 1e-12
#: Curves end where weights are as large as this.
_LARGEST = 1e12
#: Components below this part of the weights are constant, relative to themselves, where the direction has converged.
_SMALL, _DIGITS = 1e-9, 14
#: Pieces of one curve at most; from how many on it ends, at how many times the coefficients requested.
_PIECES, _MANY, _ENOUGH = 3000, 400, 30.0
#: Coefficients are tabulated to this many times the size requested. The distance of a curve is that of the power law
#: with the same growth where coefficients are this part of that size, at which its unit is chosen too.
FARTHER, _TIED, _SMALL_SIZE = 1e10, 0.3, 1e-6


class _Walk:
    """Integrates the curve outwards from weights ``exp(log_scale) x``, piece by piece."""

    def __init__(self, formula: Formula, sign: float, log_scale: float, x: Array, farthest: float) -> None:
        self.formula, self.sign, self.farthest = formula, sign, farthest
        self.taylor = scaled_series(formula)
        self.order = self.taylor.order
        self._plain = Gradient(formula)
        self.pieces: list[Stretch] = []
        self.ended = ""
        self.x, self.log_scale = x, log_scale
        self.size = self.sign * self.taylor.value(self.x, self.log_scale)
        #: size of the gradient at weights of length 1
        self._uncancelled = float(np.abs(self.taylor.series.coefficient[self.taylor.series.degree == self.order]).sum())
        self._h = self._first_step()

    def gradient(self, x: Array, log_scale: float) -> Array:
        """``sign grad phi(exp(log_scale) x) / exp((L - 1) log_scale)`` at columns (k, P)."""
        size = float(np.abs(x).max())
        if not 0 < size < math.inf:
            return np.full_like(x, math.nan)
        if log_scale + math.log(size) <= self.taylor.log_small:
            return self.sign * self.taylor.gradient(x, log_scale)
        return self.sign * self._plain(math.exp(log_scale) * x) * np.exp((1 - self.order) * log_scale)

    def _first_step(self) -> float:
        speed = float(np.linalg.norm(self.gradient(self.x[:, None], self.log_scale)))
        # Weights far below the largest have their own, faster time scale.
        rate = max(speed / float(np.linalg.norm(self.x)), float(np.abs(self.taylor.hessian(self.x)).max()))
        return _FIRST / rate if rate > 0 else 1.0

    def rescale(self) -> None:
        """Normalise x to size 1, moving its size to the scale."""
        size = float(np.linalg.norm(self.x))
        change = math.log(size)
        self.x = self.x / size
        self.log_scale += change
        self.size *= math.exp(-self.order * change)
        self._h *= math.exp((self.order - 2) * change)

    def step(self) -> None:
        """Append one piece, or set the reason why the curve ends."""
        self.rescale()
        h, x0, scale = self._h, self.x, self.log_scale
        least = _SHORTEST * h
        with np.errstate(all="ignore"):
            while True:
                # The rounding error of a gradient is relative to its terms, however they cancel.
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
        self.pieces.append(Stretch(scale, h, x, size, slope))
        self.x, self.size = x[:, -1], float(size[-1])
        length = float(np.linalg.norm(self.x))
        speed = math.sqrt(float(slope[-1]))
        reached = math.exp(min(700.0, self.order * scale)) * abs(self.size)
        enough = self.farthest if len(self.pieces) < _MANY else self.farthest * _ENOUGH / FARTHER
        if scale > math.log(_LARGEST) or reached > enough:
            self.ended = "far"
        elif slope[-1] <= slope[0] and (speed * h <= _RESTS * length or self._is_critical(speed, length)):
            self.ended = "rest"

    def _is_critical(self, speed: float, length: float) -> bool:
        """Whether the gradient is zero to rounding: a critical point of the formula."""
        if self.log_scale > self.taylor.log_small:
            return speed <= _CRITICAL * self._uncancelled * length ** (self.order - 1)
        # Near the origin the gradient is small for other reasons too: at a critical point its terms must cancel.
        gradient = np.abs(self.gradient(self.x[:, None], self.log_scale)[:, 0])
        return bool((gradient <= _CRITICAL * self.taylor.slope_terms(self.x)).all())

    def follows_law(self) -> bool:
        """Whether the direction of the weights is stationary under the leading part."""
        w = self.x / np.linalg.norm(self.x)
        g = self.sign * self.taylor.gradient(w[:, None], -math.inf)[:, 0]
        rate = float(w @ g)
        across = float(np.abs(g - rate * w).max())
        return rate != 0.0 and across <= _STATIONARY * abs(rate)

    @property
    def here(self) -> float:
        """ln of the size of the weights."""
        return self.log_scale + math.log(float(np.linalg.norm(self.x)))

    def law(self) -> PowerLaw:
        """The power law from this point on."""
        w = self.x / np.linalg.norm(self.x)
        w0 = np.where(np.abs(w) > _SMALL, w, 0.0)
        w0 = np.round(w0 / np.linalg.norm(w0), _DIGITS)
        rate = float(w0 @ (self.sign * self.taylor.gradient(w0[:, None], -math.inf)[:, 0]))
        across = np.eye(len(w0)) - np.outer(w0, w0)
        values, basis = np.linalg.eigh(across @ (self.sign * self.taylor.hessian(w0)) @ across)
        basis = np.where(np.abs(basis) > _SMALL, basis, 0.0)
        return PowerLaw(w0, rate, self.here, basis, values / rate, basis.T @ np.where(np.abs(w) > _SMALL, 0.0, w))


def grow(formula: Formula, direction: Array, log_alpha: float, sign: float, farthest: float) -> Branch:
    """One side of the curve from ``alpha * direction``.

    Raises ArithmeticError if the direction of growth does not converge, or leads to a saddle of the formula.
    """
    walk = _Walk(formula, sign, log_alpha, direction, farthest)
    taylor, order, k = walk.taylor, walk.order, len(direction)
    law = None
    while law is None and not walk.ended:
        if len(walk.pieces) >= _PIECES:
            raise ArithmeticError("the direction of growth does not converge")
        follows_law = walk.follows_law()
        if follows_law and walk.here < taylor.log_negligible:
            law = walk.law()
        else:
            walk.step()
    shrinks = law is not None and law.rate < 0
    if shrinks or (walk.ended == "rest" and walk.here < taylor.log_small):
        inner = Chain.of(walk.pieces, order, 0.0, (order - 2) * log_alpha, ascending=False)
        return Branch(order, k, sign, 0.0, 0.0, log_alpha, inner, Chain.of([], order, 0.0, 0.0), law, True)
    if law is None:
        return _tied(walk.pieces, [], None, walk.ended, order, k, sign, log_alpha, farthest)
    outer: list[Stretch] = []
    ended = "far"
    if math.isfinite(taylor.log_negligible):
        signs, logs = law.at(np.array([taylor.log_negligible]))
        x = tuple((signs * np.exp(logs))[:, 0].tolist())
        outer, ended = _beyond(formula, sign, taylor.log_negligible, x, farthest)
    return _tied(outer, walk.pieces, law, ended, order, k, sign, log_alpha, farthest)


@lru_cache(maxsize=256)
def _beyond(
    formula: Formula, sign: float, log_scale: float, x: tuple[float, ...], farthest: float
) -> tuple[list[Stretch], str]:
    """The pieces beyond the power law: the same for all starts that converge to one direction."""
    walk = _Walk(formula, sign, log_scale, np.array(x), farthest)
    while not walk.ended:
        if len(walk.pieces) >= _PIECES:
            raise ArithmeticError("the curve has too many pieces")
        walk.step()
    return walk.pieces, walk.ended


def _tied(
    pieces: list[Stretch],
    inner: list[Stretch],
    law: PowerLaw | None,
    ended: str,
    order: int,
    k: int,
    sign: float,
    log_alpha: float,
    farthest: float,
) -> Branch:
    """The branch, with distances of the power law that has the same growth at coefficients of the size requested."""
    power, log_unit = order / (order - 2.0), (order - 2) * log_alpha
    if law is not None:
        slope = law.rate ** (2 / order) * order ** (1 - 2 / order)
    outer = Chain.of([], order, 0.0, 0.0)
    if pieces:
        log_size = np.array([math.log(abs(piece.size[-1]) or 1e-300) + order * piece.log_scale for piece in pieces])
        log_slope = np.array(
            [math.log(piece.slope[-1] or 1e-300) + (2 * order - 2) * piece.log_scale for piece in pieces]
        )
        largest = min(math.log(farthest / FARTHER), float(log_size[-1]) - 1.0)
        if law is None:
            small = min(int(np.searchsorted(log_size, largest + math.log(_SMALL_SIZE))), len(pieces) - 1)
            distance = math.exp(-log_size[small] / power) / (order - 2)
            slope = math.exp(log_slope[small] - log_size[small]) * distance / power
        tied = min(int(np.searchsorted(log_size, largest + math.log(_TIED))), len(pieces) - 1)
        distance = power * slope * math.exp(log_size[tied] - log_slope[tied])
        last = distance - math.fsum(math.exp(each.log_length(order)) * slope for each in pieces[tied + 1 :])
        outer = Chain.of(pieces, order, last, math.log(slope))
    rests = ended == "rest"
    if law is None:
        none = Chain.of([], order, 0.0, 0.0)
        return Branch(order, k, sign, slope, outer.top * math.exp(log_unit), log_alpha, none, outer, None, rests)
    joint = math.exp((2 - order) * (law.log_first - log_alpha)) * slope / ((order - 2) * law.rate)
    chain = Chain.of(inner, order, joint, log_unit + math.log(slope))
    return Branch(order, k, sign, slope, chain.top if inner else joint, log_alpha, chain, outer, law, rests)
