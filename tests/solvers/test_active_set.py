"""The factor of an active set against factorisations from scratch, the cone against its optimality conditions."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.linear_model import Lasso

from flowsim.solvers.active_set import ColumnFactor, ConeRegression, relative_rounding, scaled_norm

ROUNDING = relative_rounding(30)


def assert_factorises(factor: ColumnFactor, A: np.ndarray, tolerance: float = 1e-14) -> None:
    """``A = Q R``, Q orthonormal, R triangular: to rounding, whatever the condition of A."""
    size = np.linalg.norm(A, axis=0)
    assert factor.Q.shape == A.shape
    np.testing.assert_allclose((factor.Q @ factor.R) / size, A / size, atol=10 * tolerance)
    np.testing.assert_allclose(factor.Q.T @ factor.Q, np.eye(A.shape[1]), atol=10 * tolerance)
    np.testing.assert_array_equal(factor.R, np.triu(factor.R))


@pytest.mark.parametrize("seed", range(5))
def test_updates_and_downdates_in_any_order_equal_the_cholesky_factor_from_scratch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor, A = ColumnFactor(30), np.empty((30, 0))
    for _ in range(200):
        if A.shape[1] and (A.shape[1] == 25 or rng.random() < 0.45):
            position = int(rng.integers(A.shape[1]))
            factor.remove(position)
            A = np.delete(A, position, axis=1)
        else:
            column = rng.standard_normal(30) * 10.0 ** rng.integers(-3, 4)
            assert factor.append(column, ROUNDING)
            A = np.column_stack([A, column])
    assert_factorises(factor, A, 1e-13)  # two hundred rotations
    scratch = np.linalg.cholesky(A.T @ A).T
    np.testing.assert_allclose(np.abs(factor.R), np.abs(scratch), rtol=1e-8, atol=1e-8 * np.abs(scratch).max())
    b = rng.standard_normal(A.shape[1])
    np.testing.assert_allclose(factor.R @ factor.solve(b), b, atol=1e-11 * np.abs(b).max())
    np.testing.assert_allclose(factor.R.T @ factor.solve_transposed(b), b, atol=1e-11 * np.abs(b).max())


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-12])
def test_nearly_dependent_columns_keep_the_factor_orthonormal(distance: float) -> None:
    rng = np.random.default_rng(1)
    A = rng.standard_normal((30, 6))
    A[:, 5] = A[:, :5] @ rng.standard_normal(5) + distance * rng.standard_normal(30)
    factor = ColumnFactor(30)
    assert all(factor.append(column, ROUNDING) for column in A.T)
    assert_factorises(factor, A)
    # The short diagonal entry is the distance to the span, which lstsq finds independently.
    rest = A[:, 5] - A[:, :5] @ np.linalg.lstsq(A[:, :5], A[:, 5])[0]
    assert factor.R[5, 5] == pytest.approx(np.linalg.norm(rest), rel=1e-14 / distance + 1e-10)
    y = rng.standard_normal(30)
    fit = A @ np.linalg.lstsq(A, y, rcond=None)[0]
    np.testing.assert_allclose(y - factor.outside(y), fit, atol=1e-13 / distance)
    for position in (2, 0):  # downdating keeps what was short
        factor.remove(position)
        A = np.delete(A, position, axis=1)
        assert_factorises(factor, A)


def test_a_column_in_the_span_is_refused_and_leaves_the_factor_as_it_was() -> None:
    rng = np.random.default_rng(2)
    A = rng.standard_normal((30, 4))
    factor = ColumnFactor(30)
    assert all(factor.append(column, ROUNDING) for column in A.T)
    for column in (A[:, 0], -1e8 * A[:, 2], A @ [1.0, 2.0, -3.0, 0.5], np.zeros(30)):
        assert not factor.append(column, ROUNDING)
        assert_factorises(factor, A)


def test_a_full_factor_takes_nothing_more() -> None:
    factor = ColumnFactor(3)
    assert all(factor.append(column, 1e-12) for column in np.eye(3))
    assert not factor.append(np.ones(3), 1e-12)
    np.testing.assert_allclose(factor.outside(np.array([1.0, 2.0, 3.0])), 0, atol=1e-15)


def test_the_factor_grows_past_its_first_capacity() -> None:
    rng = np.random.default_rng(3)
    A = rng.standard_normal((50, 40))
    factor = ColumnFactor(50)
    assert all(factor.append(column, 1e-12) for column in A.T)
    assert_factorises(factor, A, 1e-13)


@pytest.mark.parametrize("exponent", [-1000, -600, 0, 600, 1000])
def test_the_scaled_norm_survives_squares_out_of_range(exponent: int) -> None:
    assert scaled_norm(2.0**exponent * np.array([3.0, -4.0])) == 5.0 * 2.0**exponent
    assert scaled_norm(np.zeros(3)) == 0.0


def reader(A: np.ndarray) -> Callable[[int], np.ndarray]:
    return lambda i: np.array(A[:, i])


def solution(cone: ConeRegression[int], d: int) -> np.ndarray:
    b = np.zeros(d)
    b[cone.members] = cone.b
    return b


@pytest.mark.parametrize("seed", range(20))
def test_the_cone_regression_of_all_columns_is_nonnegative_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(3, 20)), int(rng.integers(1, 15))
    A, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    cone = ConeRegression(y, reader(A))
    cone.solve([(i, 0.0) for i in range(d)])
    expected, norm = nnls(A, y)
    assert np.linalg.norm(cone.residual) == pytest.approx(norm, rel=1e-10)
    if np.linalg.matrix_rank(A[:, expected > 0]) == (expected > 0).sum() and d <= n:
        np.testing.assert_allclose(solution(cone, d), expected, atol=1e-10)
    assert sorted(cone.members + cone.waiting) == list(range(d))


@pytest.mark.parametrize("seed", range(20))
def test_columns_that_join_one_by_one_meet_the_optimality_conditions_with_their_costs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, y, cost = rng.standard_normal((12, 30)), rng.standard_normal(12), rng.uniform(0.0, 1.0, 30)
    cone = ConeRegression(y, reader(A))
    for last in range(30):
        cone.solve([(last, cost[last])])
        b = solution(cone, 30)
        here = slice(0, last + 1)
        excess = A[:, here].T @ (y - A @ b) - cost[here]
        np.testing.assert_allclose(cone.residual, y - A @ b, atol=1e-12)
        assert (cone.b > 0).all()
        np.testing.assert_allclose(excess[b[here] > 0], 0, atol=1e-11)
        assert excess.max() <= 1e-11
    equal = ConeRegression(y, reader(A))  # the order of joining does not matter
    equal.solve([(i, cost[i]) for i in rng.permutation(30).tolist()])
    np.testing.assert_allclose(solution(equal, 30), b, atol=1e-10)


def test_equal_costs_on_both_signs_give_the_lasso() -> None:
    rng = np.random.default_rng(4)
    A, y = rng.standard_normal((40, 25)), rng.standard_normal(40)
    both = np.column_stack([A, -A])
    cone = ConeRegression(y, reader(both))
    cone.solve([(i, 40 * 0.1) for i in range(50)])
    b = solution(cone, 50)
    lasso = Lasso(alpha=0.1, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(A, y)
    np.testing.assert_allclose(b[:25] - b[25:], lasso.coef_, atol=1e-8)


@pytest.mark.parametrize("distance", [0.0, 1e-15, 1e-10, 1e-7, 1e-4])
def test_nearly_equal_columns_leave_the_fit_of_nonnegative_least_squares(distance: float) -> None:
    rng = np.random.default_rng(5)
    A, y = rng.standard_normal((20, 5)), rng.standard_normal(20)
    A = np.column_stack([A, A + distance * rng.standard_normal(A.shape), A[:, :2] + A[:, 2:4]])
    cone = ConeRegression(y, reader(A))
    cone.solve([(i, 0.0) for i in range(12)])
    b = solution(cone, 12)
    # Without costs, the fit is the projection on a closed cone: unique, whatever the columns.
    best = min(
        np.linalg.norm(y - A[:, list(s)] @ np.maximum(nnls(A[:, list(s)], y)[0], 0))
        for s in itertools.combinations(range(12), 11)
    )
    assert np.linalg.norm(y - A @ b) <= best * (1 + 1e-9)
    np.testing.assert_allclose(cone.residual, y - A @ b, atol=1e-9)
    assert np.isfinite(b).all() and (A.T @ cone.residual).max() <= 1e-9


def test_a_dependent_column_of_lower_cost_takes_the_place_of_a_dearer_one() -> None:
    y = np.array([1.0, 1.0])
    A = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    cone = ConeRegression(y, reader(A))
    cone.solve([(0, 0.1), (1, 0.1)])
    np.testing.assert_allclose(sorted(cone.b), [0.9, 0.9])
    cone.solve([(2, 0.05)])
    assert cone.members == [2]
    np.testing.assert_allclose(cone.b, [(2 - 0.05) / 2])
    assert sorted(cone.waiting) == [0, 1]
    assert cone.excess(0) < -1.0  # 0.025 - 0.1: pushed back, far beyond rounding
    cone.dismiss(0)
    assert cone.waiting == [1]


def test_dependence_of_waiting_columns_is_seen() -> None:
    A = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    cone = ConeRegression(np.array([1.0, 0.0]), reader(A))
    cone.solve([(i, 0.0) for i in range(3)])
    assert cone.members in ([0], [1])
    twin = 1 - cone.members[0]
    assert cone.dependent([twin])
    assert not cone.dependent([2])
    assert not cone.dependent([])
    assert cone.dependent([2, twin])
