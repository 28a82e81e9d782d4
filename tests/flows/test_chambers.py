"""Weight noise where no growth map exists: symmetries are kept exactly, long runs end, nothing wrong is returned."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs
from flowsim.flows.reflections import Chambers, mirrors
from flowsim.solvers import InitialValueProblem, integrate
from tests.flows.oracle import averaged_flow

ONE = fs.Regression([[1.0]], [-1.0])
#: A coordinate that grows, sinks and changes sign.
FLIP = fs.Regression([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
UNBALANCED = {"u": [1.4, 1.4], "v": [0.3, 0.3]}


def product_stationarity(beta: np.ndarray, problem: fs.Regression, depth: int, eta: float) -> np.ndarray:
    """Gradient of L + sum V_i along balanced weights w = |beta|^(1/depth), per weight, where beta is not 0."""
    w = np.abs(beta) ** (1 / depth)
    pull = w * ((w**2 + eta**2) ** (depth - 1) - w ** (2 * depth - 2))
    out = problem.gradient(beta) * np.sign(beta) * w ** (depth - 1) + problem.feature_variances * pull
    return np.where(w > 1e-3, out, 0.0)


@pytest.mark.parametrize(
    ("depth", "noise"),
    [
        (3, fs.GaussianNoise),
        pytest.param(4, fs.UniformNoise, marks=pytest.mark.slow),
        pytest.param(5, fs.RademacherNoise, marks=pytest.mark.slow),
        pytest.param(3, fs.LaplaceNoise, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("eta", [pytest.param(0.1, marks=pytest.mark.slow), 0.6])
@pytest.mark.slow
def test_products_under_noise_run_to_any_horizon_and_end_balanced_and_stationary(depth: int, noise, eta) -> None:
    rng = np.random.default_rng(depth)
    X = rng.standard_normal((30, 5))
    problem = fs.Regression(X, X @ np.array([3.0, -2, 1, 0, 0]))
    net = fs.DiagonalNetwork(depth=depth, noise=noise(eta))
    start = {name: np.full(5, 1.0 + 0.1 * a) for a, name in enumerate(net.weights)}
    short, long = (fs.gradient_flow(net, problem, t, alpha=1.0, start=start) for t in (1e3, 1e12))
    assert long.stats["steps"] < 3 * short.stats["steps"] + 2000
    assert np.abs(product_stationarity(long.beta[-1], problem, depth, eta)).max() < 1e-8
    assert long.imbalance_drift < 1e-4
    large = np.abs(long.beta[-1]) > 1e-3
    ends = np.array([long.weights[name][-1] for name in net.weights])[:, large]
    np.testing.assert_allclose(np.abs(ends), np.abs(ends[:1]) + 0 * ends, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_two_layers_under_noise_or_decay_rest_at_the_lasso_for_ever(decay: float) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((12, 4))
    problem = fs.Regression(X, X @ np.array([3.0, -2.0, 1.0, 0.0]))
    net = fs.DiagonalNetwork("u*v", noise=None if decay else fs.LaplaceNoise(0.6), weight_decay=decay)
    right = fs.studies.weighted_lasso(problem, decay or 0.36 * problem.feature_variances)
    for alpha in (1.0, "1e-1000"):
        runs = [fs.gradient_flow(net, problem, t_end, alpha=alpha) for t_end in (1e5, 1e8, 1e12)]
        for run in runs:
            np.testing.assert_allclose(run.beta[-1], right, atol=1e-9)
        assert runs[2].stats["steps"] < 1.2 * runs[1].stats["steps"] + 100


def test_the_imbalance_follows_its_law_far_below_floats() -> None:
    """At rest d/dt ln(w_1^2 - w_2^2) = -2 sigma^2 eta^2 (w_3^2 + eta^2), for ever."""
    net = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.3))
    problem = fs.Regression([[1.0]], [2.0])
    traj = fs.gradient_flow(net, problem, 1e6, alpha=1.0, start={"w1": 1.0, "w2": 1.2, "w3": 0.8}, t_eval=[1e5, 1e6])
    w = traj.weights["w3"][-1, 0]
    slope = (traj.log_imbalance[1] - traj.log_imbalance[0]) / 9e5
    np.testing.assert_allclose(slope, -2 * 0.09 * (w**2 + 0.09), rtol=1e-7)
    assert traj.log_imbalance[1].max() < -1e4
    assert "rest" in traj.message


def test_products_under_noise_start_at_any_scale() -> None:
    """The origin is stable: every weight shrinks like exp(-sigma^2 eta^(2 L - 2) t)."""
    net = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.5))
    traj = fs.gradient_flow(
        net, fs.Regression([[2.0]], [1.0]), 100.0, alpha="1e-1000", start={"w1": 1, "w2": 2, "w3": 3}
    )
    np.testing.assert_allclose(
        traj.log_abs_weights["w2"][-1], math.log(2) - 1000 * math.log(10) - 4 * 0.5**4 * 100, rtol=1e-12
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("formula", "multiplicative"), [("tanh(u*v)", False), ("exp(u*v) - 1", True), ("sinh(u*v)", False)]
)
def test_equal_weights_stay_equal(formula: str, multiplicative: bool) -> None:
    """phi(u, v) = phi(v, u): from u = v, beta = phi(w, w) >= 0 for ever, whatever the target."""
    net = fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(0.1, multiplicative=multiplicative))
    traj = fs.gradient_flow(net, ONE, 200.0)
    assert (traj.weights["u"] == traj.weights["v"]).all()
    assert (traj.beta >= 0).all()
    assert traj.beta[-1, 0] < 1e-100


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) for name in ("LSODA", "DOP853", "BDF", "Radau")]
)
def test_a_sign_change_under_noise_is_followed(method: str) -> None:
    """Right value: 50-digit integration of the averaged gradient in the weights."""
    net = fs.DiagonalNetwork("u*v + u**3*v**3", noise=fs.RademacherNoise(0.05))
    traj = fs.gradient_flow(net, FLIP, 90.0, alpha=1e-8, start=UNBALANCED, t_eval=[72.0], method=method)
    np.testing.assert_allclose(traj.beta[0], [-1.53545, 0.30976], atol=1e-5)


@pytest.mark.slow
def test_a_formula_without_mirrors_is_followed_under_noise() -> None:
    """Against extrapolation in multiple precision (tests/flows/oracle.py)."""
    noise = fs.RademacherNoise(0.2)
    times = [12.0]
    right = averaged_flow("u*v + u**3*v", noise, FLIP, UNBALANCED, "1e-2", times)
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v + u**3*v", noise=noise), FLIP, 12.0, alpha=1e-2, start=UNBALANCED, t_eval=times
    )
    np.testing.assert_allclose(traj.beta, right, atol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", ["tanh(u)*v", "sin(u)*v", "u*v + u**3*v"])
def test_errors_that_would_decide_the_outcome_end_the_run(formula: str) -> None:
    """A sign change from 1e-6 or 1e-16 is beyond floats in weights; no polynomial invariant shows it."""
    for alpha in (1e-6, 1e-16):
        t_end = -4.2 * math.log(alpha)
        with pytest.raises(fs.IntegrationError, match="so close to a saddle"):
            fs.gradient_flow(
                fs.DiagonalNetwork(formula), FLIP, t_end, alpha=alpha, start=UNBALANCED, coordinates="weights"
            )


def test_a_second_attempt_with_finer_steps_is_made_where_that_helps() -> None:
    """Right value: 60-digit extrapolation."""
    t_end = -4.2 * math.log(1e-4)
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v + u**3*v"), FLIP, t_end, alpha=1e-4, start=UNBALANCED, coordinates="weights",
        t_eval=[0.9 * t_end],
    )  # fmt: skip
    np.testing.assert_allclose(traj.beta[0], [-2.49173, 0.87024], atol=1e-5)


def test_the_walls_of_a_product_are_differences_of_neighbours_and_a_last_sum() -> None:
    def averages(w: np.ndarray) -> np.ndarray:
        return np.array([w.prod(0), (w**2 + 0.1).prod(0)])

    normals = mirrors(averages, (0, 1, 2, 3), 4)
    assert len(normals) == 12  # w_a - w_b and w_a + w_b of every pair
    direction = np.array([[3.0], [1.0], [2.0], [-0.5]])
    chambers = Chambers.of([normals], np.zeros(1, dtype=np.int64), direction)
    assert chambers.is_wall.all()
    c = chambers.of_weights(direction)[:, 0]
    np.testing.assert_allclose(np.sort(c), [0.5, 1.0, 1.0, 1.5])
    np.testing.assert_allclose(chambers.weights(chambers.of_weights(direction)), direction)


def test_bdf_takes_no_matrix_from_beyond_an_overshoot() -> None:
    """Coupled logistic growths in logarithms: the matrix at an overshot prediction would freeze every correction."""
    A = np.array([[3.0, 1.0], [1.0, 3.4]])
    problem = InitialValueProblem(
        rhs=lambda t, y: np.array([3.0, 3.4]) - A @ np.exp(np.minimum(y, 60)),
        y0=np.array([-25.0, -25.0]),
        jacobian=lambda t, y: -A * np.exp(np.minimum(y, 60)),
    )
    runs = [integrate(problem, 14.0, method=method, rtol=0.0, atol=2e-8) for method in ("BDF", "Radau")]
    np.testing.assert_allclose(runs[0](np.array([8.0, 14.0])), runs[1](np.array([8.0, 14.0])), atol=1e-5)


@pytest.mark.parametrize(
    ("net", "alpha"),
    [
        (fs.DiagonalNetwork(depth=5, weight_decay=1e-301), "1e-100"),
        (fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(3e-101)), "1e-400"),
    ],
)
def test_rates_of_growth_that_are_no_floats_never_look_like_rest(net: fs.DiagonalNetwork, alpha: str) -> None:
    problem = fs.Regression(np.eye(2), [4.0, 1.4])
    with pytest.raises(fs.IntegrationError, match="rates they grow at"):
        fs.gradient_flow(net, problem, 4.0, alpha=alpha, clock="accelerated", coordinates="weights")


def test_weights_whose_products_underflow_grow_at_their_rates() -> None:
    # d ln w / dt = -g w^(L-2) - k, with k a tenth of alpha: w1 w2 = 1e-400 is no float, and w1 is one.
    k = 0.1
    problem = fs.Regression([[1.0]], [2.0])
    net = fs.DiagonalNetwork(depth=3, weight_decay=k * 1e-200)
    traj = fs.gradient_flow(net, problem, 0.4, alpha="1e-200", clock="accelerated", coordinates="weights")
    growth = np.log(traj.weights["w1"][-1, 0] / 1e-200)
    # 1/w = e^{kt} (1/alpha - |g| (1 - e^{-kt})/k)
    exact = -k * 0.4 - np.log1p(2.0 * np.expm1(-k * 0.4) / k)
    assert growth == pytest.approx(exact, rel=1e-6)


def test_balanced_products_under_decay_have_no_drift() -> None:
    run = fs.gradient_flow(fs.DiagonalNetwork(depth=3, weight_decay=0.02), FLIP, 5.0, alpha=0.1)
    assert run.imbalance_drift == 0.0
