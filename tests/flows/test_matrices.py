"""Flows of U V^T on measurements of a matrix, and under other losses than squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import flowsim as fs


def integrate(gradient, U, V, times, pull_u=0.0, pull_v=0.0):
    """U V^T by SciPy in all weights, for a gradient of the loss in beta."""
    D, h = U.shape

    def rhs(_, y):
        u, v = y[: D * h].reshape(D, h), y[D * h :].reshape(-1, h)
        G = -gradient(u @ v.T)
        return np.concatenate([(G @ v - pull_u * u).ravel(), (G.T @ u - pull_v * v).ravel()])

    y0 = np.concatenate([U.ravel(), V.ravel()])
    sol = solve_ivp(rhs, (0, times[-1]), y0, method="DOP853", rtol=1e-11, atol=1e-13, t_eval=times)
    return np.array([y[: D * h].reshape(D, h) @ y[D * h :].reshape(-1, h).T for y in sol.y.T])


@pytest.mark.parametrize(("D", "m"), [(4, 3), (2, 4)])
def test_regression_is_sensing_with_one_measurement_for_every_entry_of_y(D: int, m: int) -> None:
    rng = np.random.default_rng(D)
    X, Y = rng.standard_normal((5, D)), rng.standard_normal((5, m))
    A = np.einsum("kd,jm->kjdm", X, np.eye(m)).reshape(-1, D, m)
    net, start = fs.LinearNetwork(3), {"U": rng.standard_normal((D, 3)), "V": rng.standard_normal((m, 3))}
    times = np.array([50.0, 150.0, 400.0])
    one = fs.gradient_flow(net, fs.Regression(X, Y), times[-1], alpha="1e-60", start=start, t_eval=times)
    other = fs.gradient_flow(
        net, fs.MatrixSensing(A, Y.ravel()), m * times[-1], alpha="1e-60", start=start, t_eval=m * times
    )
    np.testing.assert_allclose(other.beta, one.beta, atol=2e-5)
    np.testing.assert_allclose(m * other.loss, one.loss, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_completion_follows_the_gradient_on_the_observed_entries(noise: float) -> None:
    rng = np.random.default_rng(1)
    entries = [(0, 0, 1.0), (0, 2, -0.5), (1, 1, 2.0), (2, 0, 0.3), (3, 2, 1.2), (3, 2, 1.0)]
    problem = fs.MatrixCompletion(entries, (4, 3))
    dense = fs.MatrixSensing(problem.A, problem.y)
    U, V = 0.3 * rng.standard_normal((4, 5)), 0.3 * rng.standard_normal((3, 5))
    times = [2.0, 20.0, 80.0]
    counts = problem.A.sum(axis=0) / len(entries)
    pulls = noise**2 * counts.sum(axis=1)[:, None], noise**2 * counts.sum(axis=0)[:, None]
    exact = integrate(problem.gradient, U, V, times, *pulls)
    net = fs.LinearNetwork(5, noise=fs.GaussianNoise(noise) if noise else None)
    for each in (problem, dense):
        traj = fs.gradient_flow(net, each, 80.0, alpha=1.0, start={"U": U, "V": V}, t_eval=times)
        np.testing.assert_allclose(traj.beta, exact, atol=5e-6)
    np.testing.assert_allclose(dense.gradient(U @ V.T), problem.gradient(U @ V.T), atol=1e-14)


def test_a_spent_step_budget_is_said_of_sensing_and_completion() -> None:
    rng = np.random.default_rng(3)
    sensing = fs.MatrixSensing(rng.standard_normal((9, 3, 3)), rng.standard_normal(9))
    completion = fs.MatrixCompletion([(0, 0, 1.0), (1, 2, -0.5), (2, 1, 2.0)], (3, 3))
    for problem in (sensing, completion):
        with pytest.raises(fs.IntegrationError, match="the step budget is spent"):
            fs.gradient_flow(fs.LinearNetwork(3), problem, 50.0, alpha=1e-3, max_steps=3)


@pytest.mark.parametrize("loss", ["logistic", "log-cosh"])
def test_any_convex_loss_drives_several_targets(loss: str) -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((9, 4))
    Y = np.sign(rng.standard_normal((9, 2))) if loss == "logistic" else rng.standard_normal((9, 2))
    problem = fs.Problem(X, Y, loss=loss)
    U, V = 0.2 * rng.standard_normal((4, 3)), 0.2 * rng.standard_normal((2, 3))
    times = [2.0, 10.0, 30.0]
    traj = fs.gradient_flow(fs.LinearNetwork(3), problem, 30.0, alpha=1.0, start={"U": U, "V": V}, t_eval=times)
    np.testing.assert_allclose(traj.beta, integrate(problem.gradient, U, V, times), atol=5e-6)
    assert traj.imbalance_drift < 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fs.MatrixSensing(np.ones((2, 3)), [1.0, 1.0]), "`A` must have shape"),
        (lambda: fs.MatrixSensing(np.full((1, 2, 2), np.nan), [1.0]), "`A` must be finite"),
        (lambda: fs.MatrixSensing(np.ones((2, 3, 2)), [1.0]), "`y` must have shape"),
        (lambda: fs.MatrixCompletion([(0, 3, 1.0)], (2, 2)), "must lie inside"),
        (lambda: fs.MatrixCompletion([(0, 0.5, 1.0)], (2, 2)), "whole numbers"),
        (lambda: fs.MatrixCompletion([(0, 1)], (2, 2)), "triples"),
        (lambda: fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.MatrixCompletion([(0, 0, 1.0)], (2, 2)), 1.0),
         "must be a LinearNetwork"),
        (lambda: fs.gradient_flow(fs.LinearNetwork(2, noise=fs.GaussianNoise(0.1)),
                                  fs.MatrixSensing(np.ones((1, 2, 2)), [1.0]), 1.0), "`noise` needs measurements"),
    ],
)  # fmt: skip
def test_bad_measurements_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
