"""The top Hessian eigenvalue against central differences and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs


def dense_hessian(loss, w, delta=1e-4):
    size = len(w)
    out = np.empty((size, size))
    for a in range(size):
        for b in range(size):
            total = 0.0
            for p, q in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                moved = w.copy()
                moved[a] += p * delta
                moved[b] += q * delta
                total += p * q * loss(moved)
            out[a, b] = total / (4 * delta**2)
    return out


@pytest.mark.parametrize("formula", ["u*v", "2*u**2 - v**2", "u*v**2"])
def test_sharpness_is_the_top_eigenvalue_of_the_differenced_hessian(formula) -> None:
    rng = np.random.default_rng(3)
    problem = fs.Regression(rng.standard_normal((4, 3)), rng.standard_normal(4))
    net = fs.DiagonalNetwork(formula)
    phi = {"u*v": lambda u, v: u * v, "2*u**2 - v**2": lambda u, v: 2 * u**2 - v**2, "u*v**2": lambda u, v: u * v**2}
    w = rng.standard_normal(6)
    top = np.linalg.eigvalsh(dense_hessian(lambda x: problem.loss(phi[formula](x[:3], x[3:])), w))[-1]
    assert fs.sharpness(net, problem, {"u": w[:3], "v": w[3:]}) == pytest.approx(top, rel=1e-6)


def test_sharpness_of_a_linear_network_is_that_of_the_differenced_hessian() -> None:
    rng = np.random.default_rng(5)
    problem = fs.Regression(rng.standard_normal((4, 2)), rng.standard_normal((4, 2)))
    w = rng.standard_normal(12)
    top = np.linalg.eigvalsh(dense_hessian(lambda x: problem.loss(x[:6].reshape(2, 3) @ x[6:].reshape(2, 3).T), w))[-1]
    value = fs.sharpness(fs.LinearNetwork(3), problem, {"U": w[:6].reshape(2, 3), "V": w[6:].reshape(2, 3)})
    assert value == pytest.approx(top, rel=1e-6)


def test_lanczos_and_the_dense_hessian_agree_along_a_run(monkeypatch) -> None:
    import importlib

    from flowsim.descent import sharpness as _  # noqa: F401

    module = importlib.import_module("flowsim.descent.sharpness")
    problem = fs.datasets.sparse_regression(20, 30, 2, seed=1)
    net = fs.DiagonalNetwork("u*v")
    traj = fs.gradient_descent(net, problem, 0.1, 300, alpha=0.1, record_every=60)
    dense = fs.sharpness(net, problem, traj.weights)
    monkeypatch.setattr(module, "_DENSE", 1)
    np.testing.assert_allclose(fs.sharpness(net, problem, traj.weights), dense, rtol=1e-8)


def test_descent_leaves_a_minimum_whose_sharpness_exceeds_2_over_h() -> None:
    problem = fs.Regression([[1.0]], [1.0])  # balanced minimum u = v = 1: sharpness 2
    net = fs.DiagonalNetwork("u*v")
    assert fs.sharpness(net, problem, {"u": [1.0], "v": [1.0]}) == pytest.approx(2.0)
    near = {"u": 1.0 + 1e-6, "v": 1.0 + 1e-6}
    stable = fs.gradient_descent(net, problem, 0.99, 400, alpha=1.0, start=near)
    unstable = fs.gradient_descent(net, problem, 1.01, 1500, alpha=1.0, start=near)
    assert abs(stable.beta[-1, 0] - 1.0) < 1e-8
    assert abs(unstable.beta[-100:, 0] - 1.0).max() > 1e-3


def test_weights_that_are_no_numbers_are_refused() -> None:
    problem = fs.Regression([[1.0]], [1.0])
    with pytest.raises(ValueError, match=r"`weights\['u'\]` must be finite"):
        fs.sharpness(fs.DiagonalNetwork("u*v"), problem, {"u": [np.nan], "v": [1.0]})
