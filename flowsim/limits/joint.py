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
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.arrays import Array
from flowsim.errors import IntegrationError
from flowsim.growth.vanishing import is_product, order_of, thresholds_and_rates
from flowsim.limits.columns import Columns
from flowsim.limits.path import SaddlePath
from flowsim.limits.start_state import StartState
from flowsim.network import DiagonalNetwork
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
    trapped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

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
    start: Mapping[str, ArrayLike] | None,
    strength: float,
    max_jumps: int | None,
    t_end: float,
) -> JointPath:
    """The joint limit process; `strength` is c."""
    began = time.perf_counter()
    order = order_of(net)
    if order < 3 or not is_product(net):
        raise ValueError("`joint_noise` is for products of three weights or more.")
    if net.noise is not None or net.weight_decay:
        raise ValueError("`joint_noise` and the noise or weight decay of the network exclude each other.")
    if isinstance(strength, bool) or not 0 < float(strength) < math.inf:
        raise ValueError(f"`joint_noise` must be > 0 and finite; received {strength!r}.")
    direction = net.direction(start, problem.d)
    thresholds = thresholds_and_rates(net, direction, problem.d)[:2]
    drain = (order - 2) * problem.feature_variances * float(strength) ** (2 * (order - 1))
    run = _Joint(problem, thresholds, drain)
    horizon, complete, message = run.follow(max_jumps, t_end)
    return JointPath(
        problem=problem,
        jump_times=np.array(run.times),
        supports=tuple(run.supports),
        values=tuple(run.values),
        hits=tuple(run.hits),
        horizon=horizon,
        complete=complete,
        message=message,
        thresholds=thresholds,
        penalties=(np.zeros(problem.d), np.zeros(problem.d)),
        speeds=(np.full(problem.d, float(order)), np.full(problem.d, float(order))),
        order=order,
        stats={"jumps": len(run.times), "seconds": time.perf_counter() - began},
        drain=drain,
        trapped=run.trapped(),
    )


class _Joint:
    """State of one run."""

    def __init__(self, problem: Regression, thresholds: tuple[Array, Array], drain: Array) -> None:
        from flowsim.solvers.active_set import ConeRegression, relative_rounding, scaled_norm

        self.problem, self.drain, columns = problem, drain, Columns(problem)
        self.upper, self.lower = (np.array(side) for side in thresholds)
        self.s = np.zeros(problem.d)
        self.standing = np.zeros((2, problem.d), dtype=bool)  # at the upper, at the lower bound
        self.cone: ConeRegression[tuple[int, int]] = ConeRegression(
            problem.y, lambda key: key[1] * columns.column(key[0])
        )
        self.rounding = relative_rounding(problem.n) * columns.norms / problem.n * scaled_norm(problem.y)
        self.t = 0.0
        self.times: list[float] = []
        self.hits: list[NDArray[np.int64]] = []
        self.supports: list[NDArray[np.int64]] = []
        self.values: list[Array] = []
        self._keep()

    def follow(self, max_jumps: int | None, t_end: float) -> tuple[float, bool, str]:
        while True:
            g = self._gradient()
            waits = self._waits(g)
            wait = float(waits.min(initial=math.inf))
            if math.isinf(wait):
                some = len(self.trapped())
                return math.inf, True, f"the noise traps what is left ({some})" if some else "reached the minimiser"
            if not self.t + wait < t_end:
                return t_end, False, f"stopped at t_end={t_end:g}"
            if max_jumps is not None and len(self.times) >= max_jumps:
                return self.t + wait, False, f"stopped after max_jumps={max_jumps}"
            found = np.flatnonzero(waits <= wait * (1 + _TIE))
            self.s -= g * _travelled(self.drain, self.t, wait)
            self.t += wait
            self._jump(found, np.where(g[found] < 0, 1, -1))
            self.times.append(self.t)
            self.hits.append(found)

    def _gradient(self) -> Array:
        return -np.asarray(self.problem.X.T @ self.cone.residual) / self.problem.n

    def _gaps(self, g: Array) -> Array:
        """Distances to the bound in the direction of -g; inf at the bound, or where g is rounding."""
        up = g < 0
        gap = np.maximum(np.where(up, self.upper - self.s, self.lower + self.s), 0.0)
        at = np.where(up, self.standing[0], self.standing[1])
        return np.where(at | (np.abs(g) <= self.rounding), math.inf, gap)

    def _waits(self, g: Array) -> Array:
        gap = self._gaps(g)
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = gap / np.abs(g)
            # The remaining distance is |g| exp(-drain t) / drain.
            share = plain * self.drain * np.exp(self.drain * self.t)
            slowed = np.where(share < 1, -np.log1p(-np.minimum(share, 1.0)) / self.drain, math.inf)
        return np.where(np.isinf(gap), math.inf, np.where(self.drain > 0, slowed, plain))

    def trapped(self) -> NDArray[np.int64]:
        """Coordinates that move towards a bound they do not reach."""
        g = self._gradient()
        return np.flatnonzero(np.isfinite(self._gaps(g)) & np.isinf(self._waits(g)))

    def _jump(self, coordinates: NDArray[np.int64], signs: NDArray[np.int64]) -> None:
        for i, sign in zip(coordinates.tolist(), signs.tolist(), strict=True):
            side = 0 if sign > 0 else 1
            self.standing[side, i] = True
            self.s[i] = self.upper[i] if sign > 0 else -self.lower[i]
            # Active weights are balanced by the noise: they do not change sign.
            (self.lower if sign > 0 else self.upper)[i] = math.inf
        try:
            self.cone.solve([((int(i), int(sign)), 0.0) for i, sign in zip(coordinates, signs, strict=True)])
        except ArithmeticError as error:
            raise IntegrationError(f"the saddle at accelerated time {self.t:.6g} cannot be found: {error}.") from error
        for key in list(self.cone.waiting):
            if self.cone.excess(key) < -1.0:
                self.cone.dismiss(key)
                self.standing[0 if key[1] > 0 else 1, key[0]] = False
        self._keep()

    def _keep(self) -> None:
        keys = self.cone.members
        order = np.argsort([i for i, _ in keys]).astype(int)
        self.supports.append(np.array([keys[place][0] for place in order], dtype=np.int64))
        self.values.append(np.array([self.cone.b[place] * keys[place][1] for place in order]))


def _travelled(drain: Array, begin: float, wait: float) -> Array:
    """``int exp(-drain t) dt`` over [begin, begin + wait]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slowed = np.exp(-drain * begin) * -np.expm1(-drain * wait) / drain
    return np.where(drain > 0, slowed, wait)
