r"""How a coordinate of a general formula grows out of the origin.

Whatever the data do, its weights obey ``theta' = grad phi(theta) dz`` with the dual ``z = -int g dt``: they move along
one curve, there and back. From a vanishing start that curve leaves the origin along the direction that grows fastest,
so it is known in the limit. Seen by its own coefficient ``b = |phi|``

.. math:: \frac{d\theta}{d \ln b} = b \frac{\nabla\phi}{|\nabla\phi|^2}, \qquad
          \frac{dz}{d \ln b} = \frac{b}{|\nabla\phi|^2} .

A curve that runs into a critical point of phi ends there: larger coefficients are out of its reach.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.network import DiagonalNetwork, Formula, quadratic_form

__all__ = ["Curve", "Curves", "Tabulated", "growth_curves"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: A curve is taken up at weights of this size: there its leading part errs by as much, relatively.
_FIRST = 1e-9
_TOLERANCE = 1e-11
#: It is taken to end where doubling its coefficient takes this many times longer than at the origin.
_STANDSTILL = 1e10
#: Relative departure of phi(theta(b)) from b that says that a critical point was stepped over.
_ASTRAY = 1e-6
_SAMPLES = 8
_POLISH = 6
#: Digits to which directions must agree to share a curve.
_DIGITS = 13
_SPANS = 60


class Curve:
    """The growth of one formula from one direction to one side, extended as far as anyone asks.

    Attributes
    ----------
    order : int
    speed : float
        ``db/dz = speed * b**(2 - 2/order)`` near the origin.
    limit : float
        Coefficients that it reaches lie below; inf as far as it is known.
    """

    def __init__(self, formula: Formula, direction: Array, sign: int, order: int) -> None:
        from flowsim.symbolic import kernels

        self.order, self.limit = order, math.inf
        self._kernels: Any = kernels(DiagonalNetwork(formula.text))
        self._sign, self._kind = float(sign), np.zeros(1, np.int64)
        if order > 2:
            direction = self._settled(direction)
        theta = _FIRST * direction
        self._first = self._value(theta)
        if not self._first > 0:
            raise ArithmeticError("the formula does not grow along its fastest direction")
        slope = float(np.sum(self._gradient(theta) ** 2))
        self.speed = slope / self._first ** (2.0 - 2.0 / order)
        # z counts from where the leading part alone would have coefficient 1 (order 2) or infinity.
        z = math.log(self._first) / self.speed if order == 2 else -self._first / slope * order / (order - 2.0)
        area = self._first / self.speed if order == 2 else 0.0
        self._ends = [math.log(self._first)]
        self._pieces: list[Any] = []
        self._state = np.concatenate([theta, [z, area]])
        self._samples: tuple[Array, Array] | None = None

    def reaches(self, b: float) -> bool:
        """Extend the curve to b if possible."""
        from scipy.integrate import solve_ivp

        while math.isinf(self.limit) and self.top < b:
            last = self._ends[-1]
            with np.errstate(over="ignore", invalid="ignore"):  # next to a critical point; such steps are refused
                run = solve_ivp(
                    self._rate, (last, max(math.log(b), last) + 1.0), self._state, method="DOP853",
                    rtol=_TOLERANCE, atol=1e-300, events=self._still, dense_output=True,
                )  # fmt: skip
            steps = len(run.t) - 1
            good = [
                k for k in range(1, steps + 1)
                if np.isfinite(run.y[:, k]).all()
                and abs(self._value(run.y[:-2, k]) * math.exp(-run.t[k]) - 1.0) < _ASTRAY
            ]  # fmt: skip
            kept = next((k for k in range(steps, 0, -1) if good[:k] == list(range(1, k + 1))), 0)
            self._pieces += run.sol.interpolants[:kept]
            self._ends += run.t[1 : kept + 1].tolist()
            if kept:
                self._state = run.y[:, kept]
            self._samples = None
            if run.status != 0 or kept < steps:
                self.limit = self.top
        return b <= self.top

    @property
    def top(self) -> float:
        """The largest coefficient tabulated so far."""
        return math.exp(self._ends[-1])

    def inertia(self, b: Array) -> Array:
        """``db/dz`` at coefficients b >= 0 within reach (beyond it, that of the last one)."""
        out = self.speed * b ** (2.0 - 2.0 / self.order)
        far = np.flatnonzero(b > self._first)
        if far.size:
            self.reaches(float(b.max()))
            theta = self._at(np.minimum(np.log(b[far]), self._ends[-1]))[:-2]
            gradient = np.empty_like(theta)
            kind = np.zeros(len(far), np.int64)
            self._kernels.gradient(np.ascontiguousarray(theta), kind, gradient)
            out[far] = np.sum(gradient**2, axis=0)
        return out

    def z(self, b: float) -> float:
        """Where the curve has coefficient b, for order 2."""
        return math.log(b) / self.speed if b <= self._first else float(self._at(np.array([math.log(b)]))[-2, 0])

    def is_power_law(self) -> bool:
        """Whether the leading part is all there is."""
        b = np.array([1e-3, 1.0, 1e3])
        return self.reaches(b[-1]) and bool(
            np.allclose(self.inertia(b), self.speed * b ** (2.0 - 2.0 / self.order), rtol=1e-6)
        )

    def tangent(self, z: float) -> tuple[float, float, float]:
        """``b``, ``db/dz`` and ``int b dz`` at z for order 2; continued by a straight line beyond the top."""
        low, high = self._state_at_ends()
        if z <= low:
            b = math.exp(self.speed * z)
            return b, self.speed * b, b / self.speed
        if z >= high[0]:
            b = self.top
            slope = float(np.sum(self._gradient(self._state[:-2]) ** 2))
            over = z - high[0]
            return b + slope * over, slope, high[1] + b * over + 0.5 * slope * over**2
        if self._samples is None:
            grid = np.concatenate(
                [np.linspace(a, b, _SAMPLES, endpoint=False) for a, b in itertools.pairwise(self._ends)]
                + [np.array(self._ends[-1:])]
            )  # fmt: skip
            self._samples = grid, self._at(grid)[-2]
        log_b = float(np.interp(z, self._samples[1], self._samples[0]))
        for _ in range(_POLISH):
            state = self._at(np.array([log_b]))[:, 0]
            slope, b = float(np.sum(self._gradient(state[:-2]) ** 2)), math.exp(log_b)
            step = (z - state[-2]) * slope / b
            log_b = min(max(log_b + step, self._ends[0]), self._ends[-1])
            if abs(step) < 1e-14:
                break
        state = self._at(np.array([log_b]))[:, 0]
        return math.exp(log_b), float(np.sum(self._gradient(state[:-2]) ** 2)), float(state[-1])

    def _state_at_ends(self) -> tuple[float, tuple[float, float]]:
        return math.log(self._first) / self.speed, (float(self._state[-2]), float(self._state[-1]))

    def _at(self, log_b: Array) -> Array:
        from scipy.integrate import OdeSolution

        return np.asarray(OdeSolution(np.array(self._ends), self._pieces)(log_b))

    def _rate(self, log_b: float, state: Array) -> Array:
        gradient = self._gradient(state[:-2])
        b = math.exp(log_b)
        wait = b / max(float(np.sum(gradient**2)), 1e-300)
        return np.concatenate([wait * gradient, [wait, b * wait]])

    def _still(self, log_b: float, state: Array) -> float:
        b = math.exp(log_b)
        return float(np.sum(self._gradient(state[:-2]) ** 2)) * _STANDSTILL - self.speed * b * min(b, 1.0) ** (
            1.0 - 2.0 / self.order
        )

    _still.terminal = True  # type: ignore[attr-defined]

    def _value(self, theta: Array) -> float:
        out = np.empty(1)
        self._kernels.value(np.ascontiguousarray(theta[:, None]), self._kind, out)
        return self._sign * float(out[0])

    def _gradient(self, theta: Array) -> Array:
        out = np.empty((len(theta), 1))
        self._kernels.gradient(np.ascontiguousarray(theta[:, None]), self._kind, out)
        return self._sign * out[:, 0]

    def _settled(self, direction: Array) -> Array:
        """Where on the sphere the leading part takes a direction: a maximum of phi there."""
        from scipy.integrate import solve_ivp

        radius = 1e-3 * _FIRST
        w = direction / np.linalg.norm(direction)
        scale = float(np.linalg.norm(self._gradient(radius * w)))

        def flow(_: float, w: Array) -> Array:
            g = self._gradient(radius * w) / scale
            return g - (w @ g) * w

        span = 1.0
        for _ in range(_SPANS):
            w = solve_ivp(flow, (0.0, span), w, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
            w /= np.linalg.norm(w)
            rate = float(w @ self._gradient(radius * w)) / scale
            if rate > 0 and float(np.abs(flow(0.0, w)).max()) < 1e-12 * rate:
                return w
            span *= 1.3
        raise ArithmeticError("the direction of growth does not settle")


@dataclass(frozen=True, eq=False)
class Tabulated:
    """``beta_i(z) = sign_i b_i(sign_i z_i + shift_i)`` as a response for :func:`flowsim.solvers.entropy`."""

    curves: tuple[Curve, ...]
    sign: Array
    shift: Array
    depth: float = 0.0

    def value(self, z: Array) -> Array:
        return self.sign * self._tangents(z)[0]

    def slope(self, z: Array) -> Array:
        return self._tangents(z)[1]

    def potential(self, z: Array) -> float:
        return float(self._tangents(z)[2].sum())

    def scaled(self, share: float) -> Tabulated:
        return self

    def reach(self, z: Array, dz: Array) -> float:
        stretch = max(abs(curve.speed * step) for curve, step in zip(self.curves, dz.tolist(), strict=True))
        return min(1.0, 2.0 / stretch) if stretch > 0 else 1.0

    def _tangents(self, z: Array) -> Array:
        along = (self.sign * z + self.shift).tolist()
        return np.array([curve.tangent(x) for curve, x in zip(self.curves, along, strict=True)]).T


class Curves:
    """The curves of a network's coordinates, made when asked for and shared by those that grow alike."""

    def __init__(self, net: DiagonalNetwork, values: Array, order: int, fresh: bool) -> None:
        self.net, self.values, self.order, self.fresh = net, values, order, fresh
        self.kinds = net.kinds(values.shape[1]) if net.is_mixed else None
        self._known: dict[tuple[Any, ...], Curve] = {}

    def formula(self, i: int) -> Formula:
        return self.net.distinct[0 if self.kinds is None else int(self.kinds[i])]

    def of(self, i: int, sign: int) -> tuple[Curve, float]:
        """The curve of coordinate i to one side, and its head start in z."""
        formula = self.formula(i)
        start = self.values[[self.net.weights.index(name) for name in formula.weights], i]
        rate = 0.0
        if self.order == 2:
            start, rate = fastest_part(formula, start, sign)
        size = float(np.linalg.norm(start))
        unit = start / size
        key = (formula, sign, *np.round(unit, _DIGITS).tolist())
        if key not in self._known:
            self._known[key] = Curve(formula, unit, sign, self.order)
        # b = rate/4 |start|^2 exp(rate z) at first
        return self._known[key], math.log(0.25 * rate * size**2) / rate if rate else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}}  # curves hold compiled code, and are made again when asked for

    def among(self, keep: Index) -> Curves:
        """The curves of some coordinates, counted anew."""
        part = Curves.__new__(Curves)
        part.__dict__.update(self.__dict__)
        part.values = self.values[:, keep] if self.values.strides[1] else self.values[:, : len(keep)]
        part.kinds = None if self.kinds is None else self.kinds[keep]
        return part

    def out_of_reach(self, coordinates: Index, values: Array) -> tuple[int, float] | None:
        """The first of some coefficients that its curve does not attain, as (coordinate, limit)."""
        for i, value in zip(coordinates.tolist(), values.tolist(), strict=True):
            try:
                curve, _ = self.of(i, 1 if value > 0 else -1)
            except ArithmeticError:
                continue  # a threshold that was given and not derived, or a start that is not known
            if not curve.reaches(abs(value)):
                return i, math.copysign(curve.limit, value)
        return None

    def response(self, coordinates: Index, up: NDArray[np.bool_], b: float) -> Tabulated:
        """How coordinates of order 2 at their walls answer to the dual, tabulated to b where that is possible."""
        signs = np.where(up, 1, -1)
        pairs = [self.of(int(i), int(sign)) for i, sign in zip(coordinates, signs, strict=True)]
        for curve, _ in pairs:
            curve.reaches(b)
        shifts = np.array([shift for _, shift in pairs])
        return Tabulated(tuple(curve for curve, _ in pairs), signs.astype(float), shifts)


