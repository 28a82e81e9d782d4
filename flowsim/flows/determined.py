"""Remarks on late jumps of a flow that nearly dependent features leave undetermined to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.growth import GrowthCoordinates
from flowsim.problem import Regression
from flowsim.solvers import SeparableSolution, Solution

#: Error of the logarithm of a waiting weight from which on a remark is made.
_SAID = 0.1
#: Points of a run that are examined, and the part of the largest coefficient below which a coordinate waits.
_PLACES, _WAITING = 33, 1e-8
#: Range of the relative distance of a nearly dependent feature from the span of others; below it, it is dependent.
_NEARLY, _NONE = 1e-4, 1e-13
_ROUNDINGS = 2.0 * float(np.finfo(float).eps)


def undetermined(coordinates: Any, solution: Solution | SeparableSolution) -> list[str]:
    r"""Remarks on late jumps of a flow of a quadratic network that the data do not determine.

    At rest the residual r has a relative rounding error, and rounding errors of y outside the span of active columns,

    .. math:: |\delta z_j| \le t \, u \, ( |X_j| |r| + |X_j^\perp| |y| ) / n ,

    which shift the logarithms of waiting weights. Directions that :mod:`flowsim.solvers.separable.row_factor` left out
    as rounding are mentioned too.
    """
    inner = getattr(coordinates, "inner", coordinates)
    if not (isinstance(inner, GrowthCoordinates) and isinstance(solution, SeparableSolution) and len(solution.h)):
        return []
    problem, parts = inner.problem, []
    rank = solution.stats.get("graded_rows")
    if rank is not None and rank < min(problem.n, problem.d):
        parts.append(f"X has rank {rank} to rounding, and motion along its other directions is left out")
    if not (isinstance(problem, Regression) and problem.is_dense):
        return parts
    # The error of the dual by time t is at most twice t times this: residuals are no larger than y.
    pace = _ROUNDINGS * inner.fastest
    if solution.t[-1] * pace > _SAID and not problem.independence >= _NEARLY:
        step = np.arange(len(solution.h) - 1, -1, -(1 + len(solution.h) // _PLACES))
        step = step[2.0 * pace * solution.t[step + 1] > _SAID]
        t = solution.t[step + 1]
        beta = inner.predictor(t, solution.at_steps(step, np.ones(len(step))))
        known = max(_error_of_dual(problem, now, row) for now, row in zip(t, beta, strict=True)) * inner.map.rate
        if known > _SAID:
            parts.append(
                "late jumps are not determined by the data: features nearly depend on others, and rounding of X and y "
                f"leaves the logarithms of weights that wait known to {known:.0e}"
            )
    return parts


def _error_of_dual(problem: Regression, t: float, beta: Array) -> float:
    X, norms = problem.X, problem.column_norms
    waits = (np.abs(beta) <= _WAITING * np.abs(beta).max()) & (norms > 0)
    Q = np.linalg.qr(X[:, ~waits])[0]
    apart = np.linalg.norm(X[:, waits] - Q @ (Q.T @ X[:, waits]), axis=0)
    nearly = (apart < _NEARLY * norms[waits]) & (apart > _NONE * norms[waits])
    rest = norms[waits] * np.linalg.norm(problem.y - X @ beta) + apart * np.linalg.norm(problem.y)
    return float(t * _ROUNDINGS * rest[nearly].max(initial=0.0) / problem.n)
