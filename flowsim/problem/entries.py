"""The entries of X as a dense array, for any type of X."""

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
