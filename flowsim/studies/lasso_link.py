r"""The time average of the limit against the Lasso path.

While no coefficient has left its bound, the average ``(1/t) int_0^t beta`` solves the Lasso

.. math:: \min_b \; L(b) + \sum_i \Big( \frac{t_i^\pm}{t} + \kappa_i^\pm \Big) |b_i| ,

(for ``u*v`` without noise: ``lambda = 1/t``), because its gradient is ``-s(t)/t`` and s is at a bound wherever the
average is not 0. Once a coefficient is deactivated its average remains; where its dual then moves back inside, the two
paths differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.card import Plotted, one_line
from flowsim.limits import SaddlePath
from flowsim.problem import Regression, require_squares
from flowsim.results.saved import Saved
from flowsim.studies.references import weighted_lasso

#: Relative differences up to this count as zero.
_SAME = 1e-9
#: Number of times by default.
_SAMPLES = 60


@dataclass(frozen=True, eq=False)
class LassoLink(Plotted, Saved):
    """The time average of a limit path and the Lasso path.

    Attributes
    ----------
    path : SaddlePath
    t : array (T,)
    average, lasso : array (T, d)
        The time average up to t and the Lasso of the same penalty.
    distance : array (T,)
        Largest difference, relative to the largest coefficient of the Lasso.
    departs_at : float
        The time from which on they differ; inf if they never do.
    because : tuple of int
        The coordinates whose dual leaves its bound at that time while their average is not 0.
    reason : str
    """

    _plotted_by = "lasso_link"

    path: SaddlePath
    t: Array
    average: Array
    lasso: Array
    distance: Array
    departs_at: float
    because: tuple[int, ...]
    reason: str

    __repr__ = one_line


def lasso_link(path: SaddlePath, t: ArrayLike | None = None) -> LassoLink:
    """Compare the time average of a limit path with the Lasso path.

    Parameters
    ----------
    path : SaddlePath
        From a vanishing start.
    t : array (T,), optional
        Accelerated times > 0; by default around all jumps.

    Raises
    ------
    ValueError
        For a path from another start, one without jumps, or times out of range.
    """
    if path.start_beta is not None:
        raise ValueError("`path` must begin at 0; received one from pretrained weights or an earlier path.")
    if not len(path.jump_times):
        raise ValueError("`path` must have at least one jump; received none.")
    first, last = float(path.jump_times[0]), float(path.jump_times[-1])
    times = np.geomspace(0.9 * first, 1.5 * last, _SAMPLES) if t is None else np.asarray(t, dtype=float)
    if times.ndim != 1 or not len(times) or not (times > 0).all():
        raise ValueError(f"`t` must be a vector of times > 0; received {times}.")
    averages = path.time_average(times)
    problem = require_squares(path.problem, "its link with the Lasso")
    if np.any(path.offset):
        shift = problem.predict(np.broadcast_to(path.offset, (problem.d,)))
        problem = Regression(problem.X, problem.y - shift, problem.feature_names)
    (upper, lower), (up_cost, low_cost) = path.thresholds, path.penalties
    solutions = np.array([weighted_lasso(problem, (upper / time + up_cost, lower / time + low_cost)) for time in times])
    scale = np.abs(solutions).max(axis=1)
    gap = np.abs(averages - solutions).max(axis=1)
    for row in np.flatnonzero(gap > _SAME * scale):
        # With dependent columns the Lasso has several solutions: the average may be one of them.
        costs = upper / times[row] + up_cost, lower / times[row] + low_cost
        if _is_solution(problem, averages[row], costs):
            solutions[row], gap[row] = averages[row], 0.0
    distance = np.divide(gap, scale, out=np.where(gap > 0, np.inf, 0.0), where=scale > 0)
    departs_at, because = _departure(path, problem)
    names = ", ".join(problem.feature_names[i] for i in because)
    reason = (
        f"{names}: deactivated, and its dual leaves its bound from t={departs_at:.6g} on while the average keeps it"
        if because
        else f"no dual leaves its bound while its average is not 0: the average solves {_penalised(path)} for all t"
    )
    return LassoLink(path, times, averages, solutions, distance, departs_at, because, reason)


def _penalised(path: SaddlePath) -> str:
    """The Lasso in words: the signs that the start allows, and the penalties."""
    upper, lower = (np.isfinite(side) for side in path.thresholds)
    signs = "" if upper.all() and lower.all() else " over the signs that the start allows"
    signs = " over b >= 0" if upper.all() and not lower.any() else signs
    finite = np.concatenate([np.ravel(side)[np.isfinite(np.ravel(side))] for side in path.thresholds])
    penalty = "1/t" if (finite == 1.0).all() else "thresholds/t"
    return f"the Lasso{signs} with {penalty}" + (
        " and the penalties of noise or decay" if np.any(path.penalties) else ""
    )


def _is_solution(problem: Regression, beta: Array, costs: tuple[Array, Array]) -> bool:
    """Whether the optimality conditions of the Lasso hold, to rounding of its residual."""
    force = -problem.gradient(beta)
    noise = _SAME * problem.column_norms * float(np.linalg.norm(problem.y)) / problem.n
    plus, minus = force - costs[0], -force - costs[1]
    excess = np.where(beta > 0, np.abs(plus), np.where(beta < 0, np.abs(minus), np.maximum(plus, minus)))
    return bool((excess <= noise).all())


def _departure(path: SaddlePath, problem: Regression) -> tuple[float, tuple[int, ...]]:
    """The time at which a dual first leaves the bound at which its coefficient was active, and the coordinates."""
    from flowsim.solvers.active_set import relative_rounding

    noise = relative_rounding(problem.n) * float(np.linalg.norm(problem.y)) / problem.n
    active: dict[int, int] = {}
    for k, (support, values) in enumerate(zip(path.supports, path.values, strict=True)):
        now = dict(zip(support.tolist(), np.sign(values).astype(int).tolist(), strict=True))
        waiting = [i for i in active if now.get(i) != active[i]]
        if waiting:
            beta = np.zeros(problem.d)
            beta[support] = values
            force = -problem.gradient(beta)
            gone = []
            for i in waiting:
                cost = path.penalties[0 if active[i] > 0 else 1]
                rate = active[i] * force[i] - np.broadcast_to(cost, (problem.d,))[i]
                if rate < -noise * problem.column_norms[i]:
                    gone.append(i)
            if gone:
                return float(path.jump_times[k - 1]), tuple(sorted(gone))
        active = {**now, **active}
    return np.inf, ()
