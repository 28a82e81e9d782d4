"""The limit process of linear networks under any convex loss: independent minimisers, flows, separable data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import flowsim as fs
from flowsim.studies import max_margin_l2, measured_jump_times, plateau_times

Array = NDArray[np.float64]
SMOOTH = fs.losses.from_formula("log(1 + exp(-y*f)) + f**2/20")


def draw(seed: int, loss: str | fs.losses.Loss, n: int = 25, D: int = 4, m: int = 3) -> fs.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    F = X @ rng.standard_normal((D, m))
    if loss == "logistic" or loss is SMOOTH:
        return fs.Problem(X, np.where(rng.random((n, m)) < 1 / (1 + np.exp(-F)), 1.0, -1.0), loss)
    if loss == "poisson":
        return fs.Problem(X, rng.poisson(np.exp(F / 2)).astype(float), loss)
    return fs.Problem(X, F + 0.3 * rng.standard_normal((n, m)), loss)


def least_of_rank(problem: fs.Problem, beta: Array, rank: int) -> Array:
    """A minimiser over matrices of a rank, by SciPy's trust-region Newton method in factors, from nearby."""
    D, m = beta.shape
    left, values, right = np.linalg.svd(beta)
    half = np.sqrt(values[:rank])
    rng = np.random.default_rng(0)
    start = np.concatenate([(left[:, :rank] * half).ravel(), (right[:rank].T * half).ravel()])

    def split(z: Array) -> tuple[Array, Array]:
        return z[: D * rank].reshape(D, rank), z[D * rank :].reshape(m, rank)

    def gradient(z: Array) -> Array:
        U, V = split(z)
        g = problem.gradient(U @ V.T)
        return np.concatenate([(g @ V).ravel(), (g.T @ U).ravel()])

    def product(z: Array, p: Array) -> Array:
        U, V = split(z)
        dU, dV = split(p)
        beta, moved = U @ V.T, dU @ V.T + U @ dV.T
        g = problem.gradient(beta)
        h = problem.X.T @ (problem.curvatures(problem.X @ beta) * (problem.X @ moved)) / problem.n
        return np.concatenate([(g @ dV + h @ V).ravel(), (g.T @ dU + h.T @ U).ravel()])

    found = minimize(
        lambda z: float(problem.loss(split(z)[0] @ split(z)[1].T)), start + 0.02 * rng.standard_normal(len(start)),
        jac=gradient, hessp=product, method="trust-ncg", options={"gtol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    U, V = split(found.x)
    return U @ V.T


@pytest.mark.sampled(6)
@pytest.mark.parametrize("loss", ["logistic", "log-cosh", "poisson", "pseudo-huber", SMOOTH], ids=str)
def test_saddles_are_minimisers_over_their_rank(loss: str | fs.losses.Loss) -> None:
    problem = draw(0, loss)
    path = fs.saddle_to_saddle(fs.LinearNetwork(8), problem)
    assert path.complete
    assert path.escape is None
    assert path.ranks.tolist() == [0, 1, 2, 3]
    for rank, saddle in zip(path.ranks[1:], path.saddles[1:], strict=True):
        np.testing.assert_allclose(saddle, least_of_rank(problem, saddle, int(rank)), atol=1e-9)
    np.testing.assert_allclose(problem.gradient(path.end), 0.0, atol=1e-10)
    np.testing.assert_allclose(path.losses, [problem.loss(saddle) for saddle in path.saddles], atol=1e-13)
    # The first jump, and the second by the singular values of G at the first saddle.
    G = [np.linalg.svd(problem.gradient(saddle), compute_uv=False) for saddle in path.saddles[:2]]
    first = 1 / G[0][0]
    assert path.jump_times[0] == pytest.approx(first, rel=1e-12)
    assert path.jump_times[1] == pytest.approx(first + (1 - G[0][1] * first) / G[1][0], rel=1e-8)
    for jump, orbit in enumerate(path.orbits):
        assert orbit.length >= np.linalg.norm(path.saddles[jump + 1] - path.saddles[jump]) * (1 - 1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("loss", "seed"), [("log-cosh", 1), ("poisson", 2), ("logistic", 3)])
def test_flows_follow_the_limit_with_order_one(loss: str, seed: int) -> None:
    problem, net = draw(seed, loss, n=15, D=3, m=2), fs.LinearNetwork(5)
    path = fs.saddle_to_saddle(net, problem)
    assert path.complete
    horizon, measured = 1.3 * path.jump_times[-1], []
    for alpha in ("1e-400", "1e-1000"):
        flow = fs.gradient_flow(net, problem, horizon, alpha=alpha, clock="accelerated")
        measured.append(np.abs(measured_jump_times(flow, path) / path.jump_times - 1))
    np.testing.assert_allclose(np.log(measured[0] / measured[1]) / math.log(2.5), 1.0, atol=0.05)
    middles = plateau_times(path, horizon)
    np.testing.assert_allclose(flow.at(middles, clock="accelerated").beta, path.saddles, atol=1e-5)


def test_a_narrow_network_ends_at_a_minimiser_of_its_rank() -> None:
    problem = draw(4, "log-cosh")
    path = fs.saddle_to_saddle(fs.LinearNetwork(2), problem)
    assert path.complete
    assert path.ranks.tolist() == [0, 1, 2]
    np.testing.assert_allclose(path.end, least_of_rank(problem, path.end, 2), atol=1e-9)


def test_rows_and_targets_that_never_meet_are_learned_apart() -> None:
    rng = np.random.default_rng(5)
    X, Y = np.zeros((12, 4)), np.zeros((12, 3))
    X[:6, :2], X[6:, 2:] = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    Y[:6, :1], Y[6:, 1:] = rng.standard_normal((6, 1)), rng.standard_normal((6, 2))
    path = fs.saddle_to_saddle(fs.LinearNetwork(7), fs.Problem(X, Y, "log-cosh"))
    assert path.stats["blocks"] == 2
    one = fs.saddle_to_saddle(fs.LinearNetwork(7), fs.Problem(X[:6, :2], Y[:6, :1], "log-cosh"))
    two = fs.saddle_to_saddle(fs.LinearNetwork(7), fs.Problem(X[6:, 2:], Y[6:, 1:], "log-cosh"))
    # Twice as many rows in all: half the gradient each.
    np.testing.assert_allclose(path.jump_times, np.sort(np.concatenate([2 * one.jump_times, 2 * two.jump_times])))
    np.testing.assert_allclose(path.end[:2, :1], one.end, atol=1e-10)
    np.testing.assert_allclose(path.end[2:, 1:], two.end, atol=1e-10)
    assert not path.end[:2, 1:].any()


@pytest.mark.parametrize("seed", range(4))
def test_separable_data_escape_along_the_largest_l2_margin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((12, 6))
    problem = fs.Problem(X, np.sign(X @ rng.standard_normal(6)), "logistic")
    path = fs.saddle_to_saddle(fs.LinearNetwork(7), problem)
    assert not path.complete
    assert path.escape is not None
    assert "escapes to infinity" in path.message
    assert path.escape.time == pytest.approx(1 / np.linalg.norm(problem.gradient(np.zeros(6))), rel=1e-12)
    best = max_margin_l2(problem)
    np.testing.assert_allclose(path.escape.direction[:, 0], best.direction, atol=1e-9)
    assert path.escape.margin == pytest.approx(best.margin, rel=1e-9)
    with pytest.raises(ValueError, match="has not reached its end"):
        _ = path.end


def test_the_direction_of_an_escape_is_that_of_the_flow_and_stationary() -> None:
    rng = np.random.default_rng(2)
    X, m = rng.standard_normal((6, 5)), 2
    truth = np.outer(rng.standard_normal(5), [1.0, -1.5])
    problem = fs.Problem(X, np.sign(X @ truth), "logistic")
    path = fs.saddle_to_saddle(fs.LinearNetwork(7), problem)
    assert path.escape is not None
    assert path.escape.margin > 0
    direction = path.escape.direction
    margins = problem.y * (X @ direction)
    assert np.linalg.svd(direction, compute_uv=False).sum() == pytest.approx(1.0)
    assert margins.min() == pytest.approx(path.escape.margin, rel=1e-9)
    # Rank one, and one sign pattern: the same margin as of one target with the two as copies.
    single = max_margin_l2(fs.Problem(X, problem.y[:, 0], "logistic"))
    assert path.escape.margin == pytest.approx(single.margin / math.sqrt(m), rel=1e-9)
    flow = fs.gradient_flow(fs.LinearNetwork(7), problem, 1e4, alpha="1e-300", clock="log_loss", t_eval=[1e2, 1e4])
    seen = flow.beta / np.linalg.svd(flow.beta, compute_uv=False).sum(axis=1)[:, None, None]
    gaps = np.abs(seen - direction).reshape(2, -1).max(axis=1)
    assert gaps[1] < 5e-3
    assert gaps[1] < gaps[0]


def test_where_part_of_beta_escapes_the_path_ends_and_says_so() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 5))
    problem = fs.Problem(X, np.sign(X @ rng.standard_normal((5, 2))), "logistic")
    path = fs.saddle_to_saddle(fs.LinearNetwork(7), problem)
    assert not path.complete
    assert path.escape is not None
    assert path.escape.margin == 0
    assert "part of beta escapes" in path.message
    assert path.horizon == path.escape.time


def test_what_the_limit_of_another_loss_cannot_have_is_named() -> None:
    with pytest.raises(ValueError, match="squared loss for weight noise"):
        fs.saddle_to_saddle(fs.LinearNetwork(4, noise=fs.GaussianNoise(0.1)), draw(0, "log-cosh"))
    with pytest.raises(ValueError, match="gradient that is not 0"):
        fs.saddle_to_saddle(fs.LinearNetwork(4), fs.Problem([[1.0], [2.0]], [0.0, 0.0], "log-cosh"))


def test_weight_decay_beside_another_loss_is_stationary() -> None:
    problem, decay = draw(6, "logistic"), 0.05
    path = fs.saddle_to_saddle(fs.LinearNetwork(8, weight_decay=decay), problem)
    assert path.complete
    left, values, right = np.linalg.svd(path.end, full_matrices=False)
    rank = int((values > 1e-9).sum())
    rest = -problem.gradient(path.end) - decay * left[:, :rank] @ right[:rank]
    assert np.abs(left[:, :rank].T @ rest).max() < 1e-9
    assert np.abs(rest @ right[:rank].T).max() < 1e-9
    assert np.linalg.norm(rest, 2) < decay * (1 + 1e-9)
