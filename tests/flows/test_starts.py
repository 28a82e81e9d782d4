"""Starts in logarithms, pretrained starts, and the scale of a start given without one."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.optimize import linprog

import flowsim as fs
from flowsim.network import read_start
from flowsim.network.scale import InitialScale

UV = fs.DiagonalNetwork("u*v")


def pretrained_problem(seed: int) -> tuple[fs.Regression, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((4, 7)), rng.standard_normal(4)
    beta = np.where(rng.random(7) < 0.5, rng.standard_normal(7), 0.0)
    size = np.sqrt(np.abs(beta))
    return fs.Regression(X, y), {"u": size, "v": size * np.sign(beta)}


def test_logarithms_mean_the_weights_they_stand_for() -> None:
    problem = fs.Regression([[1.0, 0.4], [0.1, -1.0]], [1.0, 0.5])
    u, v = np.array([0.3, -0.2]), np.array([0.1, 0.4])
    plain = fs.gradient_flow(UV, problem, 3.0, alpha=0.5, start={"u": u, "v": v}, t_eval=[3.0])
    logs = {"u": fs.Logs(np.sign(u), np.log(np.abs(u))), "v": v}
    other = fs.gradient_flow(UV, problem, 3.0, alpha=0.5, start=logs, t_eval=[3.0])
    np.testing.assert_allclose(other.beta, plain.beta, rtol=1e-9)
    for formula in ("u*v*w", "tanh(u*v)"):
        net = fs.DiagonalNetwork(formula)
        start = {name: [0.9, 1.1] for name in net.weights} | {"u": u}
        plain = fs.gradient_flow(net, problem, 3.0, alpha=0.5, start=start, t_eval=[3.0])
        other = fs.gradient_flow(net, problem, 3.0, alpha=0.5, start=start | {"u": logs["u"]}, t_eval=[3.0])
        np.testing.assert_allclose(other.beta, plain.beta, rtol=1e-6)


def test_every_weight_and_coordinate_has_a_scale_of_its_own() -> None:
    """One feature each: beta = exp(2(z + a)) (1 - e^...) / 2 jumps when z reaches -a = -ln u(0): t = -a/|g|."""
    logs = np.array([-1e3, -2e3, -4e5])
    problem = fs.Regression(np.sqrt(3) * np.eye(3), np.sqrt(3) * np.array([1.0, 1.0, 1.0]))
    start = {"u": fs.Logs(1, logs), "v": fs.Logs(0, 0.0)}
    traj = fs.gradient_flow(UV, problem, 5e5, start=start)
    for i, log in enumerate(logs):
        jump = traj.t[np.argmax(traj.beta[:, i] > 0.5)]
        assert jump == pytest.approx(-log, rel=0.05)
    np.testing.assert_allclose(traj.log_imbalance[-1, 0], 2 * logs)


def test_pretrained_components_are_exact_far_below_rounding() -> None:
    """p0^2 = 2 sqrt(b^2 + mu^2) + 2 b and q0 = 2 mu / p0, in 1100 digits."""
    beta, alpha = 0.7, "1e-1000"
    size = math.sqrt(beta)
    start = read_start(UV, {"u": 1.0, "v": 0.3}, {"u": size, "v": size}, InitialScale.parse(alpha), 1)
    assert start is not None
    sign, log = start.components(np.array([[1.0, 1.0], [1.0, -1.0]]))
    with mpmath.workdps(1100):
        a = mpmath.mpf(alpha)
        u, v = mpmath.mpf(size) + a, mpmath.mpf(size) + mpmath.mpf("0.3") * a
        mu, b = (u**2 - v**2) / 2, u * v
        p = mpmath.sqrt(2 * mpmath.sqrt(b**2 + mu**2) + 2 * b)
        q = 2 * mu / p
        np.testing.assert_allclose(log[:, 0], [float(mpmath.log(p)), float(mpmath.log(q))], rtol=1e-13)
    assert (sign == 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_pretrained_flows_approach_their_limit_at_order_one_over_gamma(seed: int) -> None:
    problem, weights = pretrained_problem(seed)
    path = fs.saddle_to_saddle(UV, problem, pretrained=weights)
    first = float(path.jump_times[0])
    before, after = path.beta(np.array([0.5 * first, 0.5 * (first + (*path.jump_times, 2 * first)[1])]))
    i = int(np.argmax(np.abs(after - before)))
    errors = []
    for power in (1000, 4000, 16000):
        traj = fs.gradient_flow(
            UV, problem, 1.2 * first, alpha=f"1e-{power}", pretrained=weights, clock="accelerated", rtol=1e-9
        )
        np.testing.assert_allclose(traj.at([0.5 * first], clock="accelerated").beta[0], before, atol=1e-4)
        low, high = 0.5 * first, 1.2 * first
        for _ in range(60):
            t = (low + high) / 2
            there = traj.at([t], clock="accelerated").beta[0, i]
            low, high = (t, high) if abs(there - before[i]) < abs(there - after[i]) else (low, t)
        errors.append(abs(low - first))
    orders = -np.diff(np.log(errors)) / math.log(4.0)
    np.testing.assert_allclose(orders, 1.0, atol=0.1)


def test_pretrained_products_and_refusals() -> None:
    problem = fs.Regression([[1.0, 0.5], [0.3, 1.0]], [1.0, -0.5])
    net = fs.DiagonalNetwork(depth=3)
    weights = {"w1": [1.0, 0.0], "w2": [0.7, 0.0], "w3": [0.4, 0.0]}
    traj = fs.gradient_flow(net, problem, 30.0, alpha=1e-3, pretrained=weights, start={"w1": 1, "w2": 2, "w3": 3})
    direct = {name: np.array(weights[name]) + 1e-3 * (k + 1) for k, name in enumerate(net.weights)}
    plain = fs.gradient_flow(net, problem, 30.0, alpha=1.0, start=direct)
    np.testing.assert_allclose(traj.beta[-1], plain.beta[-1], rtol=1e-5)
    tied = dict.fromkeys(net.weights, 0.5)
    with pytest.raises(ValueError, match="differ only in what `alpha` adds"):
        fs.gradient_flow(net, problem, 1.0, alpha=1e-20, pretrained=tied, start={"w1": 1, "w2": 2, "w3": 3})
    with pytest.raises(ValueError, match="more than the range of floats"):
        fs.gradient_flow(net, problem, 1.0, start={"w1": fs.Logs(1, [0.0, -1e4]), "w2": 1, "w3": 1})
    with pytest.raises(ValueError, match="`start\\['u'\\].sign` must hold"):
        fs.gradient_flow(UV, problem, 1.0, start={"u": fs.Logs(2, 0.0), "v": 1})
    with pytest.raises(ValueError, match="logarithms of its components below 0"):
        fs.saddle_to_saddle(UV, problem, {"u": fs.Logs(1, 0.0), "v": 1})
    with pytest.raises(ValueError, match="quadratic formulas alone"):
        fs.saddle_to_saddle(net, problem, {"w1": fs.Logs(1, -9.0), "w2": 1, "w3": 1})


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_programme_by_costs_as_scales(seed: int) -> None:
    """min c beta, X beta = y, beta >= 0, from u = v = exp(-c_i gamma): thresholds t_i = c_i, and beta >= 0 for ever."""
    rng = np.random.default_rng(seed)
    X, costs = rng.standard_normal((3, 8)), rng.uniform(0.5, 2.0, 8)
    y = X @ np.where(rng.random(8) < 0.5, rng.uniform(0.5, 2.0, 8), 0.0)
    right = linprog(costs, A_eq=X, b_eq=y)
    gamma = 1e4
    weights = fs.Logs(1, -gamma * costs)
    traj = fs.gradient_flow(UV, fs.Regression(X, y), 300 * gamma, start={"u": weights, "v": weights})
    np.testing.assert_allclose(traj.beta[-1], right.x, atol=1e-7)
    assert (traj.beta >= 0).all()
    path = fs.saddle_to_saddle(UV, fs.Regression(X, y), {"u": weights, "v": weights})
    np.testing.assert_allclose(path.end, right.x, atol=1e-9)
    np.testing.assert_allclose(path.thresholds[0], gamma * costs - np.log(2.0), rtol=1e-13)
    middle = (path.jump_times[:-1] + path.jump_times[1:]) / 2
    np.testing.assert_allclose(traj.at(middle).beta, path.beta(middle), atol=1e-6)


@pytest.mark.parametrize("formula", ["u*v", "tanh(u)*v"])
def test_descent_from_logarithms_is_descent_from_their_weights(formula: str) -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((5, 3)), rng.standard_normal(5))
    net = fs.DiagonalNetwork(formula)
    u, v = np.array([0.3, -0.1, 0.02]), np.array([0.2, 0.05, 0.4])
    logs = {name: fs.Logs(np.sign(w), np.log(np.abs(w))) for name, w in (("u", u), ("v", v))}
    runs = [fs.gradient_descent(net, problem, 0.05, 300, alpha=1.0, start=start) for start in ({"u": u, "v": v}, logs)]
    np.testing.assert_allclose(runs[1].beta, runs[0].beta, rtol=1e-9, atol=1e-12)


def test_descent_follows_the_flow_from_scales_of_their_own() -> None:
    problem = fs.Regression(np.eye(2), [1.0, 1.0])
    logs = fs.Logs(1, [-1000.0, -3000.0])
    start = {"u": logs, "v": logs}
    # One feature at rate 1/2: 2 z = 2 c - ln(4 beta) to leading order.
    flow = fs.gradient_flow(UV, problem, 8000.0, start=start)
    descent = fs.gradient_descent(UV, problem, 1e-2, 800_000, alpha=1.0, start=start, record_every=1000)
    for i in range(2):
        halves = [np.interp(0.5, run.beta[:, i], run.t) for run in (flow, descent)]
        assert halves[1] == pytest.approx(halves[0], rel=5e-3)


def test_a_start_without_a_scale_is_taken_as_it_is() -> None:
    problem = fs.Regression([[1.0]], [1.0])
    start = {"u": 0.3, "v": 0.2}
    assert fs.gradient_flow(UV, problem, 1.0, start=start).beta[0, 0] == pytest.approx(0.06)
    assert fs.gradient_descent(UV, problem, 0.1, 3, start=start).beta[0, 0] == pytest.approx(0.06)
    assert fs.gradient_flow(UV, problem, 1.0).info["log_alpha"] == pytest.approx(math.log(1e-3))
