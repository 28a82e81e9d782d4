"""Noise and weight decay over horizons of 1e3 to 1e12: where beta rests, and how what is shrunk to nothing goes on."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs


def shrunk(problem: fs.Regression, beta: np.ndarray, v: np.ndarray) -> float:
    """How far beta is from ``min 1/2n ||X beta - y||^2 + sum v |beta|``, by the conditions of the minimum."""
    f = -problem.gradient(beta)
    inside = np.maximum(np.abs(f) - v, 0.0)
    return float(np.where(beta == 0, inside, np.abs(f - v * np.sign(beta))).max())


def sparse(n: int, d: int, seed: int = 0) -> fs.Regression:
    rng = np.random.default_rng(seed)
    X, truth = rng.standard_normal((n, d)), np.zeros(d)
    truth[:3] = 2.0, -1.0, 0.5
    return fs.Regression(X, X @ truth + 0.1 * rng.standard_normal(n))


@pytest.mark.parametrize("std", [0.05, 0.3])
@pytest.mark.parametrize(("n", "d"), [(30, 8), (6, 12)])
def test_noise_rests_at_shrinkage_by_its_variance_at_any_horizon_in_no_more_steps(n: int, d: int, std: float) -> None:
    problem = sparse(n, d)
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(std))
    runs = [fs.gradient_flow(net, problem, t, alpha=1e-8) for t in (1e8, 1e10, 1e12)]
    assert all(run.info["coordinates"] == "growth" for run in runs)
    for run in runs:
        # Both weights pay 1/2 std^2 Sigma_ii for their squares.
        assert shrunk(problem, run.beta[-1], std**2 * problem.feature_variances) < 1e-13 * np.abs(problem.y).max()
        assert run.stats["steps"] <= runs[0].stats["steps"] + 15
        assert run.imbalance_drift < 1e-12


def test_what_is_shrunk_to_nothing_decays_at_its_own_rate() -> None:
    """On one feature with y = 0.5 below the shrinkage 1: ln|u + v| falls by v - c, ln|u - v| by v + c."""
    net, t = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(1.0)), np.array([1e9, 5e11, 1e12])
    run = fs.gradient_flow(net, fs.Regression([[1.0]], [0.5]), t[-1], alpha=1e-8, start={"u": 1.0, "v": 0.0}, t_eval=t)
    assert (run.beta == 0).all()
    # (u + v)' = (g - std^2) (u + v) for g = y - beta
    np.testing.assert_allclose(run.log_abs_weights["u"][:, 0] / t, -0.5, rtol=1e-7)
    # u^2 - v^2 = (u + v) (u - v): (0.5 - 1) - (0.5 + 1)
    np.testing.assert_allclose(run.log_imbalance[:, 0, 0] / t, -2.0, rtol=1e-7)


@pytest.mark.parametrize("formula", ["2*u**2 - v**2", "u**2 + u*v - 3*v**2"])
def test_unequal_modes_rest_where_a_shorter_run_does(formula: str) -> None:
    problem = sparse(20, 5, seed=3)
    net = fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(0.2))
    start = {"u": np.full(5, 1.0), "v": np.full(5, 0.7)}
    short, long = (fs.gradient_flow(net, problem, t, alpha=1e-3, start=start, rtol=1e-10) for t in (2e3, 1e12))
    np.testing.assert_allclose(long.beta[-1], short.beta[-1], atol=1e-9)
    early = np.array([0.3, 3.0, 30.0, 1500.0])
    np.testing.assert_allclose(long.at(early).beta, short.at(early).beta, atol=1e-8)
    np.testing.assert_allclose(long.at(early).log_abs_weights["u"], short.at(early).log_abs_weights["u"], rtol=1e-7)


def test_weight_decay_is_shrinkage_too() -> None:
    problem, weight_decay = sparse(30, 8), 0.05
    net = fs.DiagonalNetwork("u*v", weight_decay=weight_decay)
    run = fs.gradient_flow(net, problem, 1e12, alpha="1e-50")
    assert shrunk(problem, run.beta[-1], np.full(8, weight_decay)) < 1e-13 * np.abs(problem.y).max()


def test_many_features_rest_as_well() -> None:
    problem = sparse(60, 900, seed=2)
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
    run = fs.gradient_flow(net, problem, 1e12, alpha=1e-8)
    assert shrunk(problem, run.beta[-1], 0.09 * problem.feature_variances) < 1e-12 * np.abs(problem.y).max()
