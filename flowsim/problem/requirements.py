"""Problems in the form that a network or a theorem needs."""

from __future__ import annotations

from flowsim.problem.checks import check_finite
from flowsim.problem.losses import SQUARED
from flowsim.problem.matrices import MatrixSensing
from flowsim.problem.problems import Problem, Regression


def single_target(problem: Problem) -> Problem:
    """The problem with y as a vector, for a network with one output; raises ValueError for several, or NaN in it."""
    check_finite("y", problem.y)
    if problem.n_targets > 1:
        raise ValueError(f"`problem` must have a single target for a DiagonalNetwork; received {problem.n_targets}.")
    return problem.with_target(problem.y[:, 0]) if problem.y.ndim == 2 else problem


def matrix_targets(problem: Problem) -> Problem:
    """The problem with y as a matrix, for a network whose beta is one; measurements of a matrix as they are."""
    is_vector = problem.y.ndim == 1 and not isinstance(problem, MatrixSensing)
    return problem.with_target(problem.y[:, None]) if is_vector else problem


def require_squares(problem: Problem, what: str) -> Regression:
    """The problem, if its loss is the squared one.

    Raises
    ------
    ValueError
        Naming the feature that needs squares.
    """
    if isinstance(problem, Regression):
        return problem
    if isinstance(problem, Problem) and problem.loss_function is SQUARED:
        raise ValueError(f"`problem` must be a Regression for {what}; received {type(problem).__name__}.")
    if isinstance(problem, Problem):
        raise ValueError(
            f"`problem` must have the squared loss for {what}; received loss={problem.loss_function.name!r}."
        )
    raise ValueError(f"`problem` must be a Regression; received {type(problem).__name__}.")
