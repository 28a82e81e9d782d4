"""Noise that vanishes with the scale: a slower clock, trapped coordinates, and flows that approach it."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs

NET = fs.DiagonalNetwork(depth=3)


def test_one_clock_for_all_is_the_process_without_noise_in_another_time() -> None:
    """Equal feature variances: s(t) = s_free(tau), tau = (1 - exp(-a t)) / a, so jumps beyond tau = 1/a never come."""
    rng = np.random.default_rng(4)
    X = np.linalg.qr(rng.standard_normal((12, 5)))[0] * math.sqrt(12)
    problem = fs.Regression(X, X @ np.array([2.0, 1.0, 0.6, 0.3, 0.1]))
    free = fs.saddle_to_saddle(NET, problem)
    for c in (0.3, 0.6, 0.8):
        a = c**4
        joint = fs.saddle_to_saddle(NET, problem, joint_noise=c)
        known = free.jump_times[free.jump_times < 1 / a]
        np.testing.assert_allclose(joint.jump_times, -np.log1p(-a * known) / a, rtol=1e-10)
        assert len(joint.trapped) == 5 - len(known)
        np.testing.assert_allclose(joint.saddles, free.saddles[: len(known) + 1], atol=1e-12)
        t = 0.7 * joint.jump_times[-1]
        np.testing.assert_allclose(joint.dual(t), free.dual(-np.expm1(-a * t) / a), rtol=1e-10)


def test_one_feature_is_trapped_exactly_where_theory_says() -> None:
    """(L - 2) k t+ >= |g|, with k = sigma^2 c^(2 (L - 1)) and t+ = 1/(L - 2) for a balanced start at 1."""
    for depth in (3, 4, 5):
        net, problem = fs.DiagonalNetwork(depth=depth), fs.Regression([[2.0]], [1.5])
        edge = (3.0 / 4.0) ** (1 / (2 * (depth - 1)))  # |g| = 3, sigma^2 = 4
        free = fs.saddle_to_saddle(net, problem, joint_noise=0.999 * edge)
        assert len(free.jump_times) == 1 and free.end[0] == pytest.approx(0.75)
        caught = fs.saddle_to_saddle(net, problem, joint_noise=1.001 * edge)
        assert not len(caught.jump_times) and caught.trapped.tolist() == [0] and "traps" in caught.message


@pytest.mark.slow
@pytest.mark.parametrize("c", [0.3, 0.7])
def test_flows_approach_the_joint_limit_like_the_square_of_the_noise(c: float) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 5))
    problem = fs.Regression(X, X @ np.array([2.0, 1.5, -1.0, 0.3, 0.0]) + 0.2 * rng.standard_normal(20))
    start = {"w1": 1.0, "w2": 0.8, "w3": np.array([0.3, -0.2, 0.1, -0.4, 0.2])}
    path = fs.saddle_to_saddle(NET, problem, start, joint_noise=c)
    last = float(path.jump_times[-1])
    middle = np.append((np.append(0.0, path.jump_times[:-1]) + path.jump_times) / 2, 1.4 * last)
    errors = []
    for alpha in (1e-6, 1e-8):
        net = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(c * alpha**0.25))
        flow = fs.gradient_flow(net, problem, 1.5 * last, alpha=alpha, start=start, clock="accelerated", rtol=1e-7)
        errors.append(np.abs(flow.at(middle, clock="accelerated").beta - path.beta(middle)).max())
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.1)


def test_what_does_not_fit_is_refused() -> None:
    problem = fs.Regression([[1.0]], [1.0])
    for options, match in (({"joint_noise": -1.0}, "`joint_noise` must be > 0"), ({"exact": True}, "goes with")):
        with pytest.raises(ValueError, match=match):
            fs.saddle_to_saddle(NET, problem, **{"joint_noise": 0.1, **options})
    with pytest.raises(ValueError, match="three weights or more"):
        fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem, joint_noise=0.1)
    with pytest.raises(ValueError, match="exclude each other"):
        fs.saddle_to_saddle(fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.1)), problem, joint_noise=0.1)
    path = fs.saddle_to_saddle(NET, problem, joint_noise=0.1, t_end=0.5)
    assert not path.complete and not len(path.jump_times)
    assert fs.saddle_to_saddle(NET, problem, joint_noise=0.1, max_jumps=0).horizon > 0.9
