"""Noise, general thresholds, rational arithmetic, starts that do not vanish."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import linprog
from sklearn.linear_model import Lasso

import flowsim as fs
from flowsim.limits.rational import exact_process
from flowsim.solvers.entropy import SumOfExponentials, mirror_interpolation

NET = fs.DiagonalNetwork("u*v")
FOUR = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0])


def random_problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Small data: generic, integer with many ties, or integer with repeated and dependent columns."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    if seed % 2:
        return np.round(rng.standard_normal((n, d)), 3), np.round(rng.standard_normal(n), 3)
    X, y = rng.integers(-3, 4, (n, d)).astype(float), rng.integers(-4, 5, n).astype(float)
    if seed % 4 == 2:
        X = np.column_stack([X, X[:, :1], -X[:, -1:], X[:, 0] + X[:, -1]])
    return X, y


def thresholds_of(seed: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 5, d) / 2, rng.integers(1, 5, d) / 2) if seed % 3 else (np.ones(d), np.ones(d))


def some_and(first: int, last: int) -> list:
    """The first of many random problems, and, not quick, the others."""
    return [range(first), pytest.param(range(first, last), marks=pytest.mark.slow)]


@pytest.mark.parametrize("seeds", some_and(100, 500))
def test_floating_point_equals_rational_arithmetic_on_500_random_problems(seeds: range) -> None:
    jumps = 0
    for seed in seeds:
        X, y = random_problem(seed)
        pair = thresholds_of(seed, X.shape[1])
        problem = fs.Regression(X, y)
        exact = fs.saddle_to_saddle(NET, problem, thresholds=pair, exact=True)
        path = fs.saddle_to_saddle(NET, problem, thresholds=pair)
        assert exact.exact is not None
        assert [tuple(hit) for hit in path.hits] == list(exact.exact.hits), seed
        np.testing.assert_allclose(path.jump_times, exact.jump_times, rtol=1e-9)
        scale = max(1.0, np.abs(exact.saddles).max())
        np.testing.assert_allclose(path.saddles, exact.saddles, atol=1e-9 * scale, err_msg=str(seed))
        assert [a.tolist() for a in path.active_sets] == [a.tolist() for a in exact.active_sets]
        assert [(e.coordinate, e.sign, e.kind) for e in path.events] == [
            (e.coordinate, e.sign, e.kind) for e in exact.events
        ]
        jumps += len(path.jump_times)
    assert jumps > 2 * len(seeds)


@pytest.mark.parametrize("seeds", some_and(50, 200))
def test_floating_point_equals_rational_arithmetic_with_penalties(seeds: range) -> None:
    for seed in seeds:
        X, y = random_problem(2 * seed + 1)
        rng = np.random.default_rng(seed)
        costs = (np.round(rng.random(X.shape[1]), 2) / 4, np.round(rng.random(X.shape[1]), 2) / 4)
        problem = fs.Regression(X, y)
        exact = fs.saddle_to_saddle(NET, problem, penalties=costs, exact=True)
        path = fs.saddle_to_saddle(NET, problem, penalties=costs)
        np.testing.assert_allclose(path.jump_times, exact.jump_times, rtol=1e-9)
        np.testing.assert_allclose(path.saddles, exact.saddles, atol=1e-9 * max(1.0, np.abs(exact.saddles).max()))


@pytest.mark.slow
def test_the_end_has_the_least_weighted_l1_norm_among_solutions() -> None:
    for seed in range(300):
        X, y = random_problem(seed)
        y = X @ np.linalg.lstsq(X, y)[0]  # linprog wants an equation that can be solved
        plus, minus = thresholds_of(seed, X.shape[1])
        end = fs.saddle_to_saddle(NET, fs.Regression(X, y), thresholds=(plus, minus)).end
        np.testing.assert_allclose(X @ end, y, atol=1e-9 * max(1.0, np.abs(y).max()))
        best = linprog(np.concatenate([plus, minus]), A_eq=np.hstack([X, -X]), b_eq=y, method="highs")
        assert best.status == 0
        value = plus @ np.maximum(end, 0) + minus @ np.maximum(-end, 0)
        assert value == pytest.approx(best.fun, rel=1e-9, abs=1e-9)


def test_the_four_feature_fixture_is_met_exactly_in_fractions() -> None:
    X = [[Fraction(v).limit_denominator(10) for v in row] for row in ([1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7])]
    one, zero = [Fraction(1)] * 4, [Fraction(0)] * 4
    path = exact_process(X, [Fraction(1), Fraction(0)], (one, one), (zero, zero))
    assert path.jump_times == (2, 8, Fraction(552, 49))
    assert path.saddles[1:3] == ((Fraction(4, 5), 0, 0, 0), (0, 0, Fraction(7, 5), 0))
    assert path.saddles[3] == (0, 0, Fraction(10, 7), Fraction(-10, 49))


@pytest.mark.parametrize("eta", [0.05, 0.3, 1.0])
def test_with_noise_the_end_is_the_weighted_lasso(eta: float) -> None:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((25, 40)) * rng.uniform(0.5, 2, 40)
    y = X[:, :4].sum(axis=1) + 0.3 * rng.standard_normal(25)
    problem = fs.Regression(X, y)
    path = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(eta)), problem)
    kappa = eta**2 * problem.feature_variances
    lasso = Lasso(alpha=1.0, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(X / kappa, y).coef_ / kappa
    np.testing.assert_allclose(path.end, lasso, atol=1e-7)
    g, beta = problem.gradient(path.end), path.end
    np.testing.assert_allclose(g[beta != 0], -(kappa * np.sign(beta))[beta != 0], atol=1e-12)
    assert (np.abs(g) <= kappa * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("formula", "t_plus", "t_minus", "trace"),
    [("u**2 - v**2", 1 / 2, 1 / 2, 0.0), ("2*u**2 - v**2", 1 / 4, 1 / 2, 1.0), ("a*b + b*a", 1 / 2, 1 / 2, 0.0)],
)
def test_noise_penalises_in_inverse_proportion_to_the_threshold(
    formula: str, t_plus: float, t_minus: float, trace: float
) -> None:
    rng = np.random.default_rng(1)
    X, y, eta = rng.standard_normal((12, 5)), rng.standard_normal(12), 0.2
    problem = fs.Regression(X, y)
    start = {"a": 1.0, "b": 0.3} if "a" in formula else None
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(eta)), problem, start)
    kappa = eta**2 * problem.feature_variances
    shifted = fs.Regression(X, y - X @ np.full(5, trace * eta**2))
    expected = fs.saddle_to_saddle(
        NET, shifted, thresholds=(t_plus, t_minus), penalties=(kappa / t_plus, kappa / t_minus)
    )
    np.testing.assert_allclose(path.jump_times, expected.jump_times, rtol=1e-12)
    np.testing.assert_allclose(path.saddles, expected.saddles, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise({"u": 0.1})), "one std for all weights"),
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1, multiplicative=True)), "must be additive"),
        (fs.DiagonalNetwork("a*tanh(a) - b**2", noise=fs.GaussianNoise(0.1)), "known limit for quadratic formulas"),
        (fs.DiagonalNetwork("2*a**2 + b**2 - c**2", noise=fs.GaussianNoise(0.1)), "different curvature compete"),
    ],
)
def test_noise_without_a_known_limit_is_refused(net: fs.DiagonalNetwork, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.saddle_to_saddle(net, FOUR)


def test_noise_traps_deep_products_at_the_origin() -> None:
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.1)), FOUR)
    np.testing.assert_array_equal(path.end, np.zeros(4))


def quadrature(weights: list[float], side: int) -> float:
    """The growth threshold of a product, to 20 digits."""
    with mpmath.workdps(30):
        size = sorted((abs(mpmath.mpf(w)), w) for w in weights)
        smallest = size[0][0]
        c = smallest * (1 if np.prod(np.sign(weights)) >= 0 else -1)
        mu2 = [a**2 - smallest**2 for a, _ in size[1:]]
        f = lambda x: 1 / mpmath.sqrt(mpmath.fprod(x**2 + m for m in mu2))  # noqa: E731
        ends = [side * c, side * c + 1, mpmath.inf] if side * c > 0 else [side * c, 0, 1, mpmath.inf]
        return float(mpmath.quad(f, ends))


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, 2.0, 0.5],
        [1.5, -0.7, 0.3],
        [-1.0, 1.0, 0.4],
        [2.0, 1.0, 0.25, -0.5],
        [3.0, -1.0, -1.0, 0.9],
        [1.0, 1.0, 0.0],
    ],
)
def test_deep_products_jump_at_the_quadrature_of_their_thresholds(weights: list[float]) -> None:
    net = fs.DiagonalNetwork(depth=len(weights))
    start = {f"w{k + 1}": w for k, w in enumerate(weights)}
    for side in (1, -1):
        path = fs.saddle_to_saddle(net, fs.Regression([[1.0]], [2.0 * side]), start)
        assert path.jump_times[0] == pytest.approx(quadrature(weights, side) / 2.0, rel=1e-12)
        assert path.end[0] == pytest.approx(2.0 * side)


def test_tied_smallest_weights_lock_the_sign() -> None:
    net = fs.DiagonalNetwork(depth=3)
    start = {"w1": 1.0, "w2": 1.0, "w3": 2.0}
    assert len(fs.saddle_to_saddle(net, fs.Regression([[1.0]], [-2.0]), start).jump_times) == 0
    assert fs.saddle_to_saddle(net, fs.Regression([[1.0]], [2.0]), start).end[0] == pytest.approx(2.0)


def test_a_start_that_lacks_one_growing_direction_never_takes_that_sign() -> None:
    path = fs.saddle_to_saddle(NET, FOUR, {"u": 1.0, "v": 1.0})  # u = v: never negative
    assert path.saddles.min() >= 0
    assert path.end[2] > 0


def test_mixed_formulas_of_one_order_take_their_own_thresholds() -> None:
    net = fs.DiagonalNetwork(["u*v", "u**2 - v**2", "2*u**2 - v**2", "u*v"])
    path = fs.saddle_to_saddle(net, FOUR)
    plus, minus = [1, 1 / 2, 1 / 4, 1], [1, 1 / 2, 1 / 2, 1]
    expected = fs.saddle_to_saddle(NET, FOUR, thresholds=(plus, minus))
    np.testing.assert_allclose(path.jump_times, expected.jump_times, rtol=1e-12)
    np.testing.assert_allclose(path.saddles, expected.saddles, atol=1e-12)


def test_a_path_goes_on_from_any_of_its_states() -> None:
    problem = fs.datasets.diabetes()
    whole = fs.saddle_to_saddle(NET, problem)
    for t in (0.05, 0.2, 3.9, 9.0):
        rest = fs.saddle_to_saddle(NET, problem, whole.state(t))
        late = whole.jump_times > t
        np.testing.assert_allclose(rest.jump_times + t, whole.jump_times[late], rtol=1e-9)
        np.testing.assert_allclose(rest.saddles[0], whole.beta(t), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(rest.end, whole.end, rtol=1e-9)


def test_pretrained_coordinates_begin_active_and_the_rest_follow() -> None:
    rng = np.random.default_rng(6)
    X, y = rng.standard_normal((30, 5)), rng.standard_normal(30)
    problem = fs.Regression(X, y)
    weights = {"u": [1.0, 0, 0, 2.0, 0], "v": [0.3, 0, 0, 2.0, 0]}
    path = fs.saddle_to_saddle(NET, problem, pretrained=weights)
    np.testing.assert_allclose(path.start_beta, [0.3, 0, 0, 4.0, 0])
    # Coordinate 0 is free; coordinate 3 has u = v and can only be positive.
    free = np.linalg.lstsq(X[:, [0, 3]], y)[0]
    expected = free if free[1] > 0 else np.array([np.linalg.lstsq(X[:, [0]], y)[0][0], 0.0])
    np.testing.assert_allclose(path.saddles[0][[0, 3]], expected, rtol=1e-10)
    np.testing.assert_allclose(path.end, np.linalg.lstsq(X, y)[0], rtol=1e-9)


def test_pretrained_weights_on_dependent_columns_end_where_their_own_flow_ends() -> None:
    rng = np.random.default_rng(7)
    X, y = rng.standard_normal((3, 7)), rng.standard_normal(3)
    u, v = rng.uniform(0.5, 1.5, 7), rng.uniform(-0.4, 0.4, 7)
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y), pretrained={"u": u, "v": v})
    assert len(path.jump_times) == 0
    flow = fs.gradient_flow(NET, fs.Regression(X, y), 400.0, alpha=1.0, start={"u": u, "v": v}, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(X @ path.end, y, atol=1e-10)
    np.testing.assert_allclose(path.end, flow.beta[-1], atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 30.0, 2302.585, 23025.85])
def test_the_entropic_interpolant_solves_its_optimality_conditions_at_every_scale(gamma: float) -> None:
    rng = np.random.default_rng(9)
    A, f = rng.standard_normal((5, 20)), rng.standard_normal(5)
    offset = np.full((2, 20), np.log(0.5) - 2 * gamma)
    rate = np.array([[2.0] * 20, [-2.0] * 20])
    beta = mirror_interpolation(A, f, SumOfExponentials(offset, rate))
    np.testing.assert_allclose(A @ beta, f, atol=1e-9)
    # asinh(beta e^(2 gamma)) lies in the row space of A.
    mirror = np.sign(beta) * np.where(
        gamma > 100,
        np.log(2 * np.abs(beta) + 1e-300) + 2 * gamma,
        np.arcsinh(np.abs(beta) * np.exp(min(2 * gamma, 300))),
    )
    if gamma <= 30:
        null = np.linalg.svd(A)[2][5:]
        np.testing.assert_allclose(null @ mirror, 0, atol=1e-7 * np.abs(mirror).max())
    else:
        end = fs.saddle_to_saddle(NET, fs.Regression(A, f)).end
        np.testing.assert_allclose(beta, end, atol=1e-6)


def test_empty_columns_of_sparse_data_change_nothing() -> None:
    rng = np.random.default_rng(12)
    X = np.zeros((6, 40))
    X[:, ::4] = rng.standard_normal((6, 10))
    y = rng.standard_normal(6)
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
    dense = fs.saddle_to_saddle(net, fs.Regression(X, y))
    path = fs.saddle_to_saddle(net, fs.Regression(scipy.sparse.csr_array(X), y))
    np.testing.assert_allclose(path.jump_times, dense.jump_times, rtol=1e-12)
    np.testing.assert_allclose(path.saddles, dense.saddles, atol=1e-12)
    assert [e.coordinate for e in path.events] == [e.coordinate for e in dense.events]
    weights = {"u": np.r_[1.0, 2.0, np.zeros(38)], "v": np.r_[1.0, 1.0, np.zeros(38)]}
    path = fs.saddle_to_saddle(NET, fs.Regression(scipy.sparse.csr_array(X), y), pretrained=weights)
    assert path.end[1] == pytest.approx(2.0)
