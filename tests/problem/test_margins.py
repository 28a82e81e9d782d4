from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize

import flowsim as fs
from flowsim.studies import is_separable, max_margin_l1, max_margin_l2


def separable(seed: int, n: int = 20, d: int = 8) -> fs.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return fs.Problem(X, np.sign(X @ np.r_[1.0, -1.0, 0.5, np.zeros(d - 3)]), "logistic")


def test_one_sample_has_its_margins_in_closed_form() -> None:
    problem = fs.Problem([[3.0, -4.0]], [-1.0], "logistic")
    l1, l2 = max_margin_l1(problem), max_margin_l2(problem)
    assert (l1.margin, l2.margin) == (pytest.approx(4.0), pytest.approx(5.0))
    np.testing.assert_allclose(l1.direction, [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(l2.direction, [-0.6, 0.8], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_margins_are_largest(seed: int) -> None:
    problem = separable(seed)
    l1, l2 = max_margin_l1(problem), max_margin_l2(problem)
    A = problem.y[:, None] * problem.X
    # The l2 programme by an independent method.
    rows = {"type": "ineq", "fun": lambda b: A @ b - 1, "jac": lambda b: A}
    b = minimize(lambda b: b @ b / 2, np.ones(8), jac=lambda b: b, constraints=rows, method="SLSQP").x
    np.testing.assert_allclose(l2.direction, b / np.linalg.norm(b), atol=1e-4)
    # Duality: the margin in l1 is the least ||A^T p||_inf over the simplex.
    rng = np.random.default_rng(seed)
    for p in rng.dirichlet(np.ones(20), size=50):
        assert np.abs(A.T @ p).max() >= l1.margin - 1e-9
        assert np.linalg.norm(A.T @ p) >= l2.margin - 1e-9
    assert np.abs(l1.direction).sum() == pytest.approx(1.0)
    sparse = fs.Problem(scipy.sparse.csr_matrix(problem.X), problem.y, "logistic")
    assert max_margin_l1(sparse).margin == pytest.approx(l1.margin)
    assert max_margin_l2(sparse).margin == pytest.approx(l2.margin)
    tiny = fs.Problem(problem.X * 1e-100, problem.y, "logistic")
    assert max_margin_l1(tiny).margin == pytest.approx(1e-100 * l1.margin, rel=1e-6)
    assert max_margin_l2(tiny).margin == pytest.approx(1e-100 * l2.margin, rel=1e-6)


def test_data_that_no_direction_separates_say_so() -> None:
    mixed = fs.Problem([[1.0], [2.0]], [1.0, -1.0], "logistic")
    assert not is_separable(mixed)
    for call in (max_margin_l1, max_margin_l2):
        with pytest.raises(ValueError, match="must be separable"):
            call(mixed)
    with pytest.raises(ValueError, match=r"labels -1 and \+1"):
        max_margin_l1(fs.Regression([[1.0]], [3.0]))
