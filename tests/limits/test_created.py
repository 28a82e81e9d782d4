"""Sides that the start does not excite, and that terms of higher order open later."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs

FLIP = fs.Regression([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
FOUR = fs.Regression([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]], [1.0, 0.0])


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "plus", "minus"),
    [
        ("tanh(u)*v", 1.0, 3.0),  # u - v = -(2/3) alpha^3 / 4 to leading order
        ("u*v + u**3*v", 1.0, 3.0),
        ("u*v + u**2*v**2", 1.0, np.inf),  # u = v for ever
        ("u*v + u**5*v", 1.0, 5.0),
        ("2*a*b + a**2*c + c**3", 0.5, 1.0),  # a - b is created by a^2 c at once, and grows at rate 2
    ],
)
def test_the_threshold_is_the_degree_that_creates_a_direction_over_its_rate(formula, plus, minus):
    net = fs.DiagonalNetwork(formula)
    path = fs.saddle_to_saddle(net, FLIP, start=dict.fromkeys(net.weights, 1.0))
    np.testing.assert_allclose(path.thresholds, [[plus, plus], [minus, minus]], rtol=1e-12)


@pytest.mark.parametrize("problem", [FLIP, FOUR], ids=["flip", "four"])
@pytest.mark.parametrize("formula", ["tanh(u)*v", "2*a*b + a**2*c + c**3"])
def test_flows_at_vanishing_scale_wait_as_long_and_end_there(formula, problem):
    net = fs.DiagonalNetwork(formula)
    start = dict.fromkeys(net.weights, 1.0)
    path = fs.saddle_to_saddle(net, problem, start=start)
    flow = fs.gradient_flow(net, problem, 1.3 * path.jump_times[-1], alpha="1e-300", start=start, clock="accelerated")
    np.testing.assert_allclose(flow.beta[-1], path.end, atol=1e-9)
    edges = [*path.jump_times, 1.3 * path.jump_times[-1]]
    for before, after, saddle in zip(edges[:-1], edges[1:], path.saddles[1:], strict=True):
        late = 0.1 * before + 0.9 * after
        np.testing.assert_allclose(flow.at([late], "accelerated").beta[0], saddle, atol=1e-6)


def test_flows_travel_on_the_orbits_of_a_side_that_opens_late():
    net = fs.DiagonalNetwork("tanh(u)*v")
    start = {"u": 1.0, "v": 1.0}
    path = fs.saddle_to_saddle(net, FLIP, start=start)
    flow = fs.gradient_flow(net, FLIP, 3.0, alpha="1e-300", start=start, clock="accelerated")
    orbit = path.orbits[1]
    whole = orbit.at(np.linspace(0.0, orbit.length, 4001)) @ np.eye(2)[orbit.coordinates]
    moving = flow.at(np.linspace(2.2, 2.6, 2001), "accelerated").beta
    distance = np.sqrt(((moving[:, None] - whole[None]) ** 2).sum(axis=2)).min(axis=1)
    assert distance.max() < 1e-3
