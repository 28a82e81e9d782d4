"""The saddle-to-saddle process: the limit of gradient flow as the initial scale vanishes."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.errors import IntegrationError
from flowsim.hints import hinting
from flowsim.limits.choice import NEGLIGIBLE, check_reach, selected
from flowsim.limits.columns import SparseColumns, read_columns
from flowsim.limits.convex import Escape, cone_minimiser
from flowsim.limits.duals import follow
from flowsim.limits.exactly import exactly
from flowsim.limits.joint import joint_process
from flowsim.limits.linear_networks import linear_saddle_to_saddle
from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.path import SaddlePath
from flowsim.limits.state import StartState, pretrained_state
from flowsim.limits.units import Units, in_units
from flowsim.limits.walls import Walls, is_uniform, network_walls, symbolic_thresholds
from flowsim.network import DiagonalNetwork, LinearNetwork
from flowsim.problem import Problem, Regression, require_squares

if TYPE_CHECKING:
    from flowsim.solvers.active_set import ConeRegression
    from flowsim.solvers.cone_newton import ConeMinimiser, Recession

__all__ = ["saddle_to_saddle"]

Array = NDArray[np.float64]
Key = tuple[int, int]  # (coordinate, sign)

#: Rounding of the dual, relative to the thresholds, from which on the message says so.
_BLURRED = 1e-6
#: Rounding of the rates follows the residual down in steps of this factor: a pass over all columns each.
_FINER = 4.0


@overload
def saddle_to_saddle(
    net: LinearNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike] | None = None,
    *,
    max_jumps: int | None = None,
    t_end: float | None = None,
    progress: bool = False,
) -> LinearSaddlePath: ...


@overload
def saddle_to_saddle(
    net: DiagonalNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike] | StartState | None = None,
    *,
    pretrained: Mapping[str, ArrayLike] | None = None,
    thresholds: tuple[ArrayLike, ArrayLike] | None = None,
    penalties: tuple[ArrayLike, ArrayLike] | None = None,
    joint_noise: float | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
    exact: bool = False,
    progress: bool = False,
) -> SaddlePath: ...


@hinting
def saddle_to_saddle(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike] | StartState | None = None,
    *,
    pretrained: Mapping[str, ArrayLike] | None = None,
    thresholds: tuple[ArrayLike, ArrayLike] | None = None,
    penalties: tuple[ArrayLike, ArrayLike] | None = None,
    joint_noise: float | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
    exact: bool = False,
    progress: bool = False,
) -> SaddlePath | LinearSaddlePath:
    r"""The limit process of gradient flow from vanishing initialisation.

    .. math:: \dot s = -\nabla L(\beta), \qquad
              \beta(t) \in \arg\min_\beta \; L(\beta) + \sum_i \kappa_i^+ \beta_i^+ + \kappa_i^- \beta_i^-

    over :math:`\beta_i \ge 0` where :math:`s_i = t_i^+ + \kappa_i^+ t` (the upper wall), :math:`\beta_i \le 0` where
    :math:`s_i = -(t_i^- + \kappa_i^- t)` (the lower wall), and :math:`\beta_i = 0` in between. The path is
    piecewise constant in accelerated time and jumps when a coordinate reaches a wall. A :class:`LinearNetwork` learns
    rank by rank instead: its saddles are reduced-rank regressions (Notes).

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
        Diagonal: two-layer type (``u*v``, ``u**2 - v**2``, ...), with or without noise, a product of L >= 3 weights,
        or another formula whose lowest terms at 0 have order 2 or more.
    problem : Problem
        With one target, or several for a LinearNetwork. Any convex loss; linear networks, weight noise and `exact` need
        squares. Where the loss has no minimum on a cone (separable data) the path ends: ``path.escape``.
    start : dict weight -> array, or StartState, optional
        The direction that the vanishing scale multiplies, as in :func:`flowsim.gradient_flow`; or a place on an
        earlier path, ``path.state(t)``, to go on from there with other data.
    pretrained : dict weight -> array, optional
        Weights that do not vanish: the start is ``pretrained + alpha * start``. Coordinates with a weight that is
        not 0 begin active; the first plateau is what they relax to at once.
    thresholds : (t_plus, t_minus), optional
        Growth thresholds, each a number or an array (d,), > 0 (inf: that side cannot be reached), instead of
        the network's own.
    penalties : (kappa_plus, kappa_minus), optional
        Penalties, each a number or an array (d,), >= 0, instead of the network's own.
    joint_noise : float, optional
        c of weight noise that vanishes with the scale, ``eta = c alpha^((L-2)/(2(L-1)))``, for products of L >= 3
        weights: it slows every dual down, and traps coordinates for good (:mod:`flowsim.limits.joint`).
    max_jumps : int, optional
        Stop after so many jumps.
    t_end : float, optional
        Stop at this accelerated time.
    exact : bool
        Compute in rational arithmetic, without tolerances; for small problems (``path.exact`` holds the fractions).
    progress : bool
        Show a progress bar.

    Returns
    -------
    SaddlePath, or LinearSaddlePath for a LinearNetwork

    Raises
    ------
    ValueError
        For arguments that do not fit the problem, or a network without this limit.
    IntegrationError
        If rounding keeps the active set from settling, if the formula cannot attain a saddle, or if active columns
        are linearly dependent and theory does not tell which minimiser the flow reaches.

    Notes
    -----
    Each jump costs at most one pass over X (far less with many dense features: :mod:`flowsim.limits.duals`) and an
    update of an orthonormal factor of the active columns. Sparse X needs memory in proportion to its entries.
    Hits closer than rounding form one jump, whose result does not depend on their order. If active columns are
    linearly dependent the minimiser is not unique; the flow selects one, by the direction of its start
    (:mod:`flowsim.limits.selection`).

    Linear networks, :math:`\beta = U V^\top`, from a start in general position: with
    :math:`\Sigma = X^\top X / n`, :math:`A^* = \Sigma^{-1/2} X^\top Y / n = \sum_i s_i a_i b_i^\top`, saddle r is

    .. math:: \beta_r = \Sigma^{-1/2} \sum_{i \le r} (s_i - \eta^2 \sqrt{m \, \mathrm{tr}\, \Sigma})_+ a_i b_i^\top

    (:math:`\eta` the standard deviation of weight noise; with weight decay, where the orbit from saddle r - 1 ends).
    Directions that wait have levels that rise at the sorted eigenvalues of the generator
    ``[[-a, G], [G^T, -b]]``, ``G = X^T (Y - X beta_r) / n``, from 0; the one that reaches 1 is learned next. Data that
    decouple exactly are learned part by part (:mod:`flowsim.limits.linear_blocks`).

    References
    ----------
    Pesme, Flammarion, *Saddle-to-saddle dynamics in diagonal linear networks*, arXiv 2304.00488, Algorithm 1.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[2.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
    >>> path = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem)
    >>> path.jump_times, path.end
    (array([0.5       , 0.66666667]), array([1., 3.]))
    """
    if max_jumps is not None and not (_is_number(max_jumps) and max_jumps >= 0 and max_jumps % 1 == 0):
        raise ValueError(f"`max_jumps` must be an integer >= 0; received {max_jumps!r}.")
    if t_end is not None and not (_is_number(t_end) and t_end > 0):
        raise ValueError(f"`t_end` must be a number > 0; received {t_end!r}.")
    if isinstance(net, LinearNetwork):
        if isinstance(start, StartState):
            raise ValueError("`start` must map 'U' and 'V' to arrays; received StartState.")
        given: dict[str, object] = {
            "joint_noise": joint_noise,
            "pretrained": pretrained,
            "thresholds": thresholds,
            "penalties": penalties,
            "exact": exact or None,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"`{name}` is for a DiagonalNetwork; received it with a LinearNetwork.")
        return linear_saddle_to_saddle(net, problem, start, max_jumps=max_jumps, t_end=t_end)
    if not isinstance(problem, Problem):
        raise ValueError(f"`problem` must be a Problem; received {type(problem).__name__}.")
    if exact or getattr(net, "noise", None) is not None:
        require_squares(problem, "rational arithmetic" if exact else "the limit of weight noise")
    if problem.n_targets > 1:
        raise ValueError(f"`problem` must have one target; received {problem.n_targets}.")
    if problem.y.ndim == 2:
        problem = problem.with_target(problem.y[:, 0])
    if not isinstance(net, DiagonalNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork or a LinearNetwork; received {type(net).__name__}.")
    if joint_noise is not None:
        others = (pretrained, thresholds, penalties, exact or None, start if isinstance(start, StartState) else None)
        if any(other is not None for other in others):
            raise ValueError("`joint_noise` goes with `start` weights, `max_jumps` and `t_end` alone.")
        squares = require_squares(problem, "the limit of weight noise")
        plain = cast("Mapping[str, ArrayLike] | None", start)
        return joint_process(net, squares, plain, joint_noise, max_jumps, math.inf if t_end is None else float(t_end))
    if pretrained is not None:
        if start is not None and not isinstance(start, Mapping):
            raise ValueError("`pretrained` and a `start` state exclude each other.")
        direction = net.direction(start, problem.d)
        start = pretrained_state(net, pretrained, direction, symbolic_thresholds(net, direction, problem.d))
    elif isinstance(start, Mapping) and len(start) and not any(np.any(value) for value in start.values()):
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    state = start if isinstance(start, StartState) else None
    walls = network_walls(net, problem, start, thresholds, penalties)
    horizon = math.inf if t_end is None else float(t_end)
    if exact:
        return exactly(require_squares(problem, "rational arithmetic"), walls, state, max_jumps, horizon)
    return _Process(problem, walls, state).run(max_jumps, horizon, progress)


class _Process:
    """State of one run: time, dual, walls stood at, and the constrained minimisation problem."""

    def __init__(self, problem: Problem, walls: Walls, state: StartState | None) -> None:
        from flowsim.solvers.active_set import ConeRegression, relative_rounding

        self.began = time.perf_counter()
        self.problem, self.state, self.all_walls = problem, state, walls
        y, n, data = problem.y, problem.n, problem
        self.units = Units()
        if isinstance(problem, Regression):
            if np.any(walls.offset):
                y = y - problem.predict(np.broadcast_to(walls.offset, (problem.d,)))
            data, y, self.units = in_units(problem, y)
        # From here on coordinates are counted among the columns that are read: without the empty ones of sparse data.
        self.columns = read_columns(data, also=_standing(walls)[0])
        self.walls = walls.of(self.columns.which) if isinstance(self.columns, SparseColumns) else walls
        self.costs = (self.units.cost(self.walls.upper_penalty), self.units.cost(self.walls.lower_penalty))
        self.cone: ConeRegression[Key] | ConeMinimiser[Key] = (
            ConeRegression(y, self._signed_column)
            if isinstance(problem, Regression)
            else cone_minimiser(problem, self._signed_column)
        )
        # Rates this small are rounding of x_i . r / n.
        self.size = self.cone.size
        self.ulp = relative_rounding(n) * self.columns.norms / n
        self.rounding = self.ulp * self.size
        self.level, self.raised = self.size, False
        vanished = self.size > 0 and (self.rounding == 0).any()
        if not np.isfinite(self.rounding).all() or (vanished and self.columns.underflow(self.rounding == 0)):
            raise ValueError(
                "`problem` has columns of X whose squares, relative to those of its largest entry, leave the range of "
                "floats."
            )
        self.t = 0.0
        # |r| integrated over the plateaus so far: rounding of the duals, but for the column's own factor.
        self.spread = 0.0
        self.flags = np.zeros(self.columns.d, dtype=np.uint8)
        self.duals = follow(self.columns, self.walls, self.costs, self.rounding)
        self.blur = 0.0
        self.times: list[float] = []
        self.hits: list[NDArray[np.int64]] = []
        self.supports: list[NDArray[np.int64]] = []
        self.values: list[Array] = []

    def run(self, max_jumps: int | None, t_end: float, progress: bool) -> SaddlePath:
        from tqdm import tqdm

        from flowsim.solvers.cone_newton import Recession

        horizon, complete, message = math.inf, True, "reached the minimiser to rounding"
        reaching = np.empty(0, np.int64)
        with tqdm(total=max_jumps, desc="saddles", unit="jump", disable=not progress) as bar:
            try:
                self._settle(*_standing(self.walls))
                while True:
                    wait, found, signs = self._next()
                    after = self.units.time(self.t + wait)
                    if math.isinf(wait):
                        break
                    if not after < t_end:
                        horizon, complete, message = t_end, False, f"stopped at t_end={t_end:g}"
                        break
                    if max_jumps is not None and len(self.times) >= max_jumps:
                        horizon, complete, message = after, False, f"stopped after max_jumps={max_jumps}"
                        break
                    if math.isinf(after):
                        raise IntegrationError("the next jump lies beyond the range of floats; rescale `problem`.")
                    self.t += wait
                    self.spread += wait * self.cone.size
                    self.duals.advance(wait)
                    reaching = found
                    self._settle(found, signs)
                    self.times.append(after)
                    self.hits.append(np.sort(found))
                    bar.update()
            except Recession as end:
                return self._escaped(end, reaching)
            except IntegrationError as error:
                if self.supports:
                    reached = self.units.time(self.t)
                    known = len(self.times) + 1
                    self.supports, self.values = self.supports[:known], self.values[:known]
                    error.path = self._path(reached, False, f"stopped at t={reached:.6g}, where the process failed")
                raise
        return self._path(horizon, complete, message)

    def _escaped(self, end: Recession[Key], hits: NDArray[np.int64]) -> SaddlePath:
        """The path as far as the loss has minima."""
        now, direction = self.units.time(self.t), np.zeros(self.problem.d)
        for (i, sign), share in end.direction.items():
            direction[self.columns.number(np.array([i]))] += sign * share
        if not self.supports:
            self.supports, self.values = [np.empty(0, np.int64)], [np.empty(0)]
        message = f"beta escapes to infinity at t={now:.6g}, along `escape.direction` with margin {end.margin:.6g}"
        escape = Escape(now, self.columns.number(np.sort(hits)), direction, end.margin)
        return replace(self._path(now, False, message), escape=escape)

    def _path(self, horizon: float, complete: bool, message: str) -> SaddlePath:
        walls = self.all_walls
        if self.blur > _BLURRED:
            message += f"; late jumps are blurred by rounding (dual known to {self.blur:.0e}), exact=True resolves them"
        return SaddlePath(
            problem=self.problem,
            jump_times=np.array(self.times),
            supports=tuple(self.columns.number(support) for support in self.supports),
            values=tuple(self.values),
            hits=tuple(self.columns.number(hit) for hit in self.hits),
            horizon=horizon,
            complete=complete,
            message=message,
            thresholds=(walls.upper, walls.lower),
            penalties=(walls.upper_penalty, walls.lower_penalty),
            speeds=(walls.up_speed, walls.low_speed),
            order=walls.order,
            memory=walls.memory,
            offset=walls.offset,
            curves=walls.curves,
            start_beta=None if self.state is None else self.state.beta,
            stats={
                "jumps": len(self.times),
                "gradients": self.duals.products,
                "columns": getattr(self.duals, "columns_computed", 0),
                "seconds": time.perf_counter() - self.began,
                "product_seconds": self.duals.seconds,
                "dual_rounding": self.blur,
            },
        )

    def _next(self) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:
        """The next arrivals, those left out whose rate turns out to be rounding of y."""
        size = self.cone.size
        if size == 0.0:
            return math.inf, np.empty(0, np.int64), np.empty(0, np.int64)
        level = min(2.0 ** math.ceil(math.log2(size)), self.size)
        if not level * _FINER >= self.level or self.raised:
            np.multiply(self.ulp, level, out=self.rounding)
            self.level, self.raised = level, False
        while True:
            wait, found, signs = self.duals.next(self.t, self.cone.residual, self.flags, self.spread / self.level)
            if math.isinf(wait):
                return wait, found, signs
            rates, noise = self._rates(found, signs)
            unsure = rates <= noise
            blur = noise * wait + self.ulp[found] * self.spread
            if not unsure.any():
                self.blur = max(self.blur, float(blur.max()) / _typical(self.walls, found))
                return wait, found, signs
            self.rounding[found[unsure]] = noise[unsure]
            self.raised = True

    def _rates(self, found: NDArray[np.int64], signs: NDArray[np.int64]) -> tuple[Array, Array]:
        """How fast some coordinates approach their walls, and what of that may be rounding."""
        n = self.columns.n
        columns = np.column_stack([self.columns.column(i) for i in found.tolist()])
        cost = np.where(signs > 0, self.costs[0][found], self.costs[1][found])
        rates = signs * (columns.T @ self.cone.residual) - n * cost
        return rates / n, self.cone.noise(columns, self.columns.norms[found], rates) / n

    def _settle(self, coordinates: NDArray[np.int64], signs: NDArray[np.int64]) -> None:
        self._move(coordinates, signs)
        support, values = self._support()
        self.supports.append(support)
        self.values.append(values)

    def _move(self, coordinates: NDArray[np.int64], signs: NDArray[np.int64]) -> None:
        """Stand the arrivals at their walls, solve, and let go who is pushed back inside."""
        from flowsim.solvers.cone_newton import Recession

        joining: list[tuple[Key, float]] = []
        for i, sign in zip(coordinates.tolist(), signs.tolist(), strict=True):
            joining.append(((i, sign), self.columns.n * float(self.costs[0 if sign > 0 else 1][i])))
            self.flags[i] |= 1 if sign > 0 else 2
        try:
            self.cone.solve(joining)
        except Recession:
            raise
        except ArithmeticError as error:
            raise IntegrationError(
                f"the saddle at accelerated time {self.units.time(self.t):.6g} cannot be found: {error}."
            ) from error
        for key in list(self.cone.waiting):
            if self.cone.excess(key) < -1.0:
                self.cone.dismiss(key)
                i, sign = key
                self.flags[i] &= 2 if sign > 0 else 1
                side = 0 if sign > 0 else 1
                wall = (self.walls.upper, self.walls.lower)[side][i] + self.costs[side][i] * self.t
                self.duals.leave(i, sign * wall)

    def _support(self) -> tuple[NDArray[np.int64], Array]:
        inside = {i for i, _ in self.cone.members}
        waiting = list({i: (i, sign) for i, sign in self.cone.waiting if i not in inside}.values())
        keys = list(self.cone.members)
        values = self.units.beta(self.cone.b * np.array([float(sign) for _, sign in keys]))
        coordinates = np.array([i for i, _ in keys], dtype=np.int64)
        if self.cone.dependent(waiting):
            coordinates = np.append(coordinates, np.array([i for i, _ in waiting], dtype=np.int64))
            values = np.append(values, np.zeros(len(waiting)))
            columns = np.column_stack([self.columns.column(i) for i in coordinates.tolist()])
            values = selected(
                columns, values, coordinates, self.flags[coordinates], self.walls, self.units.time(self.t)
            )
            keep = np.abs(values) > NEGLIGIBLE * np.abs(values).max(initial=0.0)
            coordinates, values = coordinates[keep], values[keep]
        check_reach(self.walls, coordinates, values, self.units.time(self.t))
        order = np.argsort(coordinates)
        return coordinates[order], values[order]

    def _signed_column(self, key: Key) -> Array:
        i, sign = key
        column = self.columns.column(i)
        return column if sign > 0 else -column


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _typical(walls: Walls, coordinates: NDArray[np.int64]) -> float:
    """The smallest positive threshold among some coordinates."""
    values = np.concatenate([walls.upper[coordinates], walls.lower[coordinates]])
    return float(values[(values > 0) & np.isfinite(values)].min(initial=np.inf))


def _standing(walls: Walls) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who stands at a wall from the start, and at which."""
    up, low = (
        np.empty(0, np.int64) if is_uniform(wall) and wall[0] != 0 else np.flatnonzero(wall == 0)
        for wall in (walls.upper, walls.lower)
    )
    return np.concatenate([up, low]), np.concatenate([np.ones_like(up), -np.ones_like(low)])
