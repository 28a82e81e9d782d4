r"""Growth of products of L >= 3 weights: exact at any scale, with exactly conserved quantities.

With ``c`` the weight of smallest modulus (signed by the others), ``m_j^2 = w_j^2 - c^2`` conserved, the flow of a
coordinate ``beta = w_1 ... w_L`` is ``c' = -g prod_j sqrt(c^2 + m_j^2)``, so that

.. math:: \int_{c(0)}^{c(t)} \frac{dx}{\prod_j \sqrt{x^2 + m_j^2}} = z(t) = -\int_0^t g\,ds.

c is infinite at finite z: unknowns are the distances of z to the two infinities, ``alpha^(2-L)`` at the start and of
order 1 where a weight is. Only their ratios matter, so alpha = 1e-300 is an ordinary input. Where ``alpha^(L-2)``
underflows, z and time have units of their own (:mod:`flowsim.growth.distance_unit`).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.growth.distance_unit import DistanceUnit
from flowsim.growth.product import ProductShape
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem
from flowsim.symbolic.thresholds import product_thresholds

#: Convergence of the integrator's series: ratio of the smallest weight that matters to the conserved differences.
_RATIO = 0.1
#: Part of the tolerance at which a coordinate is active, as in the integrator.
_COUNTS = 0.05
#: Least conserved difference, in units of the largest squared weight, that does not underflow.
_TINY = 1e-300
#: Bound on the logarithm of a coefficient at the start.
_LARGEST = 700.0


def admits_products(
    net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, rtol: float
) -> str | None:
    """None if growth by distances is exact for the flow, else the reason why not."""
    if net.is_mixed and len(net.distinct) > 1:
        return "the network mixes formulas"
    factors = net.distinct[0].product_of
    if factors is None or len(factors) < 3:
        return f"{net.distinct[0].text!r} is not a product of three weights or more"
    if net.is_noisy:
        return "noise couples the weights of a product"
    depth = len(factors)
    squares = direction**2
    spread = math.sqrt(float((squares - squares.min(axis=0)).max()))
    if spread > 0:
        rate = float(np.abs(problem.gradient(np.zeros(problem.d))).max())
        if rate == 0:
            # The gradient at the origin vanishes; the start itself may be visible.
            size = np.exp(min(depth * scale.log, _LARGEST))
            rate = float(np.abs(problem.gradient(size * np.prod(direction, axis=0))).max())
            if rate == 0 and size > 0:
                return "nothing moves"
        distance = log_visible_distance(depth, problem, rate, rtol)
        if distance < math.inf:
            visible = -(distance + math.log(depth - 2)) / (depth - 2)
            if scale.log + math.log(spread) > visible + math.log(_RATIO):
                return "the conserved differences of squares are not small against active weights"
    return None


def log_visible_distance(depth: int, problem: Problem, rate: float, rtol: float) -> float:
    """Logarithm of the distance at which a coordinate becomes active: beta over its rate of growth, against `rtol`."""
    curvature = problem.curvatures(problem.predict(np.zeros(problem.d)))
    reach = float(problem.feature_variances.max()) * max(float(curvature.max()), 1.0)
    if not (rate > 0 and reach > 0):
        return math.inf
    power = depth / (depth - 2)
    level = math.log(_COUNTS * rtol * power * rate / reach) + power * math.log(depth - 2)
    return level / (1 - power)


class ProductMap:
    """Growth of ``w_1 ... w_L`` without noise: a :class:`flowsim.growth.protocol.GrowthMap`.

    States are the distances of z to the poles above and below, (T, 2 d), infinite where there is none.

    Raises ArithmeticError if starts are too far apart.

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`admits_products` is None.
    direction : array (L, d)
        The start is alpha times this.
    clock : InitialScale, optional
        The alpha of the accelerated clock, if it is another one.
    """

    name = "log"
    is_constant = True
    is_damped = False

    def __init__(
        self, net: DiagonalNetwork, scale: InitialScale, direction: Array, clock: InitialScale | None = None
    ) -> None:
        self.scale = scale
        depth, d = direction.shape
        self.depth, self.d = depth, d
        self.unit = DistanceUnit.of(depth, clock or scale)
        self.log_unit = self.unit.wait
        self.shift = self.base = np.zeros(1)
        names = net.weights
        self.invariants = tuple(f"{names[0]}**2 - {name}**2" for name in names[1:])
        modulus = np.abs(direction)
        columns = np.arange(d)
        self.smallest = modulus.argmin(axis=0)
        signs = np.where(direction < 0, -1.0, 1.0)
        #: sign of each weight relative to c; c takes the sign of beta
        self.others = np.prod(signs, axis=0) * signs[self.smallest, columns]
        self.signs = signs
        least = modulus[self.smallest, columns]
        # (a - b)(a + b): exact zeros stay zeros
        self.gaps = (modulus - least) * (modulus + least)
        if (self.gaps[modulus > least] < _TINY).any():
            raise ArithmeticError("weights are more than 1e150 apart")
        self.c = self.others * direction[self.smallest, columns]
        self.stuck = (modulus == 0).sum(axis=0) > 1
        kept = np.ones((depth, d), dtype=bool)
        kept[self.smallest, columns] = False
        self.squares = self.gaps.T[kept.T].reshape(d, depth - 1).T
        order = np.sort(self.squares, axis=0)
        keys = np.vstack([order, self.stuck])
        shapes, which = np.unique(keys, axis=1, return_inverse=True)
        self.which = which.ravel()
        #: of the dual above and below, in units of ``alpha^(2-L)``
        self._poles = product_thresholds(direction)
        self.shapes = [None if column[-1] else ProductShape(column[:-1]) for column in shapes.T]
        self.unit = self.unit.meeting(self.distance)

    @cached_property
    def distance(self) -> Array:
        """Distances from the start to both poles, (2, d)."""
        with np.errstate(over="ignore"):
            return np.stack(self._poles) * math.exp(-(self.depth - 2) * self.scale.log - self.log_unit)

    def separable(self) -> dict[str, Any]:
        side = np.repeat([[1.0], [-1.0]], self.d, axis=1)
        zero = np.zeros((2, self.d))
        return {
            "log_coefficient": zero,
            "sign": side,
            "slope": side,
            "decay": zero,
            "power": self.depth,
            "squares": self.squares * np.exp(2 * self.scale.log),
            "distance": self.distance,
            "log_unit": self.unit.near,
        }

    def state(self, z: Array) -> Array:
        above, below = self.distance
        return np.concatenate([above - z, below + z], axis=-1)

    def _logs(self, y: Array, farther: Array | float = 0.0) -> tuple[Array, Array]:
        """``ln |w|`` (T, L, d) and the sign of beta (T, d), with `farther` (T, d) added to logarithms of distances."""
        d, alpha = self.d, self.scale.log
        farther = np.broadcast_to(farther, (len(y), d))
        above, below = y[:, :d], y[:, d:]
        positive = above <= below
        sign = np.where(positive, 1.0, -1.0)
        near = np.minimum(above, below)
        log_c = np.empty_like(near)
        for number, shape in enumerate(self.shapes):
            here = self.which == number
            if shape is None:
                log_c[:, here] = log_abs(self.c[here])
                sign[:, here] = 1.0
            else:
                scaled = self.unit.log(near[:, here]) + (self.depth - 2) * alpha + farther[:, here]
                # A start so far from its pole that it never moves within the range of time.
                at_start = np.log(np.minimum(*self._poles))[here]
                scaled = np.where(np.isinf(near[:, here]), at_start, scaled)
                log_c[:, here] = shape.inverse(scaled.ravel()).reshape(scaled.shape)
        logs = alpha + np.logaddexp(2 * log_c[:, None, :], log_abs(self.gaps)) / 2
        return logs, sign

    def value(self, y: Array, t: Array | float) -> Array:
        logs, sign = self._logs(y)
        return sign * np.exp(logs.sum(axis=1))

    def slope(self, y: Array, t: Array | float) -> Array:
        """``sum_l (beta / w_l)^2``."""
        logs, _ = self._logs(y)
        slope = np.zeros(logs[:, 0].shape)
        for layer in range(self.depth):
            slope += np.exp(2 * np.delete(logs, layer, axis=1).sum(axis=1))
        return slope * math.exp(self.unit.near)

    def potential(self, y: Array) -> Array:
        """``c^2 / 2``: ``beta dz = c dc``."""
        logs, _ = self._logs(y)
        return np.exp(2 * logs[:, self.smallest, np.arange(self.d)] - self.unit.near) / 2

    def weights(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        logs, sign = self._logs(y)
        signs = np.broadcast_to(self.signs, logs.shape).copy()
        signs[:, self.smallest, np.arange(self.d)] = sign * self.others
        return signs * np.exp(logs), logs

    def conserved(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        log_pairs = self.law(np.zeros(len(y)))
        return np.sign(self.gaps[:1] - self.gaps[1:]) * np.exp(log_pairs), log_pairs

    def law(self, t: Array) -> Array:
        """Constants: the weights are computed from the conserved quantities."""
        log_pairs = 2 * self.scale.log + log_abs(self.gaps[:1] - self.gaps[1:])
        return np.broadcast_to(log_pairs, (len(t), *log_pairs.shape))
