"""Sharpness against central differences, sampled noise, and the papers' identities."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.symbolic import average_sharpness, hessian_trace, kernels, loss_hessian, minimal_trace


def setting(formula: str, noise=None):
    problem = fs.datasets.sparse_regression(6, 3, 2, noise=0.1, seed=4)
    net = fs.DiagonalNetwork(formula, noise=noise)
    return net, problem, np.random.default_rng(1).uniform(-0.9, 0.9, (len(net.weights), problem.d))


def loss(net, problem, w: np.ndarray) -> float:
    beta = np.empty(problem.d)
    kernels(net).value(np.ascontiguousarray(w), net.kinds(problem.d), beta)
    return float(problem.loss(beta))


@pytest.mark.parametrize("formula", ["u*v", "a*tanh(a) - (exp(b) - 1)**2", "w**3"])
def test_the_hessian_is_the_second_difference_of_the_loss(formula: str) -> None:
    net, problem, w = setting(formula)
    hessian, step = loss_hessian(net, problem, w), 1e-4
    size = w.size
    flat = w.ravel()

    def at(*shifts: tuple[int, float]) -> float:
        moved = flat.copy()
        for index, shift in shifts:
            moved[index] += shift
        return loss(net, problem, moved.reshape(w.shape))

    for a in range(size):
        for b in range(size):
            second = (
                at((a, step), (b, step))
                - at((a, step), (b, -step))
                - at((a, -step), (b, step))
                + at((a, -step), (b, -step))
            ) / (4 * step**2)
            assert hessian[a, b] == pytest.approx(second, rel=1e-6, abs=2e-6)
    assert hessian_trace(net, problem, w) == pytest.approx(np.trace(hessian), rel=1e-12)


def test_the_trace_kernel_is_the_derivations_formula() -> None:
    net, problem, w = setting("2*u**2 - v**2")
    d = fs.derive(net).coordinates[0]
    beta = 2 * w[0] ** 2 - w[1] ** 2
    share = sympy.lambdify([*d.weights, d.g, d.sigma], d.sharpness.trace)
    expected = share(*w, problem.gradient(beta), np.sqrt(problem.feature_variances)).sum()
    assert hessian_trace(net, problem, w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", ["u*v", "u*v*w", "2*u**2 - v**2", "a*tanh(a)"])
def test_average_sharpness_is_the_mean_rise_of_the_loss_under_noise(formula: str) -> None:
    noise = fs.GaussianNoise(0.2)
    net, problem, w = setting(formula, noise)
    n = 60_000
    z = 0.2 * noise.draw(np.random.default_rng(2), (n, *w.shape))
    phi = sympy.lambdify([sympy.Symbol(name, real=True) for name in net.weights], net.formulas[0].expression)
    at = w + z
    losses = problem.loss(phi(*(at[:, a] for a in range(len(w))))) - loss(net, problem, w)
    error = losses.std() / np.sqrt(n)
    assert abs(losses.mean() - average_sharpness(net, problem, w)) <= 5 * error


def test_depth_2_average_sharpness_is_trace_and_constant() -> None:
    """eta^2/2 tr Hess L + eta^4/2 sum sigma^2, exactly."""
    eta = 0.3
    net, problem, w = setting("u*v", fs.GaussianNoise(eta))
    expected = eta**2 / 2 * hessian_trace(net, problem, w) + eta**4 / 2 * problem.feature_variances.sum()
    assert average_sharpness(net, problem, w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "beta", "least"),
    [
        ("u*v", [0.9, -2.0], [2 * 0.9, 2 * 2.0]),
        ("u*v*w", [0.5, -2.0], [3 * 0.5 ** (4 / 3), 3 * 2.0 ** (4 / 3)]),
        ("u**2 - v**2", [0.9, -2.0], [4 * 0.9, 4 * 2.0]),  # one weight alone
        ("2*u**2 - v**2", [0.9, -2.0], [8 * 0.9, 4 * 2.0]),
    ],
)
@pytest.mark.slow
def test_the_factorisation_of_least_trace(formula: str, beta: list[float], least: list[float]) -> None:
    net = fs.DiagonalNetwork(formula)
    w = minimal_trace(net, beta)
    value, slope = np.empty(2), np.empty_like(w)
    kernels(net).value(w, net.kinds(2), value)
    kernels(net).gradient(w, net.kinds(2), slope)
    np.testing.assert_allclose(value, beta, rtol=1e-6)
    np.testing.assert_allclose(np.sum(slope**2, axis=0), least, rtol=1e-5)


def test_balanced_weights_have_the_least_trace_among_all_with_the_same_product() -> None:
    net = fs.DiagonalNetwork("u*v*w")
    best = minimal_trace(net, [1.7])
    rng, slope = np.random.default_rng(0), np.empty((3, 1))
    kernels(net).gradient(best, net.kinds(1), slope)
    least = np.sum(slope**2)
    for _ in range(50):
        scale = np.exp(rng.standard_normal(3))
        other = best * (scale / np.prod(scale) ** (1 / 3))[:, None]
        kernels(net).gradient(other, net.kinds(1), slope)
        assert np.sum(slope**2) >= least * (1 - 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, problem, w: minimal_trace(fs.DiagonalNetwork("u**2"), [-1.0]), "`beta` contains -1"),
        (lambda net, problem, w: minimal_trace(net, [np.nan]), "`beta` must be a finite vector"),
        (lambda net, problem, w: hessian_trace(net, problem, w[:, :2]), r"`w` must have shape \(2, 3\)"),
        (lambda net, problem, w: average_sharpness(net, problem, w), "`net` must have noise"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*setting("u*v"))
