"""The entries of X: as a dense array, for any type of X, and scaled by powers of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.arrays import Array
from flowsim.problem.problems import Problem


def dense(problem: Problem) -> Array:
    """X as an array (n, d)."""
    X: Any = problem.X
    if isinstance(X, np.ndarray):
        return X
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X @ np.eye(problem.d))


def scaled(X: Any, exponent: int) -> Any:
    """``2^exponent X`` for an array or a sparse matrix; X itself for the exponent 0."""
    if not exponent or isinstance(X, np.ndarray):
        return np.ldexp(X, exponent) if exponent else X
    X = X.copy()
    X.data = np.ldexp(X.data, exponent)
    return X
