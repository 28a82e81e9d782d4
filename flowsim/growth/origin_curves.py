r"""General formulas as alpha vanishes: the curve along which a coordinate leaves the origin.

From a vanishing start the weights leave the origin along the direction that grows fastest, so their curve
(:mod:`flowsim.growth.curve`) is known in the limit: the fast unstable manifold of the origin. By its coefficient
``b = |phi|``

.. math:: \frac{db}{dz} = |\nabla\phi|^2 = c\, b^{2 - 2/L} (1 + o(1)), \qquad b \to 0,

L the order of phi at 0. For L = 2 the dual z counts from the point at which the leading part alone has b = 1. A curve
that reaches a critical point of phi ends there: larger coefficients are not attained.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.growth.arrivals import arrival
from flowsim.growth.curve import Curve
from flowsim.growth.curve_table import CurveTable, curve_table, primitives, read_inverse, read_potential, read_table
from flowsim.growth.formula_origin import Gradient, origin_of
from flowsim.network import DiagonalNetwork, Formula, quadratic_form
from flowsim.solvers.entropy import Response, trusted

#: Beyond order 2 a curve begins at weights of this size, which is the relative error of its leading part there.
_FIRST = 1e-9
#: Pieces that one curve may have.
_PIECES = 2_000
#: Digits to which directions must agree to share a curve.
_DIGITS = 13
_SPANS = 60


class OriginCurve:
    """The growth of one formula out of the origin to one side, extended on demand.

    Raises ArithmeticError if the formula does not grow along the direction.
    `direction` (k,): for order 2 in the eigenspace that grows fastest to that side, of length 1; else any that grows.

    Attributes
    ----------
    speed : float
        ``db/dz = speed * b**(2 - 2/order)`` near the origin.
    first : float
        The coefficient up to which that is exact to rounding.
    """

    def __init__(self, formula: Formula, direction: Array, sign: int, order: int) -> None:
        self.order, self.sign = order, float(sign)
        if order == 2:
            origin = origin_of(formula)
            c = origin.components(direction)
            log_first = math.log(origin.linear) - 1.0 if math.isfinite(origin.linear) else 0.0
            self.first = float(np.abs(origin.rate * origin.metric * c**2).sum()) / 2 * math.exp(2 * log_first)
            self.speed = 2.0 * float(np.abs(origin.rate[c != 0]).max(initial=0.0))
            begin = self.sign * math.log(self.first) / self.speed if self.first > 0 else 0.0
            self.curve = Curve(formula, direction, log_first, begin=begin)
        else:
            direction = _relaxed(formula, direction, self.sign)
            self.curve = Curve(formula, direction, math.log(_FIRST), restarts=True)
            self.first = self.sign * self.curve.above.beta
        if not self.first > 0:
            raise ArithmeticError("the formula does not grow along its fastest direction")
        if order > 2:
            slope = float((self.curve.gradient(_FIRST * direction[:, None]) ** 2).sum())
            self.speed = slope / self.first ** (2.0 - 2.0 / order)
        self.side = self.curve.above if sign > 0 else self.curve.below
        self.side.extend()

    @property
    def top(self) -> float:
        """The largest coefficient tabulated so far."""
        return abs(self.side.beta)

    @property
    def limit(self) -> float:
        """Supremum of the coefficients that the curve attains; inf while none is known."""
        return self.top if self.side.ended in ("rest", "saddle", "undefined") else math.inf

    def reaches(self, b: float) -> bool:
        """Extend the curve to b if possible."""
        while not self.side.ended and self.top < b and len(self.side.pieces) < _PIECES:
            self.side.extend()
        return b <= self.top

    @cached_property
    def is_power_law(self) -> bool:
        """Whether the formula is its leading part."""
        b = np.array([1e-3, 1.0, 1e3])
        law = self.speed * b ** (2.0 - 2.0 / self.order)
        return self.reaches(b[-1]) and bool(np.allclose(CurveResponse((self,) * 3).inertia(b), law, rtol=1e-6))


class CurveResponse(Response):
    """``beta_i(z) = B_i(z_i + sign_i shift_i)``: coordinates on curves out of the origin.

    For order 2 a response for :func:`flowsim.solvers.entropy.mirror_interpolation`.
    `shift` (m,): offsets in z; `farthest`: coefficients beyond this are not tabulated for :meth:`inertia`.
    """

    def __init__(self, curves: tuple[OriginCurve, ...], shift: Array | None = None, farthest: float = math.inf) -> None:
        self.curves, self.farthest = curves, farthest
        self.sign = np.array([curve.sign for curve in curves])
        self.speed = np.array([curve.speed for curve in curves])
        self.shift = np.zeros(len(curves)) if shift is None else self.sign * shift
        distinct = {id(curve): curve for curve in curves}
        self.distinct = tuple(distinct.values())
        places = {key: place for place, key in enumerate(distinct)}
        self.which = np.array([places[id(curve)] for curve in curves], dtype=np.int64)
        self._table: tuple[int, CurveTable] | None = None

    @property
    def table(self) -> CurveTable:
        """The curves as far as they are tabulated; closed forms hold down to the origin."""
        pieces = sum(len(curve.side.pieces) for curve in self.distinct)
        if self._table is None or self._table[0] != pieces:
            weights = max(len(curve.curve.direction) for curve in self.distinct)
            table = curve_table([curve.curve for curve in self.distinct], weights)
            for place, curve in enumerate(self.distinct):
                if curve.sign > 0 and table.closed[table.first[place]]:
                    table.low[table.first[place]] = -np.inf
                elif curve.sign < 0 and table.closed[table.first[place + 1] - 1]:
                    table.high[table.first[place + 1] - 1] = np.inf
            self._table = pieces, table
        return self._table[1]

    def value(self, z: Array) -> Array:
        return self._read(z)[0]

    def slope(self, z: Array) -> Array:
        return self._read(z)[1]

    def _read(self, z: Array) -> tuple[Array, Array]:
        beta, slope = np.empty(len(z)), np.empty(len(z))
        read_table(self.table, self.which, z + self.shift, beta, slope)
        return beta, slope

    def potential(self, z: Array) -> float:
        area = np.empty(len(z))
        read_potential(self.table, primitives(self.table), self.which, z + self.shift, area)
        return float(area.sum())

    def reach(self, z: Array, dz: Array) -> float:
        return trusted(float(np.abs(self.speed * dz).max(initial=0.0)))

    def _inverse(self, b: Array) -> tuple[Array, Array]:
        for curve, most in zip(self.curves, b.reshape(-1, len(self.curves)).max(axis=0).tolist(), strict=True):
            curve.reaches(min(most, self.farthest))
        z, slope = np.empty(b.size), np.empty(b.size)
        flat = np.tile(self.which, b.size // len(self.curves))
        read_inverse(self.table, flat, (self.sign * b).ravel(), z, slope)
        return z.reshape(b.shape), slope.reshape(b.shape)

    def inertia(self, b: Array) -> Array:
        """``db/dz`` at coefficients b (..., m) >= 0."""
        first = np.array([curve.first for curve in self.curves])
        power = 2.0 - 2.0 / self.curves[0].order
        return np.where(b > first, self._inverse(np.maximum(b, first))[1], self.speed * b**power)

    def dual(self, b: Array) -> Array:
        """z at coefficients b (m,), to the curve's own side, from the point where its leading part alone has b = 1."""
        return self.sign * self._inverse(b)[0]


