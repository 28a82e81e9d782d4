"""The saddle-to-saddle process: the limit of gradient flow as the initial scale vanishes."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.errors import IntegrationError
from flowsim.limits.columns import SparseColumns, read_columns
from flowsim.limits.duals import follow
from flowsim.limits.path import SaddlePath
from flowsim.limits.rational import exact_process
from flowsim.limits.selection import select, select_products
from flowsim.limits.state import StartState, pretrained_state
from flowsim.limits.walls import Walls, is_uniform, network_walls, symbolic_thresholds
from flowsim.network import DiagonalNetwork
from flowsim.problem import Regression

__all__ = ["saddle_to_saddle"]

Array = NDArray[np.float64]
Key = tuple[int, int]  # (coordinate, sign)

#: Rounding of the dual, relative to the thresholds, from which on the message says so.
_BLURRED = 1e-6
#: Relative to the largest: what the iterative choice among minimisers leaves of a zero.
_NEGLIGIBLE = 1e-11


def saddle_to_saddle(
    net: DiagonalNetwork,
    problem: Regression,
    start: Mapping[str, ArrayLike] | StartState | None = None,
    *,
    pretrained: Mapping[str, ArrayLike] | None = None,
    thresholds: tuple[ArrayLike, ArrayLike] | None = None,
    penalties: tuple[ArrayLike, ArrayLike] | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
    exact: bool = False,
    progress: bool = False,
) -> SaddlePath:
    r"""The limit process of gradient flow from vanishing initialisation.

    .. math:: \dot s = -\nabla L(\beta), \qquad
              \beta(t) \in \arg\min_\beta \; L(\beta) + \sum_i \kappa_i^+ \beta_i^+ + \kappa_i^- \beta_i^-

    over :math:`\beta_i \ge 0` where :math:`s_i = t_i^+ + \kappa_i^+ t` (the upper wall), :math:`\beta_i \le 0` where
    :math:`s_i = -(t_i^- + \kappa_i^- t)` (the lower wall), and :math:`\beta_i = 0` in between. The path is
    piecewise constant in accelerated time and jumps when a coordinate reaches a wall.

    Parameters
    ----------
    net : DiagonalNetwork
        Two-layer type (``u*v``, ``u**2 - v**2``, ...), with or without noise, a product of L >= 3 weights, or another
        formula whose lowest terms at 0 have order 2 or more.
    problem : Regression
        With one target.
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
    SaddlePath

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
    if not isinstance(problem, Regression):
        raise ValueError(f"`problem` must be a Regression; received {type(problem).__name__}.")
    if problem.n_targets > 1:
        raise ValueError(f"`problem` must have one target; received {problem.n_targets}.")
    if problem.y.ndim == 2:
        problem = Regression(problem.X, problem.y[:, 0], problem.feature_names)
    if not isinstance(net, DiagonalNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork; received {type(net).__name__}.")
    if max_jumps is not None and not (_is_number(max_jumps) and max_jumps >= 0 and max_jumps % 1 == 0):
        raise ValueError(f"`max_jumps` must be an integer >= 0; received {max_jumps!r}.")
    if t_end is not None and not (_is_number(t_end) and t_end > 0):
        raise ValueError(f"`t_end` must be a number > 0; received {t_end!r}.")
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
        return _exactly(problem, walls, state, max_jumps, horizon)
    return _Process(problem, walls, state).run(max_jumps, horizon, progress)


def _exactly(
    problem: Regression, walls: Walls, state: StartState | None, max_jumps: int | None, t_end: float
) -> SaddlePath:
    if not (problem.is_dense or hasattr(problem.X, "toarray")):
        raise ValueError("`exact` needs the entries of X; received a LinearOperator.")
    began = time.perf_counter()
    X = problem.X if problem.is_dense else problem.X.toarray()
    y = problem.y - problem.predict(np.broadcast_to(walls.offset, (problem.d,))) if np.any(walls.offset) else problem.y
    sides: list[list[Fraction | None]] = [
        [None if math.isinf(v) else Fraction(v) for v in side.tolist()] for side in (walls.upper, walls.lower)
    ]
    costs = [[Fraction(v) for v in side.tolist()] for side in (walls.upper_penalty, walls.lower_penalty)]
    result = exact_process(
        [[Fraction(v) for v in row] for row in X.tolist()],
        [Fraction(v) for v in y.tolist()],
        sides[0],
        sides[1],
        costs[0],
        costs[1],
        max_jumps=max_jumps,
        t_end=None if math.isinf(t_end) else Fraction(t_end),
    )
    saddles = np.array([[float(v) for v in row] for row in result.saddles])
    times = [0.0, *map(float, result.jump_times)]
    for saddle, tied, t in zip(saddles, result.tied, times, strict=True):
        if tied:  # fractions give the fit; the flow's choice among those with this fit is not rational
            coordinates = np.array(sorted({i for i, _ in tied}))
            flags = np.array([((i, 1) in tied) + 2 * ((i, -1) in tied) for i in coordinates.tolist()], dtype=np.uint8)
            values = _selected(X[:, coordinates], saddle[coordinates], coordinates, flags, walls, t)
            saddle[coordinates] = np.where(np.abs(values) > _NEGLIGIBLE * np.abs(values).max(), values, 0.0)
    horizon, complete, message = math.inf, True, "reached the minimiser"
    if result.next_jump is not None:
        stopped_by_time = result.next_jump >= t_end
        horizon, complete = min(t_end, float(result.next_jump)), False
        message = f"stopped at t_end={t_end:g}" if stopped_by_time else f"stopped after max_jumps={max_jumps}"
    supports = tuple(np.flatnonzero(row) for row in saddles)
    for saddle, support, t in zip(saddles, supports, times, strict=True):
        _check_reach(walls, support, saddle[support], t)
    return SaddlePath(
        problem=problem,
        jump_times=np.array([float(v) for v in result.jump_times]),
        supports=supports,
        values=tuple(row[support] for row, support in zip(saddles, supports, strict=True)),
        hits=tuple(np.array(hit, dtype=np.int64) for hit in result.hits),
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
        start_beta=None if state is None else state.beta,
        exact=result,
        stats={"jumps": len(result.jump_times), "seconds": time.perf_counter() - began},
    )


class _Process:
    """State of one run: time, dual, walls stood at, and the constrained least-squares problem."""

    def __init__(self, problem: Regression, walls: Walls, state: StartState | None) -> None:
        from flowsim.solvers.active_set import ConeRegression, relative_rounding, scaled_norm

        self.began = time.perf_counter()
        self.problem, self.state, self.all_walls = problem, state, walls
        y, n = problem.y, problem.n
        if np.any(walls.offset):
            y = y - problem.predict(np.broadcast_to(walls.offset, (problem.d,)))
        # From here on coordinates are counted among the columns that are read: without the empty ones of sparse data.
        self.columns = read_columns(problem, also=_standing(walls)[0])
        self.walls = walls.of(self.columns.which) if isinstance(self.columns, SparseColumns) else walls
        self.costs = (self.walls.upper_penalty, self.walls.lower_penalty)
        self.cone = ConeRegression(y, self._signed_column)
        # Rates this small are rounding of x_i . r / n with r as large as y.
        size = scaled_norm(y)
        self.rounding = relative_rounding(n) * self.columns.norms * (size / n)
        vanished = size > 0 and (self.rounding == 0).any()
        if not np.isfinite(self.rounding).all() or (vanished and self.columns.underflow(self.rounding == 0)):
            raise ValueError(
                "`problem` is scaled beyond floating point: squares of X, or products X^T y, leave its range."
            )
        self.t = 0.0
        self.flags = np.zeros(self.columns.d, dtype=np.uint8)
        self.duals = follow(self.columns, self.walls, self.rounding)
        self.blur = 0.0

    def run(self, max_jumps: int | None, t_end: float, progress: bool) -> SaddlePath:
        from tqdm import tqdm

        self._move(*_standing(self.walls))
        first = self._support()
        supports, values = [first[0]], [first[1]]
        times: list[float] = []
        hits: list[NDArray[np.int64]] = []
        horizon, complete, message = math.inf, True, "reached the minimiser to rounding"
        with tqdm(total=max_jumps, desc="saddles", unit="jump", disable=not progress) as bar:
            while True:
                wait, found, signs = self.duals.next(self.t, self.cone.residual, self.flags)
                if math.isinf(wait):
                    break
                if not self.t + wait < t_end:
                    horizon, complete, message = t_end, False, f"stopped at t_end={t_end:g}"
                    break
                if max_jumps is not None and len(times) >= max_jumps:
                    horizon, complete, message = self.t + wait, False, f"stopped after max_jumps={max_jumps}"
                    break
                self.t += wait
                self.duals.advance(wait)
                self.blur = max(self.blur, float(self.rounding[found].max()) * self.t / _typical(self.walls, found))
                self._move(found, signs)
                support, value = self._support()
                times.append(self.t)
                hits.append(np.sort(found))
                supports.append(support)
                values.append(value)
                bar.update()
        if self.blur > _BLURRED:
            message += f"; late jumps are blurred by rounding (dual known to {self.blur:.0e}), exact=True resolves them"
        walls = self.all_walls
        return SaddlePath(
            problem=self.problem,
            jump_times=np.array(times),
            supports=tuple(self.columns.number(support) for support in supports),
            values=tuple(values),
            hits=tuple(self.columns.number(hit) for hit in hits),
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
                "jumps": len(times),
                "gradients": self.duals.products,
                "columns": getattr(self.duals, "columns_computed", 0),
                "seconds": time.perf_counter() - self.began,
                "product_seconds": self.duals.seconds,
                "dual_rounding": self.blur,
            },
        )

    def _move(self, coordinates: NDArray[np.int64], signs: NDArray[np.int64]) -> None:
        """Stand the arrivals at their walls, solve, and let go who is pushed back inside."""
        joining: list[tuple[Key, float]] = []
        for i, sign in zip(coordinates.tolist(), signs.tolist(), strict=True):
            joining.append(((i, sign), self.columns.n * float(self.costs[0 if sign > 0 else 1][i])))
            self.flags[i] |= 1 if sign > 0 else 2
        try:
            self.cone.solve(joining)
        except ArithmeticError as error:
            raise IntegrationError(f"the saddle at accelerated time {self.t:.6g} cannot be found: {error}.") from error
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
        values = self.cone.b * np.array([float(sign) for _, sign in keys])
        coordinates = np.array([i for i, _ in keys], dtype=np.int64)
        if self.cone.dependent(waiting):
            coordinates = np.append(coordinates, np.array([i for i, _ in waiting], dtype=np.int64))
            values = np.append(values, np.zeros(len(waiting)))
            columns = np.column_stack([self.columns.column(i) for i in coordinates.tolist()])
            values = _selected(columns, values, coordinates, self.flags[coordinates], self.walls, self.t)
            keep = np.abs(values) > _NEGLIGIBLE * np.abs(values).max(initial=0.0)
            coordinates, values = coordinates[keep], values[keep]
        _check_reach(self.walls, coordinates, values, self.t)
        order = np.argsort(coordinates)
        return coordinates[order], values[order]

    def _signed_column(self, key: Key) -> Array:
        i, sign = key
        column = self.columns.column(i)
        return column if sign > 0 else -column


