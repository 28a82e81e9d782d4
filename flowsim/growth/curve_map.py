"""Growth along tabulated curves: any formula that no other growth map takes, without noise."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.growth.curve import Curve, Side
from flowsim.growth.curve_table import CurveTable, curve_table, primitives, read_potential, read_table, read_weights
from flowsim.growth.resolved_curves import total_change
from flowsim.network import DiagonalNetwork, Formula, InitialScale

#: Tables are extended beyond the point needed by this part of their length.
_AHEAD = 0.1
#: Coefficients are tabulated to this many times the size of those that fit the data.
_FARTHER = 1e10
#: Weights whose total change is below this are constant.
_STILL = 1e-10
#: The integrator rejects a step whose prediction is off by more than this, in logarithms of weights.
_CORRECTED = 0.5
#: By how much predictions may approach the end of a table that cannot be continued.
_NEARER = 0.25


class OnCurves:
    """What growth maps have in common whose weights are read off the curve of their start: constant invariants."""

    log_unit = 0.0
    is_constant = True
    is_damped = False
    name = "curve"

    def __init__(self, net: DiagonalNetwork, scale: InitialScale, direction: Array) -> None:
        self.net, self.scale, self.direction = net, scale, direction
        self.kinds = net.kinds(direction.shape[1])
        #: of every curve: its formula, where it starts, and the rows of its weights among the network's
        self.starts: list[tuple[Formula, Array]] = []
        self.rows: list[Integers] = []
        #: (d,), the curve of each coordinate
        self.which = np.zeros(direction.shape[1], dtype=np.int64)
        for formula, rows, here in net.parts(direction.shape[1]):
            columns, inverse = np.unique(direction[np.ix_(rows, here)], axis=1, return_inverse=True)
            self.which[here] = len(self.starts) + inverse.ravel()
            self.starts += [(formula, column) for column in columns.T]
            self.rows += [rows] * columns.shape[1]

    @cached_property
    def _kernels(self) -> Any:
        from flowsim.symbolic import kernels

        return kernels(self.net)

    @property
    def invariants(self) -> tuple[str, ...]:
        return self._kernels.invariant_names

    @cached_property
    def _at_start(self) -> tuple[Array, Array]:
        return _invariants_at(self._kernels, self.net, self.scale, self.direction)

    def conserved(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        value, logs = (np.repeat(part[None], len(y), axis=0) for part in self._at_start)
        return value, logs

    def law(self, t: Array) -> Array:
        return np.repeat(self._at_start[1][None], len(t), axis=0)


class CurveMap(OnCurves):
    """``beta_i = B_i(z_i)``, one curve for all coordinates of the same formula and start.

    A :class:`flowsim.growth.protocol.GrowthMap`; its states are z.

    Raises ValueError if a formula is undefined at the start.

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`admits_curves` is None.
    direction : array (k, d)
        The start is alpha times this.
    size : float
        Of the coefficients that fit the data; curves are tabulated far beyond that.
    reach : float
        Bound on |z|: coordinates that wait for longer are constant.
    """

    def __init__(
        self, net: DiagonalNetwork, scale: InitialScale, direction: Array, size: float = 1.0, reach: float = math.inf
    ) -> None:
        super().__init__(net, scale, direction)
        self._reach: Array = np.zeros((2, direction.shape[1]))
        self.curves: list[Curve] = []
        for formula, column in self.starts:
            curve = Curve(formula, np.ascontiguousarray(column), scale.log, _FARTHER * size)
            if curve.origin.order > 2 and total_change(formula, scale, column, reach) <= _STILL:
                curve.stand()
            curve.farthest = max(curve.farthest, _FARTHER * curve.extent, np.finfo(float).tiny)
            if not math.isfinite(curve.above.beta):
                raise ValueError(
                    f"`start` puts the formula {formula.text!r} where it is undefined: its weights are "
                    f"{scale} times {column.tolist()}."
                )
            self.curves.append(curve)
        self.base = np.array([curve.constant for curve in self.curves])[self.which]
        self.shift = np.zeros(1)
        self._table: CurveTable | None = None
        self._seen: tuple[float, tuple[Array, Array, Array, Array]] | None = None

    @cached_property
    def size(self) -> int:
        """Weights of the longest curve."""
        return max(map(len, self.rows))

    @cached_property
    def rate(self) -> float:
        """Fastest relative growth of weights by z, at the origin."""
        return max((float(np.abs(curve.origin.rate).max()) for curve in self.curves), default=1.0) or 1.0

    def _covering(self, z: Array) -> CurveTable:
        """A table that holds z (P, d) as far as curves go."""
        low, high = z.min(axis=0), z.max(axis=0)
        if self._table is not None and ((low >= self._reach[0]) & (high <= self._reach[1])).all():
            return self._table
        before = sum(len(side.pieces) for curve in self.curves for side in (curve.below, curve.above))
        for curve, least, most in zip(self.curves, *self._extremes(low, high), strict=True):
            if least < curve.below.end or most > curve.above.end or not curve.above.pieces:
                curve.cover(least * (1 + _AHEAD), most * (1 + _AHEAD))
        after = sum(len(side.pieces) for curve in self.curves for side in (curve.below, curve.above))
        if self._table is None or after > before:
            self._table = curve_table(self.curves, self.size)
        ends = np.array([[_reach(curve.below), _reach(curve.above)] for curve in self.curves])
        self._reach = ends[self.which].T
        return self._table

    @property
    def table(self) -> CurveTable:
        """The curves as far as they are tabulated."""
        return self._covering(np.zeros((1, len(self.which)))) if self._table is None else self._table

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """B and B' at z (..., d)."""
        flat = np.ascontiguousarray(z, dtype=float).reshape(-1, len(self.which))
        beta, slope = np.empty(flat.size), np.empty(flat.size)
        table = self._covering(flat)
        read_table(table, np.tile(self.which, len(flat)), flat.ravel(), beta, slope)
        return beta.reshape(z.shape), slope.reshape(z.shape)

    def state(self, z: Array) -> Array:
        return z

    def value(self, y: Array, t: Array | float) -> Array:
        return self(y)[0]

    def slope(self, y: Array, t: Array | float) -> Array:
        return self(y)[1]

    def potential(self, y: Array) -> Array:
        potential, table = np.empty(y.size), self._covering(y)
        read_potential(table, primitives(table), np.tile(self.which, len(y)), np.ravel(y), potential)
        return potential.reshape(y.shape)

    def weights(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        z = y
        table = self._covering(z)
        own, logs = (np.empty((self.size, z.size)) for _ in range(2))
        which = np.tile(self.which, len(z))
        with np.errstate(divide="ignore"):
            read_weights(table, which, np.ascontiguousarray(z).ravel(), own, logs)
            # Weights that a coordinate's formula does not use are constant.
            out = np.repeat((self.scale.value * self.direction)[None], len(z), axis=0)
            all_logs = np.repeat((self.scale.log + np.log(np.abs(self.direction)))[None], len(z), axis=0)
        own, logs = (np.moveaxis(part.reshape(self.size, *z.shape), 0, 1) for part in (own, logs))
        for number, rows in enumerate(self.rows):
            here = np.flatnonzero(self.which == number)
            for place, row in enumerate(rows):
                out[:, row, here], all_logs[:, row, here] = own[:, place, here], logs[:, place, here]
        return out, all_logs

    def _extremes(self, low: Array, high: Array) -> tuple[list[float], list[float]]:
        lowest, highest = np.zeros(len(self.curves)), np.zeros(len(self.curves))
        np.minimum.at(lowest, self.which, low)
        np.maximum.at(highest, self.which, high)
        return lowest.tolist(), highest.tolist()

    def separable(self) -> dict[str, Any]:
        ones = np.ones((1, len(self.which)))
        return {
            "log_coefficient": 2.0 * min(self.scale.log, 0.0) * ones,
            "sign": ones,
            "slope": 2.0 * self.rate * ones,
            "decay": 0.0 * ones,
            "curves": NativeCurves(self),
        }

    def until_visible(self, z: Array, t: float, speed: Array, level: float, past: float) -> float:
        if self._seen is None or self._seen[0] != level:
            self._seen = level, self._visible_at(level)
        below, above, slow, fast = self._seen[1]
        limit = np.inf
        for sign, ends, rates in ((-1.0, below, slow), (1.0, above, fast)):
            left = sign * (ends - z)
            hidden = (left > 0) & (sign * speed > 0)
            if hidden.any():
                limit = min(limit, float(((left + past / rates)[hidden] / np.abs(speed[hidden])).min()))
        return limit

    def _visible_at(self, level: float) -> tuple[Array, Array, Array, Array]:
        """z at which coordinates that grow out of the origin reach a coefficient, below and above, and the rates there.

        All (d,); infinite where a side is not reached so.
        """
        below, above = np.full(len(self.curves), -np.inf), np.full(len(self.curves), np.inf)
        slow, fast = np.ones(len(self.curves)), np.ones(len(self.curves))
        for number, curve in enumerate(self.curves):
            for side, ends, rates in ((curve.below, below, slow), (curve.above, above, fast)):
                found = side.growth(level)
                if found is not None:
                    ends[number], rates[number] = found
        return below[self.which], above[self.which], slow[self.which], fast[self.which]

    def range_error(self, z: Array, t: float) -> str | None:
        self._covering(z[None])
        lowest, highest = self._extremes(z, z)
        for number, curve in enumerate(self.curves):
            for side in (curve.below, curve.above):
                past = np.flatnonzero((self.which == number) & (side.sign * (z - side.end) > 0))
                if not past.size or side.ended == "rest":
                    continue
                if side.ended == "saddle":
                    return (
                        f"coordinate {past[0]} has reached a critical point of its formula, at {side.beta:.6g}, and "
                        "would leave it in a direction that is lost to rounding"
                    )
                return f"coordinate {past[0]} left the range of its formula at {side.beta:.3g}; tighten `rtol`"
            # From a state inside, the map may be evaluated some way ahead.
            curve.record_range(lowest[number], highest[number])
        return None


def _invariants_at(own: Any, net: DiagonalNetwork, scale: InitialScale, direction: Array) -> tuple[Array, Array]:
    """The conserved quantities at ``alpha * direction``: values and logarithms of their moduli, (p, d)."""
    d = direction.shape[1]
    value, double = (np.zeros((len(own.invariant_names), d)) for _ in range(2))
    kinds = net.kinds(d)
    start = np.ascontiguousarray(direction)
    own.invariants(start, kinds, value)
    own.invariants(2.0 * start, kinds, double)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        power = np.log2(double / value)
        homogeneous = np.abs(power - np.round(power)) < 1e-12
        logs = np.where(homogeneous, np.round(power) * scale.log, np.nan) + np.log(np.abs(value))
        if not homogeneous.all():
            exact = np.zeros_like(value)
            own.invariants(np.ascontiguousarray(scale.value * start), kinds, exact)
            logs = np.where(homogeneous, logs, np.log(np.abs(exact)))
            value = np.where(homogeneous, value, exact)
        return np.sign(value) * np.exp(logs), logs


def _reach(side: Side) -> float:
    return side.sign * math.inf if side.ended else side.end


class NativeCurves:
    """The :class:`~flowsim.solvers.separable.curves.Curves` of a map."""

    def __init__(self, curves: CurveMap) -> None:
        self.map, self._margin = curves, _CORRECTED
        around = np.full(len(curves.which), 1.0 / curves.rate)
        curves(np.stack([-around, around]))

    def __call__(self, z: Array) -> tuple[Array, Array]:
        return self.map(z)

    def __reduce__(self) -> Any:
        return NativeCurves, (self.map,)

    def arrays(self) -> dict[str, Any]:
        table, curves = self.map.table, self.map.curves
        owner = np.repeat(np.arange(len(curves)), np.diff(table.first))
        beta = table.beta.copy()
        beta[:, 0] -= table.constant[owner]
        margin = self._margin / self.map.rate
        ends = np.array([[_end(curve.below, margin), _end(curve.above, margin)] for curve in curves])
        least, most = ends.T
        return table._asdict() | {"beta": beta, "least": least, "most": most, "which": self.map.which}

    def cover(self, here: Array, low: Array, high: Array) -> str | None:
        found = self.map.range_error(here, 0.0)
        if found is None:
            before = len(self.map.table.low)
            self.map(np.stack([low, high]))
            if len(self.map.table.low) == before:
                # The formula is singular at finite z: the table ends there.
                self._margin *= _NEARER
        return found


def _end(side: Side, margin: float) -> float:
    """How far predictions may go: corrections go a little beyond."""
    if side.ended:
        return side.sign * math.inf if side.ended == "rest" else side.end
    return side.end - side.sign * min(margin, abs(side.end) / 2)