class OriginCurves:
    """The curves of a network's coordinates, computed on demand and shared by those of equal growth.

    `fresh`: all started from a vanishing scale.
    """

    def __init__(self, net: DiagonalNetwork, values: Array, order: int, fresh: bool) -> None:
        self.net, self.values, self.order, self.fresh = net, values, order, fresh
        self.kinds = net.kinds(values.shape[1]) if net.is_mixed else None
        self._known: dict[tuple[Any, ...], OriginCurve] = {}

    def formula(self, i: int) -> Formula:
        return self.net.distinct[0 if self.kinds is None else int(self.kinds[i])]

    def of(self, i: int, sign: int) -> tuple[OriginCurve, float]:
        """The curve of coordinate i to one side, and its offset in z."""
        formula = self.formula(i)
        start = self.values[self.net.rows(formula), i]
        rate = 0.0
        if self.order == 2:
            _, rate, start = arrival(formula, start, sign)
            rate *= 2.0
            if not rate:
                raise ArithmeticError("the start excites no direction that grows to this side")
        size = float(np.linalg.norm(start))
        unit = start / size
        key = (formula, sign, *np.round(unit, _DIGITS).tolist())
        if key not in self._known:
            self._known[key] = OriginCurve(formula, unit, sign, self.order)
        # b = rate/4 |start|^2 exp(rate z) at first
        return self._known[key], math.log(0.25 * rate * size**2) / rate if rate else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}}  # curves hold compiled code, and are computed again on demand

    def among(self, keep: Integers) -> OriginCurves:
        """The curves of some coordinates, renumbered."""
        part = OriginCurves.__new__(OriginCurves)
        part.__dict__.update(self.__dict__)
        part.values = self.values[:, keep] if self.values.strides[1] else self.values[:, : len(keep)]
        part.kinds = None if self.kinds is None else self.kinds[keep]
        return part

    def out_of_reach(self, coordinates: Integers, values: Array) -> tuple[int, float] | None:
        """The first of some coefficients that its curve does not attain, as (coordinate, limit)."""
        for i, value in zip(coordinates.tolist(), values.tolist(), strict=True):
            try:
                curve, _ = self.of(i, 1 if value > 0 else -1)
            except ArithmeticError:
                continue  # thresholds were given, not derived, or the start is unknown
            if not curve.reaches(abs(value)):
                return i, math.copysign(curve.limit, value)
        return None

    def response(self, coordinates: Integers, sign: Array, b: float) -> CurveResponse:
        """How coordinates grow to one side each, tabulated to b where that is possible."""
        pairs = [self.of(int(i), int(side)) for i, side in zip(coordinates, sign, strict=True)]
        for curve, _ in pairs:
            curve.reaches(b)
        return CurveResponse(tuple(curve for curve, _ in pairs), np.array([shift for _, shift in pairs]))


