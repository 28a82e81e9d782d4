r"""Growth of any formula of order L >= 3 at vanishing scale, by the distances of its dual from the blow-ups.

.. math:: Y_i^\pm = T_i^\pm \mp z_i .

They are ``alpha^(2 - L)`` at the start and of order 1 where weights are; only their ratios matter
(:mod:`flowsim.growth.blow_up`). Where ``alpha^(L - 2)`` underflows, they and time have units of their own.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.blow_up import FARTHER, grow
from flowsim.growth.branch import Branch
from flowsim.growth.curve_map import OnCurves
from flowsim.growth.distance_unit import DistanceUnit
from flowsim.growth.formula_origin import value_at
from flowsim.growth.homogeneous import scaled_series
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.solvers.power_laws import Branches
from flowsim.symbolic.series import SingularError

#: Coefficients below this are zero to the integrator.
_SEEN = math.log(1e-250)


def admits_blow_up(net: DiagonalNetwork, scale: InitialScale) -> str | None:
    """None if distances from blow-ups are exact for the growth, else the reason why not."""
    if net.is_noisy:
        return "with noise the weights leave their curve"
    if net.weight_decay:
        return "with weight decay the weights leave their curve"
    try:
        orders = {scaled_series(formula).order for formula in net.distinct}
    except SingularError:
        return "it is not analytic at the origin"
    if len(orders) > 1:
        return f"formulas of orders {sorted(orders)} have time scales of their own"
    (order,) = orders
    if order < 3:
        return "it grows at once"
    return None


class BlowUpMap(OnCurves):
    """A :class:`flowsim.growth.protocol.GrowthMap`; states are distances above and below, (T, 2 d), inf without one.

    Raises ArithmeticError if the growth of a coordinate is not known, or starts are too far apart.
    `net`: one for which :func:`admits_blow_up` is None; `direction` (k, d): the start is alpha times this; `size`: of
    the coefficients that fit the data; `clock`: the alpha of the accelerated clock, if it is another one.
    """

    def __init__(
        self,
        net: DiagonalNetwork,
        scale: InitialScale,
        direction: Array,
        size: float = 1.0,
        clock: InitialScale | None = None,
    ) -> None:
        super().__init__(net, scale, direction)
        self.d = direction.shape[1]
        self.order = scaled_series(net.distinct[0]).order
        self.unit = DistanceUnit.of(self.order, clock or scale)
        self.log_unit = self.unit.wait
        self.shift = np.zeros(1)
        self.base = np.array([value_at(formula, np.zeros(len(formula.weights))) for formula in net.distinct])[
            self.kinds
        ]
        self.curves: list[tuple[Branch, Branch]] = []
        for formula, column in self.starts:
            above, below = (grow(formula, column, scale.log, sign, FARTHER * (size or 1.0)) for sign in (1.0, -1.0))
            self.curves.append((above, below))
        self.unit = self.unit.meeting(self.distance)

    @cached_property
    def _moves(self) -> Array:
        """Rate of change of the distances with z, (2, C); 0 for a side without a blow-up."""
        return np.array([[branch.slope for branch in pair] for pair in self.curves]).T

    @cached_property
    def distance(self) -> Array:
        """Distances at the start, (2, C), in units of exp(log_unit)."""
        start = np.array([[branch.start for branch in pair] for pair in self.curves]).T
        with np.errstate(over="ignore"):
            distance = start * math.exp(-(self.order - 2) * self.scale.log - self.log_unit)
        return np.where(self._moves > 0, distance, np.inf)

    def separable(self) -> dict[str, Any]:
        moves, zero = self._moves[:, self.which], np.zeros((2, self.d))
        side = np.repeat([[1.0], [-1.0]], self.d, axis=1)
        return {
            "log_coefficient": zero,
            "sign": side,
            "slope": side * np.where(moves > 0, moves, 1.0),
            "decay": zero,
            "power": self.order,
            "branches": self._tables(),
            "distance": self.distance[:, self.which],
            "log_unit": self.unit.near,
        }

    def _tables(self) -> Branches:
        low, high, size, fall, first, rests = [], [], [], [], [0], []
        for branch in (branch for side in (0, 1) for branch in (pair[side] for pair in self.curves)):
            chain, L = branch.outer, branch.order
            for p in range(len(chain.low) - 1, -1, -1):
                if L * chain.log_scale[p] < _SEEN:
                    continue
                low.append(chain.low[p])
                high.append(chain.high[p])
                size.append(chain.size[p] * math.exp(L * chain.log_scale[p]))
                fall.append(chain.slope[p] * math.exp((2 * L - 2) * chain.log_scale[p]) / branch.slope)
            first.append(len(low))
            rests.append(int(branch.rests))
        width = len(size[0]) if size else 1
        table = np.stack([self.which, len(self.curves) + self.which])
        return Branches(
            branch=np.where((np.diff(first) > 0)[table], table, -1).astype(np.int64),
            first=np.array(first, dtype=np.int64),
            rests=np.array(rests, dtype=np.int64),
            low=np.array(low),
            high=np.array(high),
            size=np.array(size).reshape(-1, width),
            fall=np.array(fall).reshape(-1, width),
        )

    def state(self, z: Array) -> Array:
        moves = np.where(self._moves > 0, self._moves, 1.0)[:, self.which]
        above, below = self.distance[:, self.which]
        return np.concatenate([above - moves[0] * z, below + moves[1] * z], axis=-1)

    def _read(self, y: Array) -> tuple[Array, Array, Array, Array]:
        """Signs and ln of the moduli (k, T, d) of the weights; ``beta - phi(0)`` and ``ln dB/dz``, (T, d), unit 1."""
        d = self.d
        idle = self.scale.log + np.log(np.maximum(np.abs(self.direction), np.finfo(float).tiny))
        sign = np.repeat(np.sign(self.direction)[:, None], len(y), axis=1)
        logs = np.repeat(np.where(self.direction != 0, idle, -np.inf)[:, None], len(y), axis=1)
        beta, slope = np.empty((len(y), d)), np.empty((len(y), d))
        for number in range(len(self.curves)):
            here = np.flatnonzero(self.which == number)
            found = self._read_curve(number, y[:, here].ravel(), y[:, d + here].ravel())
            for place, row in enumerate(self.rows[number]):
                sign[row][:, here] = found[0][place].reshape(len(y), -1)
                logs[row][:, here] = found[1][place].reshape(len(y), -1)
            beta[:, here], slope[:, here] = (part.reshape(len(y), -1) for part in found[2:])
        return sign, logs, beta, slope

    def _read_curve(self, number: int, above: Array, below: Array) -> list[Array]:
        """The same of one curve at distances (P,)."""
        start, moves = self.distance[:, number], self._moves[:, number]
        up = above <= start[0] if moves[0] else below >= start[1]
        k, count = len(self.rows[number]), len(above)
        out = [np.empty((k, count)), np.empty((k, count)), np.empty(count), np.empty(count)]
        for side, chosen in ((0, up), (1, ~up)):
            if not chosen.any():
                continue
            own, other = (above, below)[side][chosen], (below, above)[side][chosen]
            if not moves[side]:
                # Beyond the start: the distance is read on the other side.
                travelled = (other - start[1 - side]) / moves[1 - side] if moves[1 - side] else np.zeros(len(other))
                own = np.maximum(travelled, 0.0)
            for part, value in zip(out, self.curves[number][side].read(self.unit, own), strict=True):
                part[..., chosen] = value
        return out

    def value(self, y: Array, t: Array | float) -> Array:
        return self.base + self._read(y)[2]

    def slope(self, y: Array, t: Array | float) -> Array:
        return np.exp(self._read(y)[3] + self.unit.near)

    def weights(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        sign, logs, _, _ = self._read(y)
        return np.moveaxis(sign * np.exp(logs), 0, 1), np.moveaxis(logs, 0, 1)
