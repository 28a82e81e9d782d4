"""A run on separable data against the directions of largest margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsim.problem import Problem
from flowsim.problem.margins import MaxMargin, max_margin_l1, max_margin_l2
from flowsim.results import State

__all__ = ["Separation", "separation"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Separation:
    """Margins and directions along a run, against the best there are.

    Attributes
    ----------
    log_loss : array (T,)
    margin_l1, margin_l2 : array (T,)
        ``min_i y_i x_i . beta / ||beta||`` in both norms, NaN at beta = 0.
    distance_l1, distance_l2 : array (T,)
        ``|| beta/||beta|| - b ||`` to the direction b of largest margin, in the norm that it is the largest in.
    best_l1, best_l2 : MaxMargin
    """

    log_loss: Array
    margin_l1: Array
    margin_l2: Array
    distance_l1: Array
    distance_l2: Array
    best_l1: MaxMargin
    best_l2: MaxMargin


def separation(run: State, problem: Problem) -> Separation:
    """Compare a trajectory (or a state of it) with the l1 and the l2 max-margin direction.

    Parameters
    ----------
    run : Trajectory or State
        Of a DiagonalNetwork, or of a LinearNetwork with one target.
    problem : Problem
        One target of labels -1 and +1.

    Raises
    ------
    ValueError
        If no direction separates the data.

    References
    ----------
    Moroshko, Gunasekar, Woodworth, Lee, Srebro & Soudry, arXiv 2007.06738.
    """
    beta = np.asarray(run.beta, dtype=float).reshape(-1, problem.d)
    best = max_margin_l1(problem), max_margin_l2(problem)
    f = np.asarray(problem.X @ beta.T).T
    least = (f * problem.y.reshape(problem.n)).min(axis=1)
    margins, distances = [], []
    for order, optimum in zip((1, 2), best, strict=True):
        size = np.linalg.norm(beta, ord=order, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            margins.append(least / size)
            distances.append(np.linalg.norm(beta / size[:, None] - optimum.direction, ord=order, axis=1))
    assert run.log_loss is not None
    return Separation(np.atleast_1d(run.log_loss), margins[0], margins[1], distances[0], distances[1], best[0], best[1])
