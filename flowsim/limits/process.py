"""The saddle-to-saddle process: the limit of gradient flow as the initial scale vanishes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.errors import IntegrationError
from flowsim.limits.path import SaddlePath
from flowsim.limits.walls import Walls, network_walls
from flowsim.network import DiagonalNetwork
from flowsim.problem import Regression

__all__ = ["saddle_to_saddle"]

Array = NDArray[np.float64]
Key = tuple[int, int]  # (coordinate, sign)


def saddle_to_saddle(
    net: DiagonalNetwork,
    problem: Regression,
    start: Mapping[str, ArrayLike] | None = None,
    *,
    thresholds: tuple[ArrayLike, ArrayLike] | None = None,
    penalties: tuple[ArrayLike, ArrayLike] | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
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
        Two-layer type (``u*v``, ``u**2 - v**2``, ...), with or without noise, or a product of L >= 3 weights.
    problem : Regression
        With one target.
    start : dict weight -> array, optional
        The direction that the vanishing scale multiplies, as in :func:`flowsim.gradient_flow`.
    thresholds : (t_plus, t_minus), optional
        Growth thresholds, each a number or an array (d,), > 0 (inf: that side cannot be reached), instead of
        the network's own.
    penalties : (kappa_plus, kappa_minus), optional
        Penalties, each a number or an array (d,), >= 0, instead of the network's own.
    max_jumps : int, optional
        Stop after so many jumps.
    t_end : float, optional
        Stop at this accelerated time.
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
        If rounding keeps the active set from settling.

    Notes
    -----
    Each jump costs one product with X^T and an update of an orthonormal factor of the active columns.
    Hits closer than rounding form one jump, whose result does not depend on their order. If tied columns
    are linearly dependent the minimiser is not unique and the limit depends on terms that vanish from it;
    the one of least Euclidean norm is reported (an equal split between duplicates). Jump times, gradients and
    fitted values are the same for all of them.

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
    if problem.y.ndim != 1:
        raise ValueError(f"`problem` must have one target; received {problem.n_targets}.")
    if max_jumps is not None and (isinstance(max_jumps, bool) or int(max_jumps) != max_jumps or max_jumps < 0):
        raise ValueError(f"`max_jumps` must be an integer >= 0; received {max_jumps!r}.")
    if t_end is not None and not t_end > 0:
        raise ValueError(f"`t_end` must be > 0; received {t_end}.")
    walls = network_walls(net, problem, start, thresholds, penalties)
    return _Process(problem, walls).run(max_jumps, math.inf if t_end is None else float(t_end), progress)


class _Process:
    """State of one run: time, dual, walls stood at, and the constrained least-squares problem."""

    def __init__(self, problem: Regression, walls: Walls) -> None:
        from flowsim.solvers.active_set import ConeRegression, relative_rounding

        self.problem = problem
        self.walls = walls
        n, d = problem.n, problem.d
        self.y = problem.y - problem.predict(np.broadcast_to(walls.offset, (d,))) if np.any(walls.offset) else problem.y
        self.costs = (walls.upper_penalty, walls.lower_penalty)
        self._columns = _column_reader(problem)
        self.cone = ConeRegression(self.y, self._signed_column)
        # Rates this small are rounding of x_i . r / n with r as large as y.
        norms = np.sqrt(problem.feature_variances) * math.sqrt(n)
        size = float(np.linalg.norm(self.y))
        self.rounding = relative_rounding(n) * norms * (size / n)
        if not np.isfinite(self.rounding).all() or (size > 0 and (self.rounding > 0).sum() < (norms > 0).sum()):
            raise ValueError("`problem` is scaled beyond floating point: the products X^T y leave its range.")
        self.t = 0.0
        self.s = np.zeros(d)
        self.flags = np.zeros(d, dtype=np.uint8)
        self.gradients = 0

    def run(self, max_jumps: int | None, t_end: float, progress: bool) -> SaddlePath:
        from tqdm import tqdm

        from flowsim.limits.hits import next_hits

        began = time.perf_counter()
        walls = (self.walls.upper, self.walls.lower, *self.costs)
        supports, values = [np.empty(0, np.int64)], [np.empty(0)]
        times: list[float] = []
        hits: list[NDArray[np.int64]] = []
        previous, elapsed = np.zeros(self.problem.d), 0.0
        horizon, complete, message = math.inf, True, "reached the minimiser"
        with tqdm(total=max_jumps, desc="saddles", unit="jump", disable=not progress) as bar:
            while True:
                g = self._gradient()
                wait, found, signs = next_hits(self.s, previous, elapsed, g, walls, self.flags, self.rounding, self.t)
                if math.isinf(wait):
                    break
                if not self.t + wait < t_end:
                    horizon, complete, message = t_end, False, f"stopped at t_end={t_end:g}"
                    break
                if max_jumps is not None and len(times) >= max_jumps:
                    horizon, complete, message = self.t + wait, False, f"stopped after max_jumps={max_jumps}"
                    break
                self.t += wait
                previous, elapsed = g, wait
                self._move(found, signs)
                support, value = self._support()
                times.append(self.t)
                hits.append(np.sort(found))
                supports.append(support)
                values.append(value)
                bar.update()
        return SaddlePath(
            problem=self.problem,
            jump_times=np.array(times),
            supports=tuple(supports),
            values=tuple(values),
            hits=tuple(hits),
            horizon=horizon,
            complete=complete,
            message=message,
            thresholds=(self.walls.upper, self.walls.lower),
            penalties=self.costs,
            offset=self.walls.offset,
            stats={"jumps": len(times), "gradients": self.gradients, "seconds": time.perf_counter() - began},
        )

    def _gradient(self) -> Array:
        self.gradients += 1
        g = self.problem.rmatvec(self.cone.residual)
        g *= -1.0 / self.problem.n
        return np.ascontiguousarray(g)

    def _move(self, coordinates: NDArray[np.int64], signs: NDArray[np.int64]) -> None:
        """Stand the arrivals at their walls, solve, and let go who is pushed back inside."""
        joining: list[tuple[Key, float]] = []
        for i, sign in zip(coordinates.tolist(), signs.tolist(), strict=True):
            joining.append(((i, sign), self.problem.n * float(self.costs[0 if sign > 0 else 1][i])))
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

    def _support(self) -> tuple[NDArray[np.int64], Array]:
        keys, b = list(self.cone.members), self.cone.b
        if self.cone.waiting:
            keys, b = self.cone.least_norm()
        coordinates = np.array([i for i, _ in keys], dtype=np.int64)
        values = b * np.array([float(sign) for _, sign in keys])
        order = np.argsort(coordinates)
        return coordinates[order], values[order]

    def _signed_column(self, key: Key) -> Array:
        i, sign = key
        column = self._columns(i)
        return column if sign > 0 else -column


def _column_reader(problem: Regression) -> Callable[[int], Array]:
    """Columns of X, each a fresh contiguous vector."""
    X: Any = problem.X
    if problem.is_dense:
        return lambda i: np.array(X[:, i])
    if hasattr(X, "tocsc"):
        by_column = X.tocsc()

        def sparse_column(i: int) -> Array:
            column = np.zeros(problem.n)
            part = slice(by_column.indptr[i], by_column.indptr[i + 1])
            np.add.at(column, by_column.indices[part], by_column.data[part])
            return column

        return sparse_column

    def operator_column(i: int) -> Array:
        unit = np.zeros(problem.d)
        unit[i] = 1.0
        return np.array(X @ unit, dtype=float)

    return operator_column
