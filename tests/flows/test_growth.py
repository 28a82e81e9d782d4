"""The two-layer flow in growth coordinates, against closed forms and its own exact law."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs
from flowsim.flows.growth import GrowthCoordinates
from flowsim.growth.exponential import admits_growth
from flowsim.network import InitialScale

METHODS = ["auto", "LSODA", "BDF", "Radau"]


def logistic(gamma: float, c: float, sigma2: float, t: np.ndarray) -> np.ndarray:
    """beta of one feature under u*v with kappa = 0, from (sqrt 2 alpha, 0): an exactly solvable Riccati equation.

    beta' = 2 (c - sigma2 beta) sqrt(beta^2 + alpha^4); for alpha -> 0 and c > 0 a logistic curve.
    """
    with np.errstate(over="ignore"):
        return (c / sigma2) / (1 + np.exp(-2 * c * t + 2 * gamma) * (2 * c / sigma2))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alpha", ["1e-20", "1e-300", "1e-1000", "1e-10000"])
def test_one_feature_follows_the_logistic_curve(alpha: str, method: str) -> None:
    X, y = np.array([[1.0], [2.0]]), np.array([3.0, 1.0])
    problem = fs.Regression(X, y)
    sigma2, c = 2.5, 2.5
    gamma = InitialScale.parse(alpha).gamma
    jump = (gamma + 0.5 * math.log(2 * c / sigma2)) / c
    times = np.concatenate([[0.0], jump + np.linspace(-4, 8, 60)])
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, times[-1], alpha=alpha, t_eval=times, method=method, rtol=1e-8
    )
    assert traj.info["coordinates"] == "growth"
    tolerance = 1e-7 + 1e-14 * gamma
    np.testing.assert_allclose(traj.beta[:, 0], logistic(gamma, c, sigma2, times), atol=tolerance)


def test_orthogonal_features_evolve_alone() -> None:
    X = np.sqrt(3) * np.eye(3)
    y = np.sqrt(3) * np.array([2.0, -1.0, 0.5])
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression(X, y), 4, alpha="1e-60", clock="accelerated")
    alone = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), fs.Regression(X[:, :1], y), 4, alpha="1e-60", clock="accelerated", t_eval=[0.9]
    )
    assert traj.at(0.9, "accelerated").beta[0] == pytest.approx(alone.beta[0, 0], abs=1e-6)
    np.testing.assert_allclose(traj.beta[-1], [2.0, -1.0, 0.5], atol=1e-6)


@pytest.mark.parametrize("alpha", ["1e-3", "1e-16", "1e-100", "1e-1000"])
def test_the_diabetes_flow_conserves_its_imbalance_and_meets_its_tolerance(diabetes: fs.Regression, alpha: str) -> None:
    times = np.linspace(0, 12, 600)
    options = {"alpha": alpha, "clock": "accelerated", "t_eval": times}
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), diabetes, 12, **options)
    reference = fs.gradient_flow(fs.DiagonalNetwork("u*v"), diabetes, 12, rtol=1e-9, **options)
    assert traj.imbalance_drift <= 1e-10
    assert np.abs(traj.beta - reference.beta).max() <= 10 * 1e-6 * np.abs(reference.beta).max()
    np.testing.assert_array_equal(traj.accelerated_time, times)


@pytest.mark.parametrize(
    "formula",
    ["u*v", *(pytest.param(other, marks=pytest.mark.slow) for other in ("u**2 - v**2", "2*u**2 - v**2", "a*b + c**2"))],
)
@pytest.mark.parametrize("noise", [None, fs.GaussianNoise(0.3), fs.UniformNoise(0.3)])
def test_growth_and_weight_coordinates_agree_where_both_work(
    sign_switching: fs.Regression, formula: str, noise
) -> None:
    net = fs.DiagonalNetwork(formula, noise=noise)
    times = np.linspace(0, 20, 50)
    growth, weights = (
        fs.gradient_flow(net, sign_switching, 20, alpha=0.1, t_eval=times, coordinates=name, rtol=1e-8, method="LSODA")
        for name in ("growth", "weights")
    )
    np.testing.assert_allclose(growth.beta, weights.beta, atol=2e-6)
    np.testing.assert_allclose(growth.arclength, weights.arclength, rtol=1e-6, atol=1e-6)
    for name in net.weights:
        np.testing.assert_allclose(growth.weights[name], weights.weights[name], atol=2e-6)


def test_different_quadratic_formulas_with_matched_starts_give_one_flow(sign_switching: fs.Regression) -> None:
    """u^2 - v^2 in (u, v) is a*b in a = u + v, b = u - v, at twice the speed."""
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal((2, 6))
    times = np.linspace(0, 6, 40)
    squares = fs.gradient_flow(
        fs.DiagonalNetwork("u**2 - v**2"), sign_switching, 6, alpha="1e-30", start={"u": u, "v": v}, t_eval=times
    )
    product = fs.gradient_flow(
        fs.DiagonalNetwork("a*b"), sign_switching, 12, alpha="1e-30", start={"a": u + v, "b": u - v}, t_eval=2 * times
    )
    np.testing.assert_allclose(squares.beta, product.beta, atol=1e-5)


def test_weight_noise_makes_the_imbalance_decay_at_twice_kappa(diabetes: fs.Regression) -> None:
    eta = 0.05
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(eta)), diabetes, 3, alpha="1e-200", clock="accelerated"
    )
    law = traj.log_imbalance[0] - 2 * eta**2 * np.outer(traj.t, diabetes.feature_variances)[:, None, :]
    np.testing.assert_allclose(traj.log_imbalance, law, atol=1e-10)
    assert traj.imbalance_drift <= 1e-10


def test_a_coordinate_started_with_u_equal_v_can_never_become_negative() -> None:
    problem = fs.Regression(np.eye(2) * math.sqrt(2), [-math.sqrt(2), math.sqrt(2)])
    start = {"u": [1.0, 1.0], "v": [1.0, 1.0]}
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, 5, alpha="1e-40", start=start, clock="accelerated"
    )  # fmt: skip
    assert (traj.beta >= 0).all() and traj.beta[-1, 0] < 1e-30
    assert traj.beta[-1, 1] == pytest.approx(1.0, abs=1e-6)


def test_logs_of_weights_are_finite_where_floats_are_not() -> None:
    problem = fs.datasets.sparse_regression(5, 8, 2)
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 0.1, alpha="1e-5000", clock="accelerated")
    gamma = 5000 * math.log(10)
    np.testing.assert_allclose(traj.log_abs_weights["u"][0], 0.5 * math.log(2) - gamma, rtol=1e-12)
    np.testing.assert_allclose(traj.log_imbalance[0, 0], math.log(2) - 2 * gamma, rtol=1e-12)
    assert (traj.weights["u"][0] == 0).all() and traj.imbalance_drift <= 1e-10
    assert np.isneginf(traj.log_abs_weights["v"][0]).all()


def test_the_jacobian_is_a_derivative(sign_switching: fs.Regression) -> None:
    net = fs.DiagonalNetwork("2*u**2 - v**2", noise=fs.GaussianNoise(0.2))
    coordinates = GrowthCoordinates(net, sign_switching, InitialScale.parse(0.5), net.direction(None, 6), native=False)
    ivp, y, h = coordinates.ivp, np.array([0.3, -0.2, 0.1]), 1e-6
    numeric = [(ivp.rhs(0.7, y + h * e) - ivp.rhs(0.7, y - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(ivp.jacobian(0.7, y), np.transpose(numeric), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("formula", "noise", "reason"),
    [
        ("w1*w2*w3", None, "is not a quadratic form"),
        ("u*v + 1", None, "is not a quadratic form"),
        ("u*v", fs.GaussianNoise({"u": 0.1}), "different noise"),
        ("u*v", fs.GaussianNoise(0.1, multiplicative=True), "multiplicative"),
        ("u**2 - v**2", fs.MomentNoise(0.1, moments=(1, 0, 1, 0.5, 3)), "skewed"),
    ],
)
def test_networks_without_growth_coordinates_say_why(formula: str, noise: object, reason: str) -> None:
    net = fs.DiagonalNetwork(formula, noise=noise)
    assert reason in (admits_growth(net) or "")
    with pytest.raises(ValueError, match=reason):
        fs.gradient_flow(net, fs.datasets.sparse_regression(3, 3, 1), 1.0, coordinates="growth")


def test_mixed_quadratic_networks_keep_unused_weights_still() -> None:
    problem = fs.datasets.sparse_regression(6, 3, 2, seed=2)
    net = fs.DiagonalNetwork(["u*v", "u**2 - v**2", "2*w**2 - u**2"])
    traj = fs.gradient_flow(net, problem, 3, alpha="1e-50", clock="accelerated")
    assert traj.info["coordinates"] == "growth" and traj.imbalance_drift <= 1e-10
    np.testing.assert_allclose(np.ptp(traj.log_abs_weights["w"][:, :2], axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(problem.gradient(traj.beta[-1]), 0, atol=1e-5)


@pytest.mark.parametrize(("large", "small"), [(1e160, 1e-3), (1e100, 0.3)])
def test_weights_of_very_different_size_all_count(large: float, small: float) -> None:
    """No component of a start is taken for rounding of another."""
    problem = fs.Regression(np.eye(2) * math.sqrt(2), [1.0, math.sqrt(2)])
    scale = 1e-3 / large
    start = {"u": [large, small], "v": [small, small]}
    traj = fs.gradient_flow(fs.DiagonalNetwork("2*u**2 - v**2"), problem, 1.0, alpha=scale, start=start)
    logs = {name: values[0] - math.log(scale) for name, values in traj.log_abs_weights.items()}
    np.testing.assert_allclose(logs["u"], np.log([large, small]), rtol=1e-12)
    np.testing.assert_allclose(logs["v"], np.log([small, small]), rtol=1e-12)


@pytest.mark.parametrize("formula", ["2*u**2 - v**2", "u**2 + u*v - v**2", "1.7*u**2 - 0.3*v**2"])
@pytest.mark.parametrize("eta", [0.0, 0.05])
def test_any_quadratic_network_conserves_to_rounding_at_any_scale(formula: str, eta: float) -> None:
    rng = np.random.default_rng(3)
    problem = fs.Regression(rng.standard_normal((8, 12)), rng.standard_normal(8))
    net = fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(eta) if eta else None)
    near = fs.gradient_flow(net, problem, 5.0, alpha=1e-3, clock="accelerated")
    far = fs.gradient_flow(net, problem, 5.0, alpha="1e-100000", clock="accelerated")
    assert near.imbalance_drift <= 1e-10
    assert far.imbalance_drift <= 1e-10
    # Of the weights that are reported, by the eigenvectors of the form: c_1^-mu_2 c_2^mu_1 where none is tiny.
    form = {"2*u**2 - v**2": [[2, 0], [0, -1]], "u**2 + u*v - v**2": [[1, 0.5], [0.5, -1]]}.get(
        formula, [[1.7, 0], [0, -0.3]]
    )
    values, vectors = np.linalg.eigh(form)
    c = np.einsum("ak,atd->ktd", vectors, np.array([near.weights["u"], near.weights["v"]]))
    logs = -values[1] * np.log(np.abs(c[0])) + values[0] * np.log(np.abs(c[1]))
    clear = (np.abs(c) > 1e-6 * np.abs(np.array(list(near.weights.values()))).max(axis=0)).all(axis=0)
    # c_k' = -2 mu_k g c_k - 4 mu_k^2 kappa c_k
    decay = 4 * eta**2 * problem.feature_variances * values[0] * values[1] * (values[0] - values[1])
    law = logs[0] + decay * near.t[:, None]
    assert clear.any()
    np.testing.assert_allclose(logs[clear], law[clear], atol=1e-8)


@pytest.mark.parametrize("noise", [None, fs.GaussianNoise(0.2)])
def test_a_row_that_stands_for_all_is_as_good_as_a_row_each(diabetes: fs.Regression, noise: object) -> None:
    one = fs.gradient_flow(fs.DiagonalNetwork("u*v", noise=noise), diabetes, 6, alpha="1e-40", clock="accelerated")
    texts = ["u*v", "v*u/1", "2*u*v/2", *["u*v"] * 7]
    mixed = fs.DiagonalNetwork(texts, noise=noise)
    start = {"u": np.sqrt(2) * np.ones(10), "v": np.zeros(10)}
    each = fs.gradient_flow(
        mixed, diabetes, 6, alpha="1e-40", clock="accelerated", start=start, t_eval=one.t / one.t[-1] * 6
    )
    np.testing.assert_allclose(each.beta, one.beta, atol=1e-12)
    for name in ("u", "v"):
        np.testing.assert_allclose(each.log_abs_weights[name], one.log_abs_weights[name], atol=1e-9)
    np.testing.assert_allclose(each.log_imbalance[:, 0], one.log_imbalance[:, 0], rtol=1e-12)
    assert each.imbalance_drift <= 1e-10 and one.imbalance_drift <= 1e-10


def test_a_coordinate_that_ceased_to_count_does_not_keep_the_steps_of_a_plateau_short() -> None:
    """It still moves fast; what was kept of its weight in the stiff equations put the others to rest elsewhere."""
    rng = np.random.default_rng(54)
    problem = fs.Regression(rng.standard_normal((4, 6)), rng.standard_normal(4))
    net = fs.DiagonalNetwork("2*u**2 - v**2")
    traj = fs.gradient_flow(
        net, problem, 103.5, alpha="1e-10000", clock="accelerated", rtol=1e-9, max_steps=3000
    )  # fmt: skip
    np.testing.assert_allclose(traj.beta[-1], fs.saddle_to_saddle(net, problem).end, atol=1e-6)
