"""Flows of two-layer linear networks against their limit: plateaus, jump times, ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs
from flowsim.studies import measured_jump_times, plateau_times

SCALES = ("1e-400", "1e-1000")
GAMMAS = np.array([400.0, 1000.0]) * math.log(10.0)
#: A plateau whose middle is this many e-folds from its saddle is one; a jump this late costs too long a run.
RESOLVED, LATEST = 25.0, 25.0


def random_case(seed: int) -> tuple[fs.LinearNetwork, fs.Regression]:
    rng = np.random.default_rng(1000 + seed)
    D, m, n = int(rng.integers(2, 6)), int(rng.integers(1, 5)), int(rng.integers(3, 20))
    width, eta = int(rng.integers(1, D + m + 4)), (0.0, 0.0, 0.25)[seed % 3]
    X = rng.standard_normal((n, D)) * rng.uniform(0.5, 1.5, D)
    problem = fs.Regression(X, X @ rng.standard_normal((D, m)) + 0.3 * rng.standard_normal((n, m)))
    return fs.LinearNetwork(width, noise=fs.GaussianNoise(eta) if eta else None), problem


def relaxed(path: fs.LinearSaddlePath, middles: np.ndarray) -> np.ndarray:
    """E-folds, over ln(1/alpha), that a flow is from each saddle in the middle of its plateau."""
    levels = path.levels(middles)
    waits = [1 - row[rank] if rank < path.width else math.inf for row, rank in zip(levels, path.ranks, strict=True)]
    halves = middles - np.concatenate([[0.0], path.jump_times])
    return np.minimum(waits, np.where(path.ranks > 0, halves * path.relaxation_rates, math.inf))


def agreement(net: fs.LinearNetwork, problem: fs.Regression) -> int:
    """How many jumps were compared; fails where flow and limit part."""
    path = fs.saddle_to_saddle(net, problem)
    if not len(path.jump_times) or path.jump_times[-1] > LATEST * path.jump_times[0]:
        return 0
    horizon = 1.5 * path.jump_times[-1]
    middles = plateau_times(path, horizon)
    measured = []
    for alpha in SCALES:
        flow = fs.gradient_flow(net, problem, horizon, alpha=alpha, clock="accelerated", rtol=1e-8)
        measured.append(measured_jump_times(flow, path))
    beta = flow.at(middles, clock="accelerated").beta
    errors = np.abs(beta - path.saddles).reshape(len(middles), -1).max(axis=1) / np.abs(path.saddles).max()
    clear = relaxed(path, middles) * GAMMAS[1] > RESOLVED
    assert errors[clear].max() < 1e-6
    seen = np.isfinite(measured).all(axis=0)
    # Jumps closer than their own O(1/gamma) are crossed together.
    apart = np.diff(np.concatenate([[0.0], path.jump_times, [horizon]])).min() * GAMMAS[0] > 200
    assert seen.all() or not apart
    first, second = (np.abs(times / path.jump_times - 1)[seen] for times in measured)
    if apart:
        order = np.log(first / second) / np.log(GAMMAS[1] / GAMMAS[0])
        np.testing.assert_allclose(order, 1.0, atol=0.05)
        extrapolated = (GAMMAS[1] * measured[1] - GAMMAS[0] * measured[0]) / (GAMMAS[1] - GAMMAS[0])
        np.testing.assert_allclose(extrapolated, path.jump_times, rtol=1e-6)
    return int(seen.sum())


@pytest.mark.parametrize("seed", [1, 6])
def test_flows_follow_the_limit(seed: int) -> None:
    assert agreement(*random_case(seed)) >= 1


@pytest.mark.slow
def test_a_hundred_random_flows_follow_the_limit() -> None:
    assert sum(agreement(*random_case(seed)) for seed in range(100)) >= 100


def test_the_first_direction_to_arrive_is_not_the_one_that_explains_most() -> None:
    """Data that decouple: the louder feature is learned first, and no unit that they share changes that."""
    X, Y = np.diag([1.0, 2.0]) * np.sqrt(2), np.diag([1.0, 0.75]) * np.sqrt(2)
    problem, net = fs.Regression(X, Y), fs.LinearNetwork(5)
    # Far below this alpha the rounding of a run, 1e-16, is a coupling that counts.
    flow = fs.gradient_flow(net, problem, 1.5, alpha="1e-30", clock="accelerated")
    np.testing.assert_allclose(flow.at(0.83, clock="accelerated").beta, np.diag([0.0, 0.375]), atol=1e-3)
    np.testing.assert_allclose(flow.beta[-1], np.diag([1.0, 0.375]), atol=1e-6)
