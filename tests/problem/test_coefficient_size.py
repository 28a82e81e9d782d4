"""The size of coefficients that data ask for, an estimate by single features."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs

X, Y = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 1.0]]), np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize("exponent", [-900, 0, 900])
def test_the_size_scales_with_the_targets(exponent: int) -> None:
    best = np.abs(X.T @ Y / (X**2).sum(axis=0)).max()
    assert fs.Regression(X, np.ldexp(Y, exponent)).coefficient_size == pytest.approx(
        np.ldexp(best, exponent), rel=1e-12
    )


def test_a_gradient_that_is_rounding_asks_for_no_coefficients() -> None:
    """The same rows with both labels."""
    rows = np.random.default_rng(0).standard_normal((4, 7))
    twice = fs.Problem(np.concatenate([rows, rows]), np.repeat([1.0, -1.0], 4), "logistic")
    assert twice.coefficient_size == 0.0
