"""Descent with any convex loss, against steps written out by hand and against the flow."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

import flowsim as fs

NET = fs.DiagonalNetwork("u*v")
RNG = np.random.default_rng(2)
X = RNG.standard_normal((12, 5))
TARGETS = {
    "logistic": np.sign(X @ [1.0, -1.0, 0.0, 0.0, 0.5] + 0.8 * RNG.standard_normal(12)),
    "exponential": np.sign(X @ [1.0, -1.0, 0.0, 0.0, 0.5] + 0.8 * RNG.standard_normal(12)),
    "poisson": RNG.poisson(1.5, 12).astype(float),
    "log-cosh": 3.0 * RNG.standard_normal(12),
}


def by_hand(problem: fs.Problem, step: float, n_steps: int, alpha: float, momentum: float = 0.0) -> np.ndarray:
    u, v = np.full(problem.d, np.sqrt(2.0) * alpha), np.zeros(problem.d)
    du, dv = np.zeros_like(u), np.zeros_like(v)
    for _ in range(n_steps):
        g = problem.gradient(u * v)
        du, dv = momentum * du - step * g * v, momentum * dv - step * g * u
        u, v = u + du, v + dv
    return u * v


@pytest.mark.parametrize("loss", TARGETS)
@pytest.mark.parametrize("coordinates", ["growth", "weights"])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_steps_are_those_of_the_loss(loss: str, coordinates: str, momentum: float) -> None:
    weight = np.linspace(0.5, 1.5, 12)
    for form in (X, scipy.sparse.csr_matrix(X)):
        problem = fs.Problem(form, TARGETS[loss], loss, sample_weight=weight)
        run = fs.gradient_descent(
            NET, problem, 0.05, 200, alpha=0.1, momentum=momentum, coordinates=coordinates, record_every=50
        )
        np.testing.assert_allclose(run.beta[-1], by_hand(problem, 0.05, 200, 0.1, momentum), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(run.loss, problem.loss(run.beta))
        np.testing.assert_allclose(run.log_loss, problem.log_loss(run.beta))


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_batches_and_drawn_noise_take_any_loss(loss: str) -> None:
    problem = fs.Problem(X, TARGETS[loss], loss)
    one = fs.gradient_descent(NET, problem, 0.05, 1, alpha=0.5, batch_size=3, seed=4)
    # A first step on three rows: their mean gradient.
    start = one.beta[0]
    u = np.full(5, np.sqrt(2.0) * 0.5)
    steps = [
        (u - 0.05 * g * 0.0) * (-0.05 * g * u)
        for rows in np.array(np.meshgrid(*[range(12)] * 3)).reshape(3, -1).T
        for g in [X[rows].T @ problem.slopes(X @ start)[rows] / 3]
    ]
    assert np.abs(np.array(steps) - one.beta[1]).max(axis=1).min() < 1e-14
    noisy = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.05))
    runs = [fs.gradient_descent(noisy, problem, 0.05, 400, alpha=0.3, seed=seed) for seed in range(8)]
    calm = fs.gradient_descent(NET, problem, 0.05, 400, alpha=0.3)
    assert np.abs(np.mean([run.beta[-1] for run in runs], axis=0) - calm.beta[-1]).max() < 0.3


def test_a_loss_from_a_formula_descends_like_the_named_one() -> None:
    named = fs.Problem(X, TARGETS["logistic"], "logistic")
    derived = fs.Problem(X, TARGETS["logistic"], fs.losses.from_formula("log(1 + exp(-y*f))"))
    one, other = (fs.gradient_descent(NET, problem, 0.1, 300, alpha="1e-30") for problem in (named, derived))
    np.testing.assert_allclose(one.beta[-1], other.beta[-1], rtol=1e-10, atol=1e-300)


def test_descent_follows_the_flow_to_first_order() -> None:
    problem = fs.Problem(X, TARGETS["logistic"], "logistic")
    flow = fs.gradient_flow(NET, problem, 8.0, alpha=0.2, rtol=1e-9)
    runs = [fs.gradient_descent(NET, problem, h, round(8.0 / h), alpha=0.2) for h in (0.04, 0.02, 0.01)]
    assert fs.compare(flow, runs).order == pytest.approx(1.0, abs=0.1)


def test_linear_networks_descend_on_several_labels() -> None:
    Y = np.column_stack([TARGETS["logistic"], -TARGETS["exponential"]])
    problem = fs.Problem(X, Y, "logistic", sample_weight=np.linspace(0.5, 1.5, 12))
    rng = np.random.default_rng(0)
    U, V = 0.3 * rng.standard_normal((5, 3)), 0.3 * rng.standard_normal((2, 3))
    run = fs.gradient_descent(fs.LinearNetwork(3), problem, 0.05, 100, alpha=1.0, start={"U": U, "V": V})
    for _ in range(100):
        G = problem.gradient(U @ V.T)
        U, V = U - 0.05 * G @ V, V - 0.05 * G.T @ U
    np.testing.assert_allclose(run.beta[-1], U @ V.T, rtol=1e-9, atol=1e-13)


def test_what_a_loss_does_not_know_is_refused() -> None:
    problem = fs.Problem(X, TARGETS["logistic"], "logistic")
    with pytest.raises(ValueError, match="`label_noise` must be 0 for the logistic loss"):
        fs.gradient_descent(NET, problem, 0.1, 5, alpha=0.1, label_noise=0.1)
    noisy = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
    with pytest.raises(ValueError, match="squared loss for descent on an expectation"):
        fs.gradient_descent(noisy, problem, 0.1, 5, alpha=0.1, expected=True)
    counts = fs.Problem(X, TARGETS["poisson"], "poisson")
    with pytest.raises(fs.IntegrationError, match="diverged"):
        fs.gradient_descent(NET, counts, 5.0, 500, alpha=1.0)