def origin_curves(net: DiagonalNetwork, values: Array, order: int, fresh: bool) -> OriginCurves | None:
    """The curves of a network; None where closed forms exist."""
    closed = all(formula.product_of is not None or quadratic_form(formula) is not None for formula in net.distinct)
    return None if closed else OriginCurves(net, values, order, fresh)


def _relaxed(formula: Formula, direction: Array, sign: float) -> Array:
    """The limit on the sphere of a direction under the leading part: a local maximum of ``sign phi``."""
    from scipy.integrate import solve_ivp

    radius, kernel = 1e-3 * _FIRST, Gradient(formula)

    def gradient(w: Array) -> Array:
        return sign * kernel(radius * w[:, None])[:, 0]

    w = direction / np.linalg.norm(direction)
    scale = float(np.linalg.norm(gradient(w)))

    def flow(_: float, w: Array) -> Array:
        g = gradient(w) / scale
        return g - (w @ g) * w

    span = 1.0
    for _ in range(_SPANS):
        w = solve_ivp(flow, (0.0, span), w, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
        w /= np.linalg.norm(w)
        rate = float(w @ gradient(w)) / scale
        if rate > 0 and float(np.abs(flow(0.0, w)).max()) < 1e-12 * rate:
            return w
        span *= 1.3
    raise ArithmeticError("the direction of growth does not converge")