@cache
def _eigen(formula: Formula) -> tuple[Array, Array]:
    from flowsim.symbolic.origin import leading_part

    k = len(formula.weights)
    hessian = np.zeros((k, k))
    for powers, c in leading_part(formula).items():
        a, b = [index for index, power in enumerate(powers) for _ in range(power)]
        hessian[a, b] += c
        hessian[b, a] += c
    values, vectors = np.linalg.eigh(hessian)
    return values, vectors


def fastest_part(formula: Formula, start: Array, sign: int) -> tuple[Array, float]:
    """The part of a start along the fastest direction it excites to one side, and twice its rate."""
    values, vectors = _eigen(formula)
    parts = vectors.T @ start
    excited = (sign * values > 0) & (np.abs(parts) > _FIRST * 1e-4 * np.linalg.norm(start))
    if not excited.any():
        raise ArithmeticError("the start excites no direction that grows to this side")
    top = (sign * values)[excited].max()
    chosen = excited & (sign * values > top * (1 - 1e-10))
    return vectors[:, chosen] @ parts[chosen], 2.0 * float(top)


def growth_curves(net: DiagonalNetwork, values: Array, order: int, fresh: bool) -> Curves | None:
    """The curves of a network; None where closed forms do."""
    closed = all(formula.product_of is not None or quadratic_form(formula) is not None for formula in net.distinct)
    return None if closed else Curves(net, values, order, fresh)
