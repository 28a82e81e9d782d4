from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs


def sparse_problem(n: int = 6, d: int = 9, seed: int = 0) -> fs.Regression:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    beta = np.zeros(d)
    beta[:3] = 1.0, -2.0, 0.5
    return fs.Regression(X, X @ beta)


@pytest.fixture
def problem() -> fs.Regression:
    return sparse_problem()