def _selected(
    columns: Array, values: Array, coordinates: NDArray[np.int64], flags: NDArray[np.uint8], walls: Walls, t: float
) -> Array:
    """Where the minimiser is not unique: the one that the flow reaches."""
    up, low = (flags & 1) != 0, (flags & 2) != 0
    dual = np.where(
        up,
        walls.upper[coordinates] + walls.upper_penalty[coordinates] * t,
        -(walls.lower[coordinates] + walls.lower_penalty[coordinates] * t),
    )
    try:
        if walls.weights is not None and walls.curves is None:
            return select_products(columns, values, dual, (up, low), walls.weights[:, coordinates])
        memory = None if walls.memory is None else walls.memory(coordinates)
        return select(columns, values, dual, (up, low), walls.order, memory, walls.curves, coordinates)
    except ArithmeticError as error:
        raise IntegrationError(
            f"the saddle at accelerated time {t:.6g} is not unique, as its active columns are linearly dependent, and "
            f"the one that the flow reaches cannot be told: {error}."
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_reach(walls: Walls, coordinates: NDArray[np.int64], values: Array, t: float) -> None:
    """Least squares may ask for coefficients that the formula does not attain on its way out of the origin."""
    if walls.curves is None or (beyond := walls.curves.out_of_reach(coordinates, values)) is None:
        return
    i, limit = beyond
    raise IntegrationError(
        f"the saddle at accelerated time {t:.6g} asks for a coefficient of {values[coordinates == i][0]:.6g} of the "
        f"formula {walls.curves.formula(i).text!r}, which on its way out of the origin runs into a critical point at "
        f"{limit:.6g}: the coordinate stays there, and the process beyond is not known."
    )


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
