r"""Large steps: the edge of stability, and the limit of vanishing initialisation at a fixed step.

Linear stability of descent at a minimum requires ``sharpness <= 2/h``. A run whose minimum is sharper does not stay
there: it oscillates towards a flatter one, and its sharpness converges to a value at or just below ``2/h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Integers, log_abs
from flowsim.card import Plotted, one_line
from flowsim.descent import gradient_descent, sharpness
from flowsim.descent.settings import check_step
from flowsim.errors import IntegrationError
from flowsim.network import DiagonalNetwork, GivenWeights, LinearNetwork
from flowsim.problem import Regression, require_squares, single_target
from flowsim.results import Trajectory

#: A run is at the edge if its sharpness ends within this relative distance of 2/h.
_AT_EDGE = 0.02
#: Coordinates above this, relative to the largest, count as active.
_USED = 0.02
_ZERO = 1e-9
_MOST_JUMPS = 10_000


@dataclass(frozen=True, eq=False)
class EdgeRun:
    """One step size.

    Attributes
    ----------
    descent : Trajectory
        Up to the last finite state for a run that diverged.
    index : array (S,)
        The records at which the sharpness was computed.
    sharpness : array (S,)
    diverged : bool
    """

    step: float
    descent: Trajectory
    index: Integers
    sharpness: Array
    diverged: bool

    __repr__ = one_line

    @property
    def ratio(self) -> Array:
        """Sharpness over 2/h, (S,)."""
        return self.sharpness * self.step / 2.0

    @property
    def verdict(self) -> str:
        """diverged; at the edge: it was reached or ends within 2 % of 2/h; stable."""
        if self.diverged:
            return "diverged"
        return "at the edge" if self.ratio.max() > 1.0 or self.ratio[-1] > 1.0 - _AT_EDGE else "stable"

    @property
    def rising(self) -> float:
        """Fraction of the recorded intervals over which the loss increased; 0 for monotone descent."""
        return float((np.diff(self.descent.loss) > 0).mean())

    def summary(self) -> dict[str, Any]:
        beta = np.abs(self.descent.beta[-1])
        return {
            "step": self.step,
            "2/step": 2.0 / self.step,
            "largest sharpness": float(self.sharpness.max()),
            "sharpness at end": float(self.sharpness[-1]),
            "ratio at end": float(self.ratio[-1]),
            "loss at end": float(self.descent.loss[-1]),
            "loss rising": self.rising,
            "l1 norm at end": float(beta.sum()),
            "coordinates used": int((beta > _USED * beta.max()).sum()),
            "verdict": self.verdict,
        }


@dataclass(frozen=True, eq=False)
class EdgeStudy(Plotted):
    """Several step sizes from one start."""

    _plotted_by = "edge_of_stability"

    runs: tuple[EdgeRun, ...]

    __repr__ = one_line

    def rows(self) -> list[dict[str, Any]]:
        return [run.summary() for run in self.runs]


def edge_of_stability(
    net: DiagonalNetwork | LinearNetwork,
    problem: Regression,
    steps: Sequence[float],
    n_steps: int,
    *,
    alpha: Any = 1e-2,
    start: GivenWeights | None = None,
    record_every: int = 11,
    n_sharpness: int = 100,
) -> EdgeStudy:
    """Descend with each step size and compare the sharpness with 2/h.

    Parameters
    ----------
    steps : sequence of float
    n_steps : int
        For every step size.
    record_every : int
        Odd values resolve the oscillation, whose period is two steps.
    n_sharpness : int
        Number of recorded states at which the sharpness is computed.

    Notes
    -----
    The scale of a step size depends on the loss, here ``1/(2n) ||X beta - y||^2``: a step quoted for
    ``1/2 ||X beta - y||^2`` is n times as large here. The example: steps 1.75e-2 and 5e-3 on ``u*v`` with n = 50,
    d = 100 and two nonzero coefficients (``datasets.sparse_regression(50, 100, 2, seed=s)``, alpha = 0.01).

    - Unscaled, both are far below the edge. The two-sparse minimum has sharpness 2 to 3 against ``2/h`` = 114 and
      400: both descents are stable, converge to it, and the loss decreases at every step (s = 0, 1, 2).
    - Times n, 0.875 and 0.25, so that ``2/h`` = 2.29 and 8: the smaller one is still stable and ends at the sparse
      minimum on each of 20 draws (s = 0 ... 19; ratio 0.22 to 0.36). The larger one depends on the draw. On 12 of them
      the sharpness of the sparse minimum is below ``2/h`` and descent ends there. On the other 8 it is unstable (up to
      1.24 times ``2/h``): the sharpness overshoots, the loss oscillates, and after 5000 steps descent is within
      4 % of the edge; on 6 of these it has converged to a flatter interpolator of 9 to 49 coordinates with a larger
      l1 norm. s = 1 shows it best: it ends at 0.999 of ``2/h`` with 49 coordinates.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0]], [1.0])  # the flattest minimum of u*v = 1 has sharpness 2
    >>> study = fs.studies.edge_of_stability(fs.DiagonalNetwork("u*v"), problem, [0.5, 5.0], 300, alpha=0.1)
    >>> [run.verdict for run in study.runs]
    ['stable', 'diverged']
    """
    runs = []
    for step in steps:
        diverged = False
        try:
            descent = gradient_descent(net, problem, step, n_steps, alpha=alpha, start=start, record_every=record_every)
        except IntegrationError as error:
            if error.trajectory is None or "diverged" not in str(error):
                raise
            descent, diverged = error.trajectory, True
        # Half of the states evenly spaced, half close to the start, where the sharpness rises.
        last, half = len(descent) - 1, max(n_sharpness // 2, 2)
        places = np.concatenate([np.linspace(0, last, half), np.geomspace(1, max(last, 1), half)])
        index = np.unique(np.minimum(places, last).astype(np.int64))
        with np.errstate(all="ignore"):
            finite = np.array([np.abs(w[index]).reshape(len(index), -1).max(axis=1) for w in descent.weights.values()])
        index = index[(finite < 1e75).all(axis=0)]  # products of weights beyond this leave the range of floats
        values = sharpness(net, problem, {name: w[index] for name, w in descent.weights.items()})
        runs.append(EdgeRun(float(step), descent, index, values, diverged))
    return EdgeStudy(tuple(runs))


@dataclass(frozen=True, eq=False)
class DescentLimit:
    """The limit of descent on ``u*v`` as alpha -> 0 at a fixed step.

    Attributes
    ----------
    step : float
    jump_times : array (K,)
        In accelerated time ``h k / ln(1/alpha)``.
    saddles : array (K + 1, d)
        From 0 on; the last is the end point.
    """

    step: float
    jump_times: Array
    saddles: Array

    __repr__ = one_line

    @property
    def end(self) -> Array:
        return self.saddles[-1]

    def beta(self, t: ArrayLike) -> Array:
        """The saddle at accelerated times (...), the one after a jump at its time."""
        return self.saddles[np.searchsorted(self.jump_times, np.asarray(t, dtype=float), side="right")]


def descent_limit(problem: Regression, step: float) -> DescentLimit:
    r"""The saddle-to-saddle process of gradient descent on ``u*v`` with a fixed step.

    .. math:: \frac{d}{d\tilde t} \frac{\ln|u \pm v|}{\gamma} = \frac1h \ln|1 \mp h g_i|,

    so that the sum of both rates is ``ln(1 - h^2 g^2) / h < 0``, where for the flow (h = 0) it is
    0: jumps are delayed, the more the larger ``h |g|``, and not all in proportion, so that the saddles may differ.

    Parameters
    ----------
    problem : Regression
        Dense, one target.
    step : float
        h, small enough that descent is stable at every saddle of the process.

    Notes
    -----
    Coordinate i jumps upwards (downwards) when ``ln|u+v|`` (``ln|u-v|``) returns to order one; the next saddle is
    the minimum of the loss over the signs of all coordinates that have.
    """
    from scipy.optimize import nnls

    own = single_target(require_squares(problem, "the limit of descent"))
    h, X, y, d = check_step(step), np.asarray(own.X, dtype=float), own.y, own.d
    level = np.full((2, d), -1.0)
    beta, time = np.zeros(d), 0.0
    times: list[float] = []
    saddles = [beta]
    while len(times) < _MOST_JUMPS:
        g = own.gradient(beta)
        g[np.abs(g) <= _ZERO * max(1.0, float(np.abs(X.T @ y).max()) / own.n)] = 0.0
        rate = log_abs(np.array([1.0 - h * g, 1.0 + h * g])) / h
        waits = np.where((level < 0) & (rate > 0), -level / np.where(rate > 0, rate, 1.0), np.inf)
        wait = float(waits.min())
        if not np.isfinite(wait):
            break
        # A coordinate at its level stays there while its gradient is 0, and leaves it where that points inwards.
        level = np.minimum(level + wait * rate, 0.0)
        level[np.isclose(waits, wait, rtol=_ZERO, atol=0.0)] = 0.0
        time += wait
        up, down = np.flatnonzero(level[0] == 0.0), np.flatnonzero(level[1] == 0.0)
        solution = nnls(np.concatenate([X[:, up], -X[:, down]], axis=1), y)[0]
        beta = np.zeros(d)
        beta[up] += solution[: len(up)]
        beta[down] -= solution[len(up) :]
        times.append(time)
        saddles.append(beta)
    return DescentLimit(h, np.array(times), np.array(saddles))
