"""Quadratic networks: the recursion in growth coordinates against its definition."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import flowsim as fs


def descend_by_hand(problem, phi, slopes, w, step, n_steps, momentum=0.0, nesterov=False):
    """The definition, in NumPy: w is (k, d)."""
    v = np.zeros_like(w)
    path = [w.copy()]
    for _ in range(n_steps):
        here = w + momentum * v if nesterov else w
        v = momentum * v - step * problem.gradient(phi(*here)) * np.array(slopes(*here))
        w = w + v
        path.append(w.copy())
    return np.array(path)


QUADRATIC = {
    "u*v": (lambda u, v: u * v, lambda u, v: (v, u)),
    "u**2 - v**2": (lambda u, v: u**2 - v**2, lambda u, v: (2 * u, -2 * v)),
    "2*u**2 - v**2": (lambda u, v: 2 * u**2 - v**2, lambda u, v: (4 * u, -2 * v)),
    "3*u*v": (lambda u, v: 3 * u * v, lambda u, v: (3 * v, 3 * u)),
    "u*v + v**2": (lambda u, v: u * v + v**2, lambda u, v: (v, u + 2 * v)),
    "a*b + c*e": (lambda a, b, c, e: a * b + c * e, lambda a, b, c, e: (b, a, e, c)),
}


@pytest.mark.parametrize("formula", QUADRATIC)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.6, False), (0.6, True)])
def test_growth_coordinates_take_the_steps_of_the_definition(problem, formula, momentum, nesterov) -> None:
    net = fs.DiagonalNetwork(formula)
    start = np.random.default_rng(1).standard_normal((len(net.weights), problem.d))
    path = descend_by_hand(problem, *QUADRATIC[formula], 0.1 * start, 0.01, 200, momentum, nesterov)
    traj = fs.gradient_descent(
        net, problem, 0.01, 200, alpha=0.1, start=dict(zip(net.weights, start, strict=True)),
        momentum=momentum, nesterov=nesterov,
    )  # fmt: skip
    assert traj.info["coordinates"] == "growth"
    for a, name in enumerate(net.weights):
        np.testing.assert_allclose(traj.weights[name], path[:, a], rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(traj.t, 0.01 * np.arange(201))
    np.testing.assert_allclose(traj.loss, problem.loss(traj.beta), rtol=1e-12)
    steps = np.linalg.norm(np.diff(traj.beta, axis=0), axis=1)
    np.testing.assert_allclose(traj.arclength[-1] - traj.accelerated_time[-1], steps.sum(), rtol=1e-10)


def test_the_imbalance_is_multiplied_by_1_minus_h2_g2_at_every_step(problem) -> None:
    traj = fs.gradient_descent(fs.DiagonalNetwork("u*v"), problem, 0.05, 500, alpha=0.3)
    factors = np.array([1.0 - (0.05 * problem.gradient(beta)) ** 2 for beta in traj.beta[:-1]])
    u, v = traj.weights["u"], traj.weights["v"]
    np.testing.assert_allclose((u**2 - v**2)[1:], factors * (u**2 - v**2)[:-1], rtol=1e-11)
    gain = traj.log_imbalance[0, 0] - traj.log_imbalance[-1, 0]
    np.testing.assert_allclose(gain, -np.log(factors).sum(axis=0), rtol=1e-10, atol=1e-13)
    assert traj.imbalance_drift < 1e-13
    assert traj.info["imbalance_law"] == "descent"


def test_the_product_of_u2_minus_v2_is_multiplied_by_1_minus_4_h2_g2(problem) -> None:
    traj = fs.gradient_descent(fs.DiagonalNetwork("u**2 - v**2"), problem, 0.02, 300, alpha=0.3)
    product = traj.weights["u"] * traj.weights["v"]
    factors = np.array([1.0 - 4 * (0.02 * problem.gradient(beta)) ** 2 for beta in traj.beta[:-1]])
    np.testing.assert_allclose(product[1:], factors * product[:-1], rtol=1e-11)
    np.testing.assert_allclose(traj.imbalance[:, 0], product, rtol=1e-12)


def test_descent_from_1e_minus_1000_is_that_of_a_computation_with_3400_digits() -> None:
    problem = fs.Regression([[1.0, 0.5], [0.3, -1.2]], [1.0, 0.7])
    h, n_steps = 0.8, 5950
    with mpmath.workdps(3400):
        X = [[mpmath.mpf(x) for x in row] for row in problem.X.tolist()]
        y = [mpmath.mpf(x) for x in problem.y.tolist()]
        u = [mpmath.sqrt(2) * mpmath.mpf("1e-1000")] * 2
        v = [mpmath.mpf(0)] * 2
        for _ in range(n_steps):
            r = [sum(X[j][i] * u[i] * v[i] for i in range(2)) - y[j] for j in range(2)]
            g = [sum(X[j][i] * r[j] for j in range(2)) / 2 for i in range(2)]
            u, v = [u[i] - h * g[i] * v[i] for i in range(2)], [v[i] - h * g[i] * u[i] for i in range(2)]
        beta = [float(u[i] * v[i]) for i in range(2)]
        log_v = [float(mpmath.log(abs(v[i]))) for i in range(2)]
        log_imbalance = [float(mpmath.log(abs(u[i] ** 2 - v[i] ** 2))) for i in range(2)]
    traj = fs.gradient_descent(fs.DiagonalNetwork("u*v"), problem, h, n_steps, alpha="1e-1000", record_every=7)
    assert abs(beta[0]) > 0.5  # the run has left the saddle
    np.testing.assert_allclose(traj.beta[-1], beta, rtol=1e-8, atol=1e-300)
    np.testing.assert_allclose(traj.log_abs_weights["v"][-1], log_v, rtol=1e-10)
    np.testing.assert_allclose(traj.log_imbalance[-1, 0], log_imbalance, rtol=1e-11)
    assert traj.imbalance_drift < 1e-11


def test_a_component_changes_sign_where_1_minus_h_g_is_negative() -> None:
    problem = fs.Regression([[1.0]], [-3.0])  # g(0) = 3, h g = 1.5: p flips at the first step
    traj = fs.gradient_descent(fs.DiagonalNetwork("u*v"), problem, 0.5, 1, alpha=1e-3, start={"u": 2.0, "v": 1.0})
    u, v = 2e-3, 1e-3
    g = u * v + 3.0
    assert traj.weights["u"][1, 0] == pytest.approx(u - 0.5 * g * v, rel=1e-13)
    assert traj.weights["v"][1, 0] == pytest.approx(v - 0.5 * g * u, rel=1e-13)
    assert traj.imbalance[1, 0, 0] < 0 < traj.imbalance[0, 0, 0]


def test_a_coordinate_that_starts_at_u_equal_v_never_becomes_negative() -> None:
    problem = fs.Regression([[1.0]], [-1.0])
    traj = fs.gradient_descent(
        fs.DiagonalNetwork("u*v"), problem, 0.1, 20_000, alpha="1e-300", start={"u": 1.0, "v": 1.0}, record_every=1000
    )
    assert (traj.beta == 0.0).all()  # 1e-600, growing smaller
    assert np.isneginf(traj.log_imbalance).all()
    assert traj.imbalance_drift == 0.0


def test_growth_and_weights_agree_where_both_apply(problem) -> None:
    net = fs.DiagonalNetwork("u*v")
    grown = fs.gradient_descent(net, problem, 0.02, 400, alpha=0.1)
    plain = fs.gradient_descent(net, problem, 0.02, 400, alpha=0.1, coordinates="weights")
    assert plain.info["coordinates"] == "weights"
    np.testing.assert_allclose(plain.beta, grown.beta, atol=1e-12)
    np.testing.assert_allclose(plain.arclength, grown.arclength, rtol=1e-11)
    assert plain.invariants == grown.invariants
    assert plain.imbalance_drift < 1e-12


def test_the_expected_gradient_of_noise_is_the_field_of_the_theory(problem) -> None:
    eta, h = 0.3, 0.02
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(eta))
    traj = fs.gradient_descent(net, problem, h, 300, alpha=0.5, expected=True)
    kappa = eta**2 * problem.feature_variances
    u, v = np.full(problem.d, math.sqrt(2) * 0.5), np.zeros(problem.d)
    for _ in range(300):
        g = problem.gradient(u * v)
        u, v = u - h * (g * v + kappa * u), v - h * (g * u + kappa * v)
    np.testing.assert_allclose(traj.weights["u"][-1], u, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(traj.weights["v"][-1], v, rtol=1e-10, atol=1e-13)
    assert traj.imbalance_drift < 1e-12
    plain = fs.gradient_descent(net, problem, h, 300, alpha=0.5, expected=True, coordinates="weights")
    np.testing.assert_allclose(plain.beta, traj.beta, atol=1e-12)


def test_mixed_networks_keep_each_formula_to_its_coordinates(problem) -> None:
    formulas = ["u*v", "u**2 - v**2", "v*u"] * 3
    net = fs.DiagonalNetwork(formulas)
    start = {"u": np.full(problem.d, 1.0), "v": np.full(problem.d, 0.5)}
    traj = fs.gradient_descent(net, problem, 0.01, 100, alpha=0.3, start=start)
    u, v = 0.3 * start["u"], 0.3 * start["v"]
    difference = np.array([text == "u**2 - v**2" for text in formulas])
    for _ in range(100):
        g = problem.gradient(np.where(difference, u**2 - v**2, u * v))
        u, v = (
            u - 0.01 * g * np.where(difference, 2 * u, v),
            v - 0.01 * g * np.where(difference, -2 * v, u),
        )
    np.testing.assert_allclose(traj.weights["u"][-1], u, rtol=1e-11)
    np.testing.assert_allclose(traj.weights["v"][-1], v, rtol=1e-11)
    assert traj.imbalance_drift < 1e-12


def test_sparse_features_give_the_descent_of_dense_ones(problem) -> None:
    import scipy.sparse

    thin = np.where(np.abs(problem.X) > 0.7, problem.X, 0.0)
    net = fs.DiagonalNetwork("u*v")
    dense = fs.gradient_descent(net, fs.Regression(thin, problem.y), 0.05, 200, alpha=0.1)
    for X in (scipy.sparse.csr_array(thin), scipy.sparse.linalg.aslinearoperator(thin)):
        other = fs.gradient_descent(net, fs.Regression(X, problem.y), 0.05, 200, alpha=0.1)
        np.testing.assert_allclose(other.beta, dense.beta, atol=1e-13)
