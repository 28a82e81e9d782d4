r"""Weight noise that vanishes with the scale: the joint limit of products of L >= 3 weights.

With noise of standard deviation :math:`\eta = c\, \alpha^{(L-2)/(2(L-1))}` on every weight and
:math:`k_i = \sigma_i^2 c^{2(L-1)}`, waiting weights carry a factor :math:`e^{-k_i \tilde t}`, so that

.. math:: \dot s_i = -g_i\, e^{-(L-2) k_i \tilde t},

with the thresholds and the least-squares saddles of the process without noise. The remaining distance of a dual is
finite: at constant g a coordinate is trapped if and only if :math:`(L-2) k_i\, t_i^\pm \ge |g_i|`. On a plateau the
noise removes the imbalance of active coordinates, so that none changes sign afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.arrays import Array, Integers
from flowsim.growth.vanishing import is_product, order_of
from flowsim.limits.columns import Columns, SparseColumns
from flowsim.limits.diagonal import DiagonalProcess
from flowsim.limits.dual_bounds import DualBounds, network_bounds
from flowsim.limits.duals import DenseDuals, Hits
from flowsim.limits.path import SaddlePath
from flowsim.limits.start_state import StartState
from flowsim.network import DiagonalNetwork, GivenWeights
from flowsim.plain_numbers import finite
from flowsim.problem import Regression

#: Arrivals closer than this, relative to the wait, form one jump.
_TIE = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class JointPath(SaddlePath):
    """A limit path with noise that vanishes with the scale.

    Attributes
    ----------
    drain : array (d,)
        ``(L - 2) k_i``: the dual of coordinate i moves at ``-g_i exp(-drain_i t)``.
    trapped : array of int
        Coordinates with a gradient other than 0 that the noise keeps at 0.
    """

    drain: Array = field(default_factory=lambda: np.zeros(1))
    trapped: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def dual(self, t: ArrayLike) -> Array:
        r""":math:`s(t) = -\int_0^t g\, e^{-(L-2) k s} ds`, shapes as in :meth:`beta`."""
        times = self._check_times(t)
        rows = []
        for end in np.atleast_1d(times):
            s = np.zeros(self.problem.d)
            edges = [0.0, *self.jump_times[self.jump_times < end].tolist(), float(end)]
            for begin, stop, beta in zip(edges[:-1], edges[1:], self.saddles, strict=False):
                s -= self.problem.gradient(beta) * _travelled(self.drain, begin, stop - begin)
            rows.append(s)
        return rows[0] if times.ndim == 0 else np.array(rows)

    def state(self, t: float) -> StartState:
        """Not defined: a continuation would need noise of another strength."""
        raise ValueError("`state` is not defined for the joint limit: noise and scale vanish together.")


def joint_process(
    net: DiagonalNetwork,
    problem: Regression,
    start: GivenWeights | None,
    strength: float,
    max_jumps: int | None,
    t_end: float,
    progress: bool,
) -> JointPath:
    """The joint limit process; `strength` is c."""
    order = order_of(net)
    if order < 3 or not is_product(net):
        raise ValueError("`joint_noise` is for products of three weights or more.")
    if net.noise is not None or net.weight_decay:
        raise ValueError("`joint_noise` and the noise or weight decay of the network exclude each other.")
    strength = finite("joint_noise", strength, above=0.0)
    process = _JointProcess(problem, network_bounds(net, problem, start, None, None), order, strength)
    path = process.run(max_jumps, t_end, progress)
    trapped = process.trapped()
    if path.complete and len(trapped):
        path = replace(path, message=f"the noise traps what is left ({len(trapped)})")
    parts = {each.name: getattr(path, each.name) for each in fields(path)}
    return JointPath(**parts, drain=process.drain, trapped=trapped)


class _JointProcess(DiagonalProcess):
    """The process without noise, but for its duals."""

    def __init__(self, problem: Regression, bounds: DualBounds, order: int, strength: float) -> None:
        super().__init__(problem, bounds, None)
        self.drain = (order - 2) * problem.feature_variances * strength ** (2 * (order - 1))
        # A rate in the time of the scaled data, like a penalty.
        drain = self.units.cost(self.drain)[self.columns.number(np.arange(self.columns.d))]
        self.duals = self.slowed = SlowedDuals(self.columns, self.bounds, drain, self.rounding)

    def trapped(self) -> Integers:
        """Coordinates that move towards a bound they do not reach."""
        gaps, waits, _ = self.slowed.waits(self.t, self.cone.residual, self.flags)
        return self.columns.number(np.flatnonzero(np.isfinite(gaps) & np.isinf(waits)))


class SlowedDuals(DenseDuals):
    """Duals that move at ``-g exp(-drain t)``."""

    def __init__(self, columns: Columns | SparseColumns, bounds: DualBounds, drain: Array, rounding: Array) -> None:
        super().__init__(columns, bounds, rounding)
        self.drain, self.t = drain, 0.0
        self.upper, self.lower = (np.array(side) for side in bounds.thresholds)

    def next(self, t: float, residual: Array, flags: NDArray[np.uint8], age: float) -> Hits:
        """As :meth:`DenseDuals.next`."""
        _, waits, signs = self.waits(t, residual, flags)
        wait = float(waits.min(initial=math.inf))
        found = np.flatnonzero(waits <= wait * (1 + _TIE)) if math.isfinite(wait) else np.empty(0, np.int64)
        return wait, found, signs[found]

    def waits(self, t: float, residual: Array, flags: NDArray[np.uint8]) -> tuple[Array, Array, Integers]:
        """Distances to the bounds in the direction of -g, inf at a bound or if g is rounding; waits; the bounds."""
        self.t, self.g = t, self.gradient(residual)
        # Active weights are balanced by the noise: they do not change sign.
        self.upper[flags == 2], self.lower[flags == 1] = math.inf, math.inf
        signs = np.where(self.g < 0, 1, -1)
        gaps = np.maximum(np.where(signs > 0, self.upper - self.s, self.lower + self.s), 0.0)
        stands = (flags & np.where(signs > 0, 1, 2)) != 0
        gaps[stands | (np.abs(self.g) <= self.rounding)] = math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = gaps / np.abs(self.g)
            # The remaining distance is |g| exp(-drain t) / drain.
            share = plain * self.drain * np.exp(self.drain * t)
            slowed = np.where(share < 1, -np.log1p(-np.minimum(share, 1.0)) / self.drain, math.inf)
        return gaps, np.where(np.isinf(gaps), math.inf, np.where(self.drain > 0, slowed, plain)), signs

    def advance(self, wait: float) -> None:
        """As :meth:`flowsim.limits.duals.DenseDuals.advance`."""
        self.s -= self.g * _travelled(self.drain, self.t, wait)


def _travelled(drain: Array, begin: float, wait: float) -> Array:
    """``int exp(-drain t) dt`` over [begin, begin + wait]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slowed = np.exp(-drain * begin) * -np.expm1(-drain * wait) / drain
    return np.where(drain > 0, slowed, wait)
