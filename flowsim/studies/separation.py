"""Convergence of a run on separable data to the directions of largest margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.problem import Problem
from flowsim.problem.margins import MaxMargin, max_margin_l1, max_margin_l2, weighted_rows
from flowsim.results import State


@dataclass(frozen=True, eq=False)
class Separation:
    """Margins and directions along a run, against the largest margins.

    Attributes
    ----------
    log_loss : array (T,)
    margin_l1, margin_l2 : array (T,)
        ``min_i y_i x_i . beta / ||beta||`` in both norms, NaN at beta = 0.
    distance_l1, distance_l2 : array (T,)
        ``|| beta/||beta|| - b ||`` to the direction b of largest margin, in the respective norm.
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
    least = (f * problem.y.reshape(problem.n))[:, weighted_rows(problem)].min(axis=1)
    margins, distances = [], []
    for order, optimum in zip((1, 2), best, strict=True):
        size = np.linalg.norm(beta, ord=order, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            margins.append(least / size)
            distances.append(np.linalg.norm(beta / size[:, None] - optimum.direction, ord=order, axis=1))
    assert run.log_loss is not None
    return Separation(np.atleast_1d(run.log_loss), margins[0], margins[1], distances[0], distances[1], best[0], best[1])


@dataclass(frozen=True, eq=False)
class NuclearSeparation:
    r"""Margins of matrices along a run, and upper bounds on the largest margin.

    .. math:: \frac{\min_{ij} Y_{ij} (X \beta)_{ij}}{\lVert \beta \rVert_*} \;\le\;
              \max_{\lVert B \rVert_* \le 1} \min_{ij} Y_{ij} (X B)_{ij} \;\le\; \lVert X^\top (Y \circ q) \rVert_2
              \quad (q \ge 0, \; \textstyle\sum q = 1),

    with q the softmax weights of the loss along the run: where both sides agree, beta has the largest margin.

    Attributes
    ----------
    log_loss : array (T,)
    margin : array (T,)
        The left side, NaN at beta = 0.
    bound : array (T,)
        The right side.
    """

    log_loss: Array
    margin: Array
    bound: Array


def nuclear_separation(run: State, problem: Problem) -> NuclearSeparation:
    """Compare a trajectory of a LinearNetwork (or a state of it) with the largest margin in the nuclear norm.

    With one target the nuclear norm is the Euclidean norm.

    Parameters
    ----------
    run : Trajectory or State
    problem : Problem
        Targets of labels -1 and +1, the logistic or the exponential loss.

    Raises
    ------
    ValueError
        For another loss.
    """
    logs = problem.loss_function.margin_logs
    if logs is None:
        raise ValueError(
            "`problem` must have the logistic or exponential loss for a margin; received "
            f"{problem.loss_function.name!r}."
        )
    Y = problem.y.reshape(problem.n, -1)
    beta = np.asarray(run.beta, dtype=float).reshape(-1, problem.d, Y.shape[1])
    margins = Y * np.array([np.asarray(problem.X @ each) for each in beta])
    log_slope = logs(margins)[1] + log_abs(problem.entry_weights.reshape(Y.shape))
    q = np.exp(log_slope - log_slope.max(axis=(1, 2), keepdims=True))
    q /= q.sum(axis=(1, 2), keepdims=True)
    size = np.linalg.svd(beta, compute_uv=False).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = margins[:, weighted_rows(problem)].min(axis=(1, 2)) / size
    bound = np.array([np.linalg.norm(np.asarray(problem.X.T @ (Y * each)), 2) for each in q])
    assert run.log_loss is not None
    return NuclearSeparation(np.atleast_1d(run.log_loss), margin, bound)
