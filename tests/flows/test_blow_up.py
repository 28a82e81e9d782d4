"""Formulas of order L >= 3 at vanishing scale: the weights, closed forms, the limit process."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
from mpmath import mp, mpf, quad

import flowsim as fs
from flowsim.growth.blow_up import grow
from flowsim.growth.blow_up_map import BlowUpMap
from flowsim.network import InitialScale

FOUR = fs.Regression([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]], [1.0, 0.0])
#: Coordinate 1 changes sign, coordinate 0 sinks again.
FLIP = fs.Regression([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
START = {"u": 1.0, "v": 0.6, "w": 0.4, "x": 0.8}
FORMULAS = ["u*v*w+u**2*v**2*w**2", "u**3-v**3", "u**2*v", "u*v*w*(1+u)", "sinh(u*v*w)", "u*v*w*x+u**5"]


def run(formula, problem, t_end, alpha, uneven=True, **more):
    net = fs.DiagonalNetwork(formula)
    start = {name: START[name] for name in net.weights} if uneven else None
    return fs.gradient_flow(net, problem, t_end, alpha=alpha, start=start, clock="accelerated", **more)


@pytest.mark.sampled(13)
@pytest.mark.parametrize("alpha", ["1e-30", "1e-100", "edge", "1e-1000"])
@pytest.mark.parametrize(
    ("formula", "uneven"),
    [(formula, place % 2 == 0) for place, formula in enumerate(FORMULAS)]
    + [pytest.param(formula, place % 2 == 1, marks=pytest.mark.slow) for place, formula in enumerate(FORMULAS)],
)
def test_ends_at_vanishing_scale_are_those_of_the_limit_process(formula, uneven, alpha):
    net = fs.DiagonalNetwork(formula)
    start = {name: START[name] for name in net.weights} if uneven else None
    path = fs.saddle_to_saddle(net, FOUR, start=start)
    if alpha == "edge":  # of what floats of time hold
        alpha = f"1e-{600 // (path.order - 2) - 10}"
    traj = run(formula, FOUR, 1.3 * path.jump_times[-1], alpha, uneven)
    assert traj.info["coordinates"] == "curve"
    np.testing.assert_allclose(traj.beta[-1], path.end, atol=1e-9)
    for time, saddle in zip(path.jump_times[1:], path.saddles[1:-1], strict=True):
        np.testing.assert_allclose(traj.at([0.98 * time], "accelerated").beta[0], saddle, atol=1e-7)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("formula", ["u*v*w+u**2*v**2*w**2", "u**3-v**3", "tanh(u*v*w)", "u*v*w*(1+u)", "u*v*w*x+u**5"])
def test_the_same_as_along_the_curve_itself_where_both_work(formula, monkeypatch):
    alpha = "1e-5" if "x" not in formula else "1e-3"
    asked = {"t_eval": np.linspace(0.0, 12.0, 50), "rtol": 1e-8}
    curve = run(formula, FOUR, 12.0, alpha, **asked)
    front = importlib.import_module("flowsim.flows.diagonal_flow")
    monkeypatch.setattr(front, "admits_curves", lambda *_: "not now")
    distance = run(formula, FOUR, 12.0, alpha, **asked)
    assert distance.beta.tobytes() != curve.beta.tobytes()
    np.testing.assert_allclose(distance.beta, curve.beta, atol=1e-6)
    for name, values in distance.log_abs_weights.items():
        np.testing.assert_allclose(values, curve.log_abs_weights[name], atol=1e-5)
    np.testing.assert_allclose(distance.arclength, curve.arclength, rtol=1e-6)
    np.testing.assert_allclose(distance.speed, curve.speed, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_cube_blows_up_in_its_closed_form():
    # u' = 3 g u^2 with g = 1 as long as u is small.
    for alpha in ("1e-30", "1e-1000"):
        traj = fs.gradient_flow(
            fs.DiagonalNetwork("u**3 - v**3"), fs.Regression([[1.0]], [1.0]), 0.6, alpha=alpha, clock="accelerated"
        )
        tau = np.array([0.0, 0.1, 0.3, 0.33])
        there = traj.at(tau, "accelerated")
        log_alpha = -math.log(10) * int(alpha[3:])
        np.testing.assert_allclose(there.log_abs_weights["u"][:, 0], log_alpha - np.log1p(-3 * tau), atol=1e-6)
        np.testing.assert_allclose(there.log_abs_weights["v"][:, 0], log_alpha - np.log1p(3 * tau), atol=1e-6)
        assert traj.beta[-1, 0] == pytest.approx(1.0, abs=1e-10)
        # v' = -3 v^2 stands still while u jumps.
        assert traj.log_abs_weights["v"][-1, 0] == pytest.approx(log_alpha - math.log(2.0), abs=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("formula", ["tanh(u*v*w)", "u*v*w+u**2*v**2*w**2"])
def test_the_way_to_a_blow_up_is_the_integral_along_the_products_curve(formula):
    w = [mpf(1), mpf("0.7"), mpf("0.4")]
    with mp.workdps(30):
        ways = [
            float(quad(lambda c: 1 / mp.sqrt((c**2 + w[0] ** 2 - w[2] ** 2) * (c**2 + w[1] ** 2 - w[2] ** 2)), ends))
            for ends in ([w[2], 1, mp.inf], [-mp.inf, -1, 0, w[2]])
        ]
    for sign, way in zip((1.0, -1.0), ways, strict=True):
        branch = grow(fs.DiagonalNetwork(formula).formulas[0], np.array([1, 0.7, 0.4]), -500.0, sign, 1e10)
        assert branch.start / branch.slope == pytest.approx(way, rel=1e-13)


@pytest.mark.slow
def test_a_critical_point_holds_a_coordinate_until_its_gradient_turns():
    # tanh < 1: the target of coordinate 0 is out of reach.
    for alpha in ("1e-20", "1e-250"):
        traj = run("tanh(u*v*w)", fs.Regression(np.eye(2), [3.0, 0.5]), 60.0, alpha)
        np.testing.assert_allclose(traj.beta[-1], [1.0, 0.5], atol=1e-9)


def test_equal_weights_never_change_sign():
    traj = run("tanh(u*v*w)", FLIP, 100.0, "1e-200", uneven=False)
    assert (traj.beta >= 0).all()


@pytest.mark.slow
def test_coordinates_of_one_order_flow_together():
    net = fs.DiagonalNetwork(["u*v*w", "tanh(u*v*w)", "u**3-v**3", "u*v*w"])
    start = {name: START[name] for name in net.weights}
    path = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v*w"), FOUR, start=start)
    traj = fs.gradient_flow(net, FOUR, 300.0, alpha="1e-100", start=start, clock="accelerated")
    assert traj.info["coordinates"] == "curve"
    assert traj.loss[-1] == pytest.approx(0.0, abs=1e-18)
    assert np.abs(traj.beta[-1] - path.end).max() < 0.5


def test_orders_that_differ_are_told():
    net = fs.DiagonalNetwork(["u*v", "u*v*w+u**2*v**2*w**2"])
    with pytest.raises(fs.IntegrationError, match=r"orders \[2, 3\] have time scales of their own"):
        fs.gradient_flow(net, fs.Regression(np.eye(2), [1.0, 1.0]), 1e250, alpha="1e-200")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("alpha", ["1e-16", "1e-1000"])
@pytest.mark.slow
def test_a_formula_with_a_line_of_critical_points_out_of_the_origin(alpha):
    """(u + v)^2 w goes to u = -v where it is pulled down from w > 0, and stays positive."""
    problem = fs.Regression(np.eye(3), [-1.0, 1.0, -1.0])
    start = {"u": [1.0, 1.0, 0.8], "v": [-0.9, -0.9, -1.2], "w": [1.1, 1.1, -0.6]}
    net = fs.DiagonalNetwork("(u+v)**2*w")
    # w^2 - (u+v)^2/4 is conserved: d(u+v)/dz = 4 (u+v) w, w' = (u+v)^2.
    run = fs.gradient_flow(net, problem, 200.0, alpha=alpha, start=start, clock="accelerated")
    assert run.info["coordinates"] == "curve"
    np.testing.assert_allclose(run.beta[-1], [0.0, 1.0, -1.0], atol=1e-6)
    log_alpha = -math.log(10) * int(alpha[3:])
    w = run.log_abs_weights["w"][-1, 0] - log_alpha
    assert w == pytest.approx(0.5 * math.log(1.1**2 - 0.1**2 / 4), abs=1e-6)


@pytest.mark.slow
def test_weights_of_sizes_of_their_own_grow_at_rates_of_their_own():
    """u and v start far below w: their growth is exponential, at the rate w, before it blows up."""
    logs = {"u": -12.4, "v": -27.9, "w": 23.2, "z": -21.9}
    start = {name: fs.Logs(1, log) for name, log in logs.items()}
    net = fs.DiagonalNetwork("u*v*(w+z)")
    run = fs.gradient_flow(net, fs.Regression([[1.0]], [1.0]), 1e-8, alpha="1e-100", start=start, clock="accelerated")
    assert run.beta[-1, 0] == pytest.approx(1.0, abs=1e-6)
    w = [mp.exp(logs[name] - logs["w"]) for name in ("u", "v", "w", "z")]
    with mp.workdps(40):
        # With s = (w + z)/sqrt(2), d = (w - z)/sqrt(2) fixed: sqrt(2) u v s, one product of three.
        u, v, s = w[0], w[1], (w[2] + w[3]) / mp.sqrt(2)
        rest = [u**2 - v**2, s**2 - v**2]
        way = quad(lambda c: 1 / mp.sqrt((c**2 + rest[0]) * (c**2 + rest[1])), [v, u, mp.sqrt(u), s, 10, mp.inf])
        expected = float(way / mp.sqrt(2) * mp.exp(-logs["w"]))
    jump = run.accelerated_time[np.argmax(run.beta[:, 0] > 0.5)]
    assert jump == pytest.approx(expected, rel=1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", ["u*v*w+u**2*v**2*w**2", "tanh(u*v*w)", "u**3-v**3"])
def test_the_slope_of_the_map_is_a_difference_of_it(formula):
    net = fs.DiagonalNetwork(formula)
    direction = np.array([[START[name]] for name in net.weights])
    growth = BlowUpMap(net, InitialScale.parse("1e-40"), direction)
    above = np.array([4.0, 1.5, 1.0])
    y = np.stack([above, np.full(3, 1e40)], axis=1)
    h = 1e-4
    move = h * growth._moves[0, 0]
    ahead, back = (np.stack([above - sign * move, y[:, 1]], axis=1) for sign in (1.0, -1.0))
    difference = (growth.value(ahead, 0.0) - growth.value(back, 0.0)) / (2 * h)
    np.testing.assert_allclose(difference, growth.slope(y, 0.0), rtol=2e-6)


def test_at_the_tightest_tolerance_growth_in_the_middle_of_a_jump_is_that_of_many_digits() -> None:
    """alpha^-1 of time is still resolved by z; right value: 40-digit extrapolation in the weights."""
    problem = fs.Regression([[0.5, -0.25, 1.0], [1.0, 0.5, -0.5]], [1.0, 0.75])
    start = {"u": [0.5, -1.0, 1.0], "v": [0.75, 0.5, -0.5], "w": [0.75, 1.0, 0.75]}
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("sin(u)*v*w"), problem, 1195.0, alpha=2e-3, start=start, t_eval=[1195.0], rtol=1e-12,
        estimate_error=True,
    )  # fmt: skip
    error = np.abs(traj.beta[0] - [0.006086498109152778, -2.5358805124621206e-09, -2.6732103167183144e-10]).max()
    assert error < 2e-12 and error <= 2 * traj.error_estimate[0]
