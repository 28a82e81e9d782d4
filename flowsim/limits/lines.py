r"""How a product of L >= 3 weights answers to the dual once it no longer vanishes.

All weights follow from one, ``w_l^2 = c^2 + mu_l^2``, since differences of squares are conserved:

.. math:: \frac{dc}{dz} = \prod_{l<L} \sqrt{c^2 + \mu_l^2}, \qquad b = c \prod_{l<L} \sqrt{c^2 + \mu_l^2} .

Pretrained weights keep their differences mu. What grew from a vanishing start has none left,
``b = (-(L - 2) z)^(-L/(L - 2))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lines", "PowerLine", "ProductLine", "product_lines"]

Array = NDArray[np.float64]

_GAUSS = np.polynomial.legendre.leggauss(10)
_CELLS = 400
#: The table ends where the smallest weight is this many times the sizes asked for.
_BEYOND = 1e6
_POLISH = 30


class Line(Protocol):
    """``b``, ``db/dz`` and ``int b dz`` at z; an infinite integral outside the range."""

    low: float
    high: float

    def tangent(self, z: float) -> tuple[float, float, float]: ...


class PowerLine:
    """Balanced weights to one side; z counts from where they have coefficient `start`, or from infinity."""

    def __init__(self, sign: float, order: int, start: float = 0.0) -> None:
        self.sign, self.p, self.rate = sign, order / (order - 2.0), order - 2.0
        self.shift = start ** (-1 / self.p) / self.rate if start > 0 else 0.0
        self.low = -np.inf if sign > 0 else -self.shift
        self.high = self.shift if sign > 0 else np.inf

    def tangent(self, z: float) -> tuple[float, float, float]:
        left = self.rate * (self.shift - self.sign * z)
        if not left > 0:
            return np.inf, np.inf, np.inf
        area = left ** (1 - self.p) / (self.p - 1) / self.rate
        return self.sign * left**-self.p, self.p * self.rate * left ** (-self.p - 1), area


class ProductLine:
    """Weights of different modulus, both ways from where they stand at z = 0; tabulated by ``x = asinh(c / m)``."""

    def __init__(self, weights: Array, size: float) -> None:
        order = np.argsort(np.abs(weights))
        last, others = weights[order[0]], weights[order[1:]]
        self.squares = (np.abs(others) - abs(last)) * (np.abs(others) + abs(last))
        self.m = float(np.sqrt(self.squares.min()))
        self.first = float(last * np.prod(np.sign(others)))
        top = _BEYOND * max(abs(self.first), size ** (1.0 / len(weights)), self.m)
        start, end = np.arcsinh(self.first / self.m), np.arcsinh(top / self.m)
        below = np.linspace(-end, start, _CELLS + 1)
        self.x = np.concatenate([below, np.linspace(start, end, _CELLS + 1)[1:]])
        z, area = self._integrals(self.x[:-1], self.x[1:])
        self.z, self.area = (np.concatenate([[0.0], np.cumsum(part)]) for part in (z, area))
        self.z -= self.z[_CELLS]
        self.area -= self.area[_CELLS]
        self.low, self.high = float(self.z[0]), float(self.z[-1])

    def tangent(self, z: float) -> tuple[float, float, float]:
        if not self.low < z < self.high:
            return np.inf, np.inf, np.inf
        cell = min(max(int(np.searchsorted(self.z, z, side="right")) - 1, 0), len(self.x) - 2)
        left, low, high = self.x[cell], self.x[cell], self.x[cell + 1]
        x = low + (high - low) * (z - self.z[cell]) / (self.z[cell + 1] - self.z[cell])
        for _ in range(_POLISH):
            wait, area = self._integrals(np.array([left]), np.array([x]))
            error = float(wait[0]) - (z - self.z[cell])
            low, high = (low, x) if error > 0 else (x, high)
            step = error / float(self._speeds(np.array([x]))[0][0])
            if abs(step) <= 1e-15 * (1 + abs(x)):
                break
            x = x - step if low < x - step < high else 0.5 * (low + high)
        c = self.m * np.sinh(x)
        squared = c**2 + self.squares
        root = float(np.sqrt(np.prod(squared)))
        slope = root**2 * (1.0 + c**2 * float((1.0 / squared).sum()))
        return c * root, slope, float(self.area[cell] + area[0])

    def _speeds(self, x: Array) -> tuple[Array, Array]:
        """``dz/dx`` and ``b``."""
        c = self.m * np.sinh(x)
        root = np.sqrt(c[..., None] ** 2 + self.squares).prod(axis=-1)
        return self.m * np.cosh(x) / root, c * root

    def _integrals(self, a: Array, b: Array) -> tuple[Array, Array]:
        nodes, shares = _GAUSS
        half = (b - a) / 2
        wait, value = self._speeds((a + b)[:, None] / 2 + half[:, None] * nodes)
        return half * (wait @ shares), half * ((wait * value) @ shares)


@dataclass(frozen=True, eq=False)
class Lines:
    """Coordinates each on a line of its own, as a response for :mod:`flowsim.solvers.entropy`."""

    lines: tuple[Line, ...]
    depth: float = 0.0

    def value(self, z: Array) -> Array:
        return self._tangents(z)[0]

    def slope(self, z: Array) -> Array:
        return self._tangents(z)[1]

    def potential(self, z: Array) -> float:
        return float(self._tangents(z)[2].sum())

    def scaled(self, share: float) -> Lines:
        return self

    def reach(self, z: Array, dz: Array) -> float:
        ends = np.array([line.high if step > 0 else line.low for line, step in zip(self.lines, dz, strict=True)])
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(dz != 0, (ends - z) / dz, np.inf)
        return float(min(1.0, 0.9 * room.min()))

    def _tangents(self, z: Array) -> Array:
        return np.array([line.tangent(x) for line, x in zip(self.lines, z.tolist(), strict=True)]).T


def product_lines(weights: Array, signs: Array, size: float) -> Lines:
    """Lines of some coordinates with weights (L, m), zeros for those that grew from a vanishing start.

    Raises
    ------
    ArithmeticError
        If weights are not known (NaN).
    """
    lines: list[Line] = []
    for own, sign in zip(weights.T, signs.tolist(), strict=True):
        modulus = np.abs(own)
        if np.isnan(own).any():
            raise ArithmeticError("the state it went on from does not tell how its coordinates answer to the dual")
        if np.ptp(modulus) == 0:
            lines.append(PowerLine(sign, len(own), abs(float(own.prod()))))
        else:
            lines.append(ProductLine(own, size))
    return Lines(tuple(lines))
