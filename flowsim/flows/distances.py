r"""Any formula of order L >= 3 at vanishing scale, by the distances of its dual from where it would blow up.

.. math:: Y_i^\pm = T_i^\pm \mp z_i, \qquad z = -\int g\,dt .

They are ``alpha^(2 - L)`` at the start and of order 1 where weights are; only their ratios count
(:mod:`flowsim.growth.blow_up`). Where ``alpha^(L - 2)`` is no float, they and time are counted in a larger unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.coordinates import Observed
from flowsim.flows.curves import conserved_at
from flowsim.growth.blow_up import FARTHER, grow
from flowsim.growth.branch import Branch
from flowsim.growth.formula_origin import value_at_origin
from flowsim.growth.homogeneous import leading_of
from flowsim.growth.series import SingularError
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem, Regression
from flowsim.solvers import SeparableFlow, SeparableSolution, integrate_separable
from flowsim.solvers.power_laws import Branches
from flowsim.symbolic import kernels

__all__ = ["BlowUpCoordinates", "admits_blow_up"]

Array = NDArray[np.float64]

#: ln of the longest distance at alpha, and of the largest unit of z and time.
_FARTHEST, _UNIT = math.log(1e300), math.log(1e302)
#: Coefficients below this are none to the integrator.
_SEEN = math.log(1e-250)


def admits_blow_up(net: DiagonalNetwork, problem: Problem, scale: InitialScale) -> str | None:
    """None if distances from blow-ups are exact for the flow, else the reason why not."""
    if net.noise is not None and net.noise.stds(net.weights).any():
        return "noise drives the weights off their curve"
    if net.weight_decay:
        return "weight decay pulls the weights off their curve"
    if not isinstance(problem, Regression):
        return "its time scale is resolved with squares alone"
    try:
        orders = {leading_of(formula).order for formula in net.distinct}
    except SingularError:
        return "it is not analytic at the origin"
    if len(orders) > 1:
        return f"formulas of orders {sorted(orders)} have time scales of their own"
    (order,) = orders
    if order < 3:
        return "it grows at once"
    if (order - 2) * -scale.log - _FARTHEST > _UNIT:
        return f"alpha^{order - 2} is below 1e-600"
    return None


class BlowUpCoordinates:
    """The flow in the distances (2 d,) of every coordinate from the blow-ups above and below.

    Parameters
    ----------
    net : DiagonalNetwork
        One for which :func:`admits_blow_up` is None.
    problem : Regression
    scale : InitialScale
    direction : array (k, d)
        The start is alpha times this.

    Raises
    ------
    ArithmeticError
        If the growth of a coordinate is not known.
    """

    name = "curve"

    def __init__(self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array) -> None:
        self.net, self.problem, self.scale, self.direction = net, problem, scale, direction
        self.kernels = kernels(net)
        self.invariants = self.kernels.invariant_names
        self.order = leading_of(net.distinct[0]).order
        self.log_unit = max(0.0, (self.order - 2) * -scale.log - _FARTHEST)
        kinds = net.kinds(problem.d)
        pull, norms = np.abs(problem.rmatvec(problem.slopes(np.zeros(problem.n)))), problem.column_norms
        size = float(np.divide(pull, norms**2, out=np.zeros(problem.d), where=norms > 0).max()) or 1.0
        self.curves: list[tuple[Branch, Branch]] = []
        self.rows: list[list[int]] = []
        self.which = np.full(problem.d, -1, dtype=np.int64)
        self.constant = np.zeros(problem.d)
        for kind, formula in enumerate(net.distinct):
            here = np.flatnonzero(kinds == kind)
            rows = [net.weights.index(name) for name in formula.weights]
            self.constant[here] = value_at_origin(formula)
            chosen: Any = direction[np.ix_(np.array(rows), here)]
            starts, inverse = np.unique(chosen, axis=1, return_inverse=True)
            self.which[here] = len(self.curves) + inverse.ravel()
            for column in starts.T:
                self.rows.append(rows)
                self.curves.append(
                    tuple(grow(formula, column, scale.log, sign, FARTHER * size) for sign in (1.0, -1.0))  # type: ignore[arg-type]
                )

    @cached_property
    def _start(self) -> tuple[Array, Array]:
        """Distances (2, C) of the curves, in the unit of z, and what z moves them by; inf and 0 if there are none."""
        start = np.array([[branch.start for branch in pair] for pair in self.curves]).T
        slope = np.array([[branch.slope for branch in pair] for pair in self.curves]).T
        with np.errstate(over="ignore"):
            distance = start * math.exp(-(self.order - 2) * self.scale.log - self.log_unit)
        return np.where(slope > 0, distance, np.inf), slope

    @cached_property
    def flow(self) -> SeparableFlow:
        """The flow as the native integrator takes it."""
        problem, d = self.problem, self.problem.d
        distance, slope = (part[:, self.which] for part in self._start)
        side = np.repeat([[1.0], [-1.0]], d, axis=1)
        shift = np.asarray(problem.X @ self.constant) if self.constant.any() else 0.0
        return SeparableFlow(
            A=problem.X,
            b=problem.y - shift,
            n=problem.n,
            log_coefficient=np.zeros((2, d)),
            sign=side,
            slope=side * np.where(slope > 0, slope, 1.0),
            decay=np.zeros((2, d)),
            column_norms=problem.column_norms,
            power=self.order,
            branches=self._tables(),
            distance=distance,
            log_unit=self.log_unit,
        )

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
        count = len(self.curves)
        table = np.stack([self.which, count + self.which])
        has = np.diff(first) > 0
        return Branches(
            branch=np.where(has[table], table, -1).astype(np.int64),
            first=np.array(first, dtype=np.int64),
            rests=np.array(rests, dtype=np.int64),
            low=np.array(low),
            high=np.array(high),
            size=np.array(size).reshape(-1, width),
            fall=np.array(fall).reshape(-1, width),
        )

    def integrate(
        self,
        t_end: float,
        *,
        rtol: float,
        max_steps: int,
        progress: Callable[[float], None] | None = None,
        done: Callable[[SeparableSolution], bool] | None = None,
    ) -> SeparableSolution:
        """Integrate natively over [0, t_end]."""
        return integrate_separable(self.flow, t_end, tol=rtol, max_steps=max_steps, progress=progress, done=done)

    def _read(self, y: Array) -> tuple[Array, Array, Array, Array]:
        """Signs and ln of the moduli (k, T, d) of the weights; ``beta - phi(0)`` and ``ln d beta/dz``, (T, d)."""
        d = self.problem.d
        shape = (len(y), d)
        idle = self.scale.log + np.log(np.maximum(np.abs(self.direction), np.finfo(float).tiny))
        sign = np.repeat(np.sign(self.direction)[:, None], len(y), axis=1)
        logs = np.repeat(np.where(self.direction != 0, idle, -np.inf)[:, None], len(y), axis=1)
        beta, slope = np.empty(shape), np.empty(shape)
        start, moves = self._start
        for number, pair in enumerate(self.curves):
            here = np.flatnonzero(self.which == number)
            above, below = y[:, here].ravel(), y[:, d + here].ravel()
            up = above <= start[0, number] if moves[0, number] else below >= start[1, number]
            k, count = len(self.rows[number]), len(above)
            out = [np.empty((k, count)), np.empty((k, count)), np.empty(count), np.empty(count)]
            for side, chosen in ((0, up), (1, ~up)):
                if not chosen.any():
                    continue
                own, other = (above, below)[side][chosen], (below, above)[side][chosen]
                if not moves[side, number]:
                    # What the other side says of the way since the start.
                    if not moves[1 - side, number]:
                        own = np.zeros(len(own))
                    else:
                        own = np.maximum(other - start[1 - side, number], 0.0) / moves[1 - side, number]
                branch = pair[side]
                found = branch.read(self.log_unit, own)
                for part, value in zip(out, found, strict=True):
                    part[..., chosen] = value
            for place, row in enumerate(self.rows[number]):
                sign[row][:, here] = out[0][place].reshape(len(y), -1)
                logs[row][:, here] = out[1][place].reshape(len(y), -1)
            beta[:, here], slope[:, here] = (part.reshape(len(y), -1) for part in out[2:])
        return sign, logs, beta, slope

    def predictor(self, t: Array, y: Array) -> Array:
        """beta at states (K, 2 d)."""
        return self.constant + self._read(y)[2]

    def observe(self, t: Array, y: Array) -> Observed:
        """Read states (K, 2 d) at times (K,)."""
        sign, logs, _, _ = self._read(y)
        value, log_value = conserved_at(self.net, self.scale, self.direction)
        shape = (len(t), *value.shape)
        return Observed(
            weights={name: sign[a] * np.exp(logs[a]) for a, name in enumerate(self.net.weights)},
            log_abs_weights={name: logs[a] for a, name in enumerate(self.net.weights)},
            imbalance=np.broadcast_to(value, shape).copy(),
            log_imbalance=np.broadcast_to(log_value, shape).copy(),
        )

    def velocity(self, t: Array, y: Array) -> Array:
        """``d beta/dt`` at times (K,) and states (K, 2 d)."""
        _, _, beta, slope = self._read(y)
        gradient = self.problem.gradient
        g = np.array([gradient(row) for row in self.constant + beta]).reshape(beta.shape)
        return -np.exp(slope + self.log_unit) * g

    def departure(self, t: Array, y: Array, seen: Observed) -> Array:
        """Zero: the weights are read off the curve of their start."""
        return np.zeros(len(t))
