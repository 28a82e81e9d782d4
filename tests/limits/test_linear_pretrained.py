"""Pretrained linear networks: what their limit begins with, against flows."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs
from flowsim.studies import measured_jump_times, plateau_times


def draw(seed: int, D: int = 4, m: int = 3) -> tuple[np.random.Generator, fs.Regression]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((20, D))
    return rng, fs.Regression(X, X @ rng.standard_normal((D, m)) + 0.3 * rng.standard_normal((20, m)))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("kind", ["rank one", "U wider", "V alone", "noise", "rotated", "balanced"])
def test_flows_follow_the_limit_of_pretrained_weights(kind: str) -> None:
    rng, problem = draw(1)
    net = fs.LinearNetwork(7, noise=fs.GaussianNoise(0.15) if kind == "noise" else None)
    U, V = np.zeros((4, 7)), np.zeros((3, 7))
    V[:, 0] = rng.standard_normal(3)
    if kind != "V alone":
        U[:, 0] = rng.standard_normal(4)
    if kind == "U wider":
        U[:, 1] = rng.standard_normal(4)
    if kind == "rotated":
        turn = np.linalg.qr(rng.standard_normal((7, 7)))[0]
        U, V = U @ turn, V @ turn
    if kind == "balanced":
        V *= np.linalg.norm(U) / np.linalg.norm(V)
    start, pretrained = fs.linear_start(net, problem), {"U": U, "V": V}
    path = fs.saddle_to_saddle(net, problem, start, pretrained=pretrained)
    assert path.complete
    assert path.ranks[0] == (2 if kind == "U wider" else 1)
    horizon, errors = 1.3 * path.jump_times[-1], []
    for alpha in ("1e-400", "1e-1000"):
        flow = fs.gradient_flow(
            net, problem, horizon, alpha=alpha, start=start, pretrained=pretrained, clock="accelerated"
        )
        errors.append(np.abs(measured_jump_times(flow, path) / path.jump_times - 1))
    assert (errors[1] < 1e-2).all()
    np.testing.assert_allclose(np.log(errors[0] / errors[1]) / math.log(2.5), 1.0, atol=0.05)
    middles = plateau_times(path, horizon)
    np.testing.assert_allclose(flow.at(middles, clock="accelerated").beta, path.saddles, atol=1e-6)
    np.testing.assert_allclose(path.orbits[0].length >= np.linalg.norm(path.saddles[1] - path.saddles[0]), True)


def test_pretrained_weights_of_full_width_relax_and_stay() -> None:
    rng, problem = draw(2)
    net = fs.LinearNetwork(2)
    pretrained = {"U": rng.standard_normal((4, 2)), "V": rng.standard_normal((3, 2))}
    path = fs.saddle_to_saddle(net, problem, pretrained=pretrained)
    assert path.ranks.tolist() == [2]
    assert path.complete
    assert "rank 2" in path.message
    flow = fs.gradient_flow(net, problem, 400.0, alpha=1e-200, pretrained=pretrained)
    np.testing.assert_allclose(path.end, flow.beta[-1], atol=1e-8)


def test_pretrained_weights_of_another_loss() -> None:
    rng, squares = draw(3)
    problem = fs.Problem(squares.X, squares.y, "log-cosh")
    net = fs.LinearNetwork(7)
    U, V = np.zeros((4, 7)), np.zeros((3, 7))
    U[:, 0], V[:, 0] = rng.standard_normal(4), rng.standard_normal(3)
    path = fs.saddle_to_saddle(net, problem, pretrained={"U": U, "V": V})
    flow = fs.gradient_flow(
        net, problem, 0.5 * path.jump_times[0], alpha="1e-300", pretrained={"U": U, "V": V}, clock="accelerated"
    )
    np.testing.assert_allclose(flow.beta[-1], path.saddles[0], atol=1e-7)


def test_what_pretrained_weights_cannot_begin_with_is_named() -> None:
    X, Y = np.diag([1.0, 2.0]) * np.sqrt(2), np.diag([1.0, 0.75]) * np.sqrt(2)
    apart = {"U": np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]]), "V": np.array([[0.5, 0, 0, 0], [0, 0, 0, 0]])}
    with pytest.raises(ValueError, match="must couple the parts of data"):
        fs.saddle_to_saddle(fs.LinearNetwork(4), fs.Regression(X, Y), pretrained=apart)
    # The balanced pair (1, -1) shrinks to the origin, which the pair (1, 1) leaves.
    one = fs.Regression([[1.0]], [1.0])
    with pytest.raises(ValueError, match="stationary point of their own rank"):
        fs.saddle_to_saddle(fs.LinearNetwork(2), one, pretrained={"U": [[1.0, 0.0]], "V": [[-1.0, 0.0]]})
    with pytest.raises(ValueError, match="`pretrained` must give every weight"):
        fs.saddle_to_saddle(fs.LinearNetwork(2), one, pretrained={"U": [[1.0, 0.0]]})
