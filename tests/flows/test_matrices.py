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
        (lambda: fs.MatrixCompletion([1, 2, 3], (2, 2)), "triples"),
        (lambda: fs.MatrixCompletion([(0, 0, 1j)], (2, 2)), "`entries` must be an array of real numbers"),
        (lambda: fs.MatrixCompletion([(0, 0, "a")], (2, 2)), "`entries` must be an array of real numbers"),
        (lambda: fs.MatrixCompletion([(0, 0, 1.0)], 2), r"`shape` must be \(D, m\)"),
        (lambda: fs.MatrixCompletion([(0, 0, 1.0)], ("2", 2)), "`shape` must be an integer >= 1"),
        (lambda: fs.MatrixCompletion([(0, 0, 1.0)], (2, 2)).with_target([1.0, 2.0]), "`y` must have shape"),
        (lambda: fs.gradient_flow(fs.LinearNetwork(2), fs.MatrixSensing(np.zeros((1, 2, 2)), [1.0]), 1.0), "A != 0"),
        (lambda: fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.MatrixCompletion([(0, 0, 1.0)], (2, 2)), 1.0),
         "must be a LinearNetwork"),
        (lambda: fs.gradient_flow(fs.LinearNetwork(2, noise=fs.GaussianNoise(0.1)),
                                  fs.MatrixSensing(np.ones((1, 2, 2)), [1.0]), 1.0), "`noise` needs measurements"),
    ],
)  # fmt: skip
def test_bad_measurements_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_flow_on_measurements_comes_to_rest_by_itself() -> None:
    A, B = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    cross = np.array([[0.0, 1.0], [1.0, 0.0]])
    problem = fs.MatrixSensing([A, B, cross, np.array([[0.0, 1.0], [-1.0, 0.0]])], [3.0, 1.0, 1.0, 0.0])
    end = fs.gradient_flow(fs.LinearNetwork(3), problem, alpha="1e-60").beta[-1]
    np.testing.assert_allclose(end, [[3.0, 0.5], [0.5, 1.0]], atol=1e-5)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_data_whose_squares_are_no_floats_are_refused_with_the_powers_of_two_that_help(size: float) -> None:
    rng = np.random.default_rng(4)
    X, Y, net = rng.standard_normal((6, 3)), rng.standard_normal((6, 2)), fs.LinearNetwork(4)
    problems = [
        fs.Regression(size * X, Y),
        fs.Problem(size * X, np.sign(Y), loss="logistic"),
        fs.MatrixSensing(size * rng.standard_normal((5, 3, 2)), Y[:5, 0]),
        fs.MatrixCompletion([(0, 0, size), (0, 1, size), (1, 0, 2 * size)], (2, 2)),
    ]
    for problem in problems:
        for run in (lambda p: fs.gradient_flow(net, p, 1.0, alpha=1e-3), lambda p: fs.saddle_to_saddle(net, p)):
            with pytest.raises(fs.IntegrationError, match=r"out of the range of floats; divide .* by 2\^"):
                run(problem)


def test_the_limit_of_a_linear_network_scales_with_its_targets_or_says_that_it_cannot() -> None:
    rng = np.random.default_rng(4)
    X, Y, net = rng.standard_normal((6, 3)), rng.standard_normal((6, 2)), fs.LinearNetwork(4)
    path = fs.saddle_to_saddle(net, fs.Regression(X, Y))
    for p in (400, -660):
        other = fs.saddle_to_saddle(net, fs.Regression(X, np.ldexp(Y, p)))
        np.testing.assert_allclose(np.ldexp(other.jump_times, p), path.jump_times, rtol=1e-12)
        np.testing.assert_allclose(np.ldexp(other.end, -p), path.end, atol=1e-12)
    with pytest.raises(fs.IntegrationError, match=r"y of 2\^\d+ put squares"):
        fs.saddle_to_saddle(net, fs.Regression(X, 1e200 * Y))
