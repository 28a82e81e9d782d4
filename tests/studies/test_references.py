"""Reference solutions against scikit-learn, optimality conditions and each other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import Lasso

import flowsim as fs
from flowsim.studies import min_entropy, min_l1, min_l2, recovery_scores, weighted_lasso

NET = fs.DiagonalNetwork("u*v")


def wide(seed: int, n: int = 6, d: int = 15) -> fs.Regression:
    rng = np.random.default_rng(seed)
    return fs.Regression(rng.standard_normal((n, d)), rng.standard_normal(n))


@pytest.mark.parametrize("seed", range(5))
def test_the_limit_process_ends_at_the_unique_min_l1_solution(seed: int) -> None:
    problem = wide(seed)
    reference = min_l1(problem)
    assert reference.unique
    np.testing.assert_allclose(fs.saddle_to_saddle(NET, problem).end, reference.beta, atol=1e-9)
    weights = (np.full(15, 0.5), np.linspace(0.5, 2, 15))
    np.testing.assert_allclose(
        fs.saddle_to_saddle(NET, problem, thresholds=weights).end, min_l1(problem, weights).beta, atol=1e-9
    )


def test_forbidden_signs_are_not_used_and_sparse_data_work() -> None:
    problem = wide(0)
    sparse = fs.Regression(scipy.sparse.csr_array(problem.X), problem.y)
    solution = min_l1(sparse, (1.0, np.inf))
    assert solution.beta.min() >= 0
    np.testing.assert_allclose(problem.X @ solution.beta, problem.y, atol=1e-9)


def test_an_equation_without_solution_is_refused() -> None:
    with pytest.raises(ValueError, match="must have a solution"):
        min_l1(fs.Regression([[1.0], [1.0]], [0.0, 1.0]))


def test_of_many_min_l1_solutions_the_flow_selects_the_entropic_one() -> None:
    # x2 = (x0 + x1) / 2: every point of a segment has the same l1 norm.
    rng = np.random.default_rng(1)
    base = rng.standard_normal((4, 2))
    X = np.column_stack([base, base.mean(axis=1)])
    y = X @ np.array([1.0, 2.0, 0.5])
    problem = fs.Regression(X, y)
    start = {"u": np.array([1.0, 0.5, 2.0]), "v": np.zeros(3)}
    reference = min_l1(problem)
    assert not reference.unique
    end = fs.saddle_to_saddle(NET, problem, start).end
    assert np.abs(end).sum() == pytest.approx(reference.value, rel=1e-9)
    np.testing.assert_allclose(min_entropy(NET, problem, "1e-10000", start), end, atol=1e-6)
    flow = fs.gradient_flow(NET, problem, 60.0, alpha="1e-10000", start=start, clock="accelerated", rtol=1e-9)
    np.testing.assert_allclose(flow.beta[-1], end, atol=1e-5)
    # Stationarity on the segment: u0^2 u1^2 / u2^4 = beta0 beta1 / beta2^2.
    assert end[0] * end[1] / end[2] ** 2 == pytest.approx((1.0 * 0.5 / 4.0) ** 2, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 1e-2, "1e-20", "1e-1000"])
@pytest.mark.parametrize("formula", ["u*v", "u**2 - v**2", "2*u**2 - v**2"])
def test_the_flow_ends_at_the_entropy_minimiser(formula: str, alpha: float | str) -> None:
    problem, net = wide(3, 3, 6), fs.DiagonalNetwork(formula)
    gamma = max(1.0, -fs.gradient_flow(net, problem, 1e-6, alpha=alpha).info["log_alpha"])
    flow = fs.gradient_flow(net, problem, 200.0 * gamma, alpha=alpha, rtol=1e-10)
    np.testing.assert_allclose(flow.beta[-1], min_entropy(net, problem, alpha), atol=1e-6)


def test_the_least_norm_solution_has_least_norm() -> None:
    problem = wide(2)
    beta = min_l2(problem)
    np.testing.assert_allclose(problem.X @ beta, problem.y, atol=1e-12)
    null = np.linalg.svd(problem.X)[2][6:]
    np.testing.assert_allclose(null @ beta, 0, atol=1e-13)
    sparse = fs.Regression(scipy.sparse.csr_array(problem.X), problem.y)
    np.testing.assert_allclose(min_l2(sparse), beta, atol=1e-10)


def test_the_weighted_lasso_is_scikit_learns_and_meets_its_conditions() -> None:
    problem = fs.datasets.diabetes()
    expected = Lasso(alpha=1.5, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(problem.X, problem.y).coef_
    np.testing.assert_allclose(weighted_lasso(problem, 1.5), expected, atol=1e-8)
    rng = np.random.default_rng(5)
    wide_problem = wide(9, 20, 60)
    plus, minus = rng.uniform(0.05, 0.2, (2, 60))
    beta = weighted_lasso(wide_problem, (plus, minus))
    g = wide_problem.gradient(beta)
    np.testing.assert_allclose(g[beta > 0], -plus[beta > 0], atol=1e-12)
    np.testing.assert_allclose(g[beta < 0], minus[beta < 0], atol=1e-12)
    assert (g >= -plus - 1e-12).all()
    assert (g <= minus + 1e-12).all()


@pytest.mark.parametrize("size", [1e-200, 1e-9, 1e-7, 1.0, 1e12])
def test_the_interpolant_of_least_norm_scales_with_the_target(size: float) -> None:
    X, truth = np.random.default_rng(0).standard_normal((4, 6)), np.zeros(6)
    truth[[1, 3]] = 1.0, -2.0
    found = min_l1(fs.Regression(X, size * (X @ truth)))
    assert found.value == pytest.approx(3.0 * size, rel=1e-12)
    np.testing.assert_allclose(found.beta, size * truth, rtol=1e-12)
    assert found.unique


def test_nearly_collinear_columns_have_their_own_interpolant_of_least_norm() -> None:
    rng = np.random.default_rng(66)
    X = rng.standard_normal((6, 3))
    X[:, 2] = X[:, 0] + 1e-6 * rng.standard_normal(6)
    for seed in range(10):
        y = X @ np.linalg.lstsq(X, np.random.default_rng(seed).standard_normal(6), rcond=None)[0]
        problem = fs.Regression(X, y)
        found = min_l1(problem)
        np.testing.assert_allclose(found.beta, min_l2(problem), rtol=1e-7)  # X has full column rank
        assert min_l1(fs.Regression(X, 0 * y)).value == 0


@pytest.mark.parametrize("kind", ["one row", "one column", "collinear", "duplicated", "empty column"])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_the_weighted_lasso_meets_its_conditions_on_degenerate_data(kind: str, size: float) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal({"one row": (1, 4), "one column": (5, 1)}.get(kind, (5, 4)))
    if kind == "collinear":
        X[:, 1] = X[:, 0] + 1e-6 * rng.standard_normal(5)
    elif kind == "duplicated":
        X[:, 1] = X[:, 0]
    elif kind == "empty column":
        X[:, 1] = 0.0
    problem = fs.Regression(X, size * rng.standard_normal(len(X)))
    top = np.abs(problem.gradient(np.zeros(X.shape[1]))).max()
    for share in (1e-6, 1e-3, 0.1, 0.9):
        penalty = share * top
        beta = weighted_lasso(problem, penalty)
        g = -problem.gradient(beta)
        excess = np.where(beta == 0, np.abs(g) - penalty, np.abs(g - np.sign(beta) * penalty))
        assert excess.max() <= 1e-11 * top
    link = fs.lasso_link(fs.saddle_to_saddle(NET, problem))
    assert link.distance[link.t < link.departs_at].max(initial=0.0) < 1e-6


def test_recovery_scores_count_support_signs_and_distance() -> None:
    scores = recovery_scores([1.0, -1.0, 0.5, 0.0], [2.0, 1.0, 0.0, 0.0])
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((2 / 3, 1.0, 0.8))
    assert (scores.exact_support, scores.signs) == (False, 0.5)
    assert scores.relative_error == pytest.approx(np.sqrt(5.25 / 5))
    assert recovery_scores([2.0, 0.0], [1.0, 0.0]).exact_support
    assert recovery_scores([0.0, 0.0], [1.0, 0.0]).recall == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recovery_scores([1.0], [0.0]), "`truth` must have at least one entry"),
        (lambda: recovery_scores([1.0, 2.0], [0.0]), "must be vectors of one length"),
        (lambda: recovery_scores([np.nan], [1.0]), "must be finite"),
        (lambda: min_l1(wide(0), 0.0), "`weights` must be > 0"),
        (lambda: weighted_lasso(wide(0), -1.0), "`penalties` must be >= 0"),
        (lambda: min_entropy(fs.DiagonalNetwork(depth=3, weight_decay=0.1), wide(0), 0.1), "no noise or decay"),
    ],
)
def test_bad_arguments_of_references_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
