"""Coefficients that are small differences of large terms, as where a start of large alpha fits like a kernel method."""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.problem.problems import Problem

#: Terms below this part of the ratio of y to the features are no larger than coefficients.
_SMALL = 1e-4
CANCELS = "coefficients are small differences of terms so large that their rounding exceeds `rtol`"
#: Runs whose rounding exceeds the tolerance, and this, are taken in other coordinates.
COARSE = 1e-8
_ROUNDINGS = 4.0 * float(np.finfo(float).eps)


def visible_part(problem: Problem, start: Array, terms: float) -> float:
    """The tolerance of weights that coefficients need, as a part of theirs: 1 unless `terms` exceed their size.

    `start` (d,): beta(0); `terms`: the change of beta with relative errors of weights.
    """
    least = float(np.abs(start).max(initial=0.0))
    if terms <= least or is_small(problem, terms):
        return 1.0
    return min(1.0, (max(least, problem.coefficient_size) or terms) / terms)


def is_small(problem: Problem, terms: float) -> bool:
    """Whether terms are far below the coefficients that data of this size have."""
    X = problem.X
    size = np.abs(X).max() if isinstance(X, np.ndarray) else math.sqrt(problem.feature_variances.max())
    return terms * float(size) <= _SMALL * float(np.abs(problem.y).max())


def is_lost(part: float, rtol: float, folds: float = 1.0) -> bool:
    """Whether rounding of terms, exponentials of so many e-folds, exceeds the tolerance of coefficients."""
    return _ROUNDINGS * folds > max(rtol, COARSE) * part
