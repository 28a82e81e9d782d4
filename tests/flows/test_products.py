"""Log coordinates of products of three weights and more: closed forms, weight coordinates, limit, invariants."""

import math

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

import flowsim as fs
from flowsim.flows.dual import DualCoordinates
from flowsim.growth import distance_unit
from flowsim.growth.product import ProductShape
from flowsim.growth.product_map import ProductMap, admits_products
from flowsim.network import InitialScale

# Thresholds 1 and L = 3: the same saddles as for two layers, at other times.
X = np.array([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]])
Y = np.array([1.0, 0.0])
PROBLEM = fs.Regression(X, Y)


def random_case(seed):
    rng = np.random.default_rng(seed)
    n, d, depth = int(rng.integers(1, 16)), int(rng.integers(1, 16)), int(rng.integers(3, 6))
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    start = None
    if seed % 3 == 1:
        start = {f"w{k + 1}": rng.standard_normal(d) for k in range(depth)}
    elif seed % 3 == 2:
        start = {f"w{k + 1}": rng.choice([-1.0, 0.0, 1.0, 0.5], d, p=[0.3, 0.1, 0.3, 0.3]) for k in range(depth)}
    return fs.Regression(X, y), depth, start, 15 / np.abs(X.T @ y / n).max()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("squares", [(0.5, 0.5), (0.5, 0.7, 3.0), (0.01, 9.0), (0.0, 2.0), (0.0, 0.0)])
def test_the_integral_to_infinity_is_inverted(squares):
    shape = ProductShape(np.array(squares))
    x = np.array([1e-4, 0.03, 0.9, 4.0, 300.0])

    def integrand(t):
        return 1 / mpmath.fprod(mpmath.sqrt(t**2 + m) for m in squares)

    exact = [float(mpmath.quad(integrand, [value, 2 * value, 1e2 + value, 1e4 + value, mpmath.inf])) for value in x]
    assert_allclose(shape.inverse(np.log(exact)), np.log(x), atol=1e-9)


@pytest.mark.parametrize("alpha", ["1e-4", "1e-8", "1e-100"])
def test_one_balanced_coordinate_blows_up_like_its_closed_form(alpha):
    # w' = g w^2 with g = 1 as long as w is small: 1/w = 1/alpha - t.
    traj = fs.gradient_flow(
        fs.DiagonalNetwork(depth=3), fs.Regression([[1.0]], [1.0]), 0.9, alpha=alpha, clock="accelerated"
    )
    assert traj.info["coordinates"] == "log"
    time = np.linspace(0, 0.9, 10)
    log_w = traj.at(time, "accelerated").log_abs_weights["w2"][:, 0]
    exact = InitialScale.parse(alpha).log - np.log1p(-time)
    assert_allclose(log_w, exact, atol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("alpha", [0.1, 0.01])
def test_log_and_weight_coordinates_agree_where_both_work(depth, alpha):
    net = fs.DiagonalNetwork(depth=depth)
    native = fs.gradient_flow(net, PROBLEM, 12.0, alpha=alpha, clock="accelerated")
    stepped = fs.gradient_flow(
        net, PROBLEM, 12.0, alpha=alpha, clock="accelerated", method="Radau", rtol=1e-7, atol=1e-11,
        coordinates="weights",
    )  # fmt: skip
    assert (native.info["coordinates"], stepped.info["coordinates"]) == ("log", "weights")
    times = np.linspace(0, 12, 200)
    one, other = native.at(times, "accelerated"), stepped.at(times, "accelerated")
    assert np.abs(one.beta - other.beta).max() < 2e-5
    assert np.abs(one.arclength - other.arclength).max() < 2e-5
    for name in net.weights:
        assert np.abs(one.log_abs_weights[name] - other.log_abs_weights[name]).max() < 1e-5


def test_products_beside_their_conserved_quantities_are_integrated_along_curves():
    """Log coordinates expand in the ratio of conserved differences to active weights: here it is not small."""
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": [-2.0, 0.7, 1.5, 0.0]}
    runs = [
        fs.gradient_flow(fs.DiagonalNetwork(depth=3), PROBLEM, 8.0, alpha=0.3, start=start, **asked)
        for asked in ({}, {"method": "BDF"}, {"coordinates": "weights", "rtol": 1e-9, "atol": 1e-12})
    ]
    assert [run.info["coordinates"] for run in runs] == ["curve", "curve", "weights"]
    times = np.linspace(0, 8, 100)
    right = runs[2].at(times)
    for run in runs[:2]:
        assert np.abs(run.at(times).beta - right.beta).max() < 1e-5
    for name, values in right.weights.items():
        assert_allclose(runs[0].at(times).weights[name], values, atol=1e-5)


@pytest.mark.slow
def test_an_unbalanced_start_with_signs_follows_weight_coordinates():
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": [-2.0, 0.7, 1.5, 0.0]}
    net = fs.DiagonalNetwork(depth=3)
    arguments = {"alpha": 1e-5, "start": start, "clock": "accelerated"}
    native = fs.gradient_flow(net, PROBLEM, 8.0, **arguments)
    stepped = fs.gradient_flow(
        net, PROBLEM, 8.0, method="Radau", rtol=1e-8, atol=1e-12, coordinates="weights", **arguments
    )
    assert (native.info["coordinates"], stepped.info["coordinates"]) == ("log", "weights")
    times = np.linspace(0, 8, 100)
    one, other = native.at(times, "accelerated"), stepped.at(times, "accelerated")
    assert np.abs(one.beta - other.beta).max() < 1e-5
    for name in net.weights:
        assert_allclose(one.weights[name], other.weights[name], rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize(
    ("depth", "alpha"), [(3, "1e-310"), (3, "1e-590"), (4, "1e-300"), (5, "1e-200"), (7, "1e-120")]
)
def test_a_blow_up_whose_time_is_no_float_is_exact_in_accelerated_time(depth, alpha):
    # c' = g c^(L-1) with g = 1 as long as c is small: c^(2-L) = alpha^(2-L) - (L - 2) t, t up to 1e600.
    net, end = fs.DiagonalNetwork(depth=depth), 0.99 / (depth - 2)
    traj = fs.gradient_flow(net, fs.Regression([[1.0]], [1.0]), 2.0, alpha=alpha, clock="accelerated")
    assert traj.success and traj.info["coordinates"] == "log"
    tau = np.linspace(0, end, 12)
    there = traj.at(tau, "accelerated")
    exact = InitialScale.parse(alpha).log - np.log1p(-(depth - 2) * tau) / (depth - 2)
    assert_allclose(there.log_abs_weights["w2"][:, 0], exact, atol=1e-6)
    assert_allclose(there.accelerated_time, tau, rtol=1e-15)
    assert there.t[0] == 0 and np.isinf(there.t[1:]).all()
    assert traj.beta[-1, 0] == pytest.approx(1.0, abs=1e-9)


def test_the_unit_of_time_makes_no_difference(monkeypatch):
    """Distances from 1e200 down to 1, or from 1e20 down to 1e-180: the same flow, with every field of it."""
    net = fs.DiagonalNetwork(depth=4)
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": np.ones(4), "w4": [1.0, 1.0, -2.0, 0.7]}
    asked = {"alpha": "1e-100", "start": start, "clock": "accelerated", "t_eval": np.linspace(0, 12, 60)}
    asked["events"] = [fs.events.crosses("beta", 0, 0.3), fs.events.loss_reaches(0.1)]
    one = fs.gradient_flow(net, PROBLEM, 12.0, **asked)
    monkeypatch.setattr(distance_unit, "_FARTHEST", 20 * np.log(10))
    other = fs.gradient_flow(net, PROBLEM, 12.0, **asked)
    assert one.events.name == other.events.name and len(one.events) > 0
    assert_allclose(other.events.states.t, one.events.states.t, rtol=1e-6)
    assert other.stats["steps"] == pytest.approx(one.stats["steps"], rel=0.1)
    for name in ("t", "accelerated_time", "arclength", "speed"):
        assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-6, atol=1e-9)
    assert_allclose(other.beta, one.beta, atol=1e-6)
    for name in net.weights:
        assert_allclose(other.log_abs_weights[name], one.log_abs_weights[name], atol=1e-6)


@pytest.mark.parametrize(("depth", "alpha"), [(3, "1e-300"), (4, "1e-150"), (4, "1e-300"), (6, "1e-70")])
def test_the_path_in_arc_length_no_longer_depends_on_a_tiny_alpha(depth, alpha):
    net = fs.DiagonalNetwork(depth=depth)
    tiny = fs.gradient_flow(net, PROBLEM, 12.0, alpha=alpha, clock="accelerated")
    small = fs.gradient_flow(net, PROBLEM, 12.0, alpha="1e-40", clock="accelerated")
    assert tiny.arclength[-1] == pytest.approx(small.arclength[-1], abs=1e-5)
    lengths = np.linspace(0, 12.5, 300)
    assert np.abs(tiny.at(lengths, "arclength").beta - small.at(lengths, "arclength").beta).max() < 1e-5
    assert (np.diff(tiny.arclength) >= 0).all()


def test_the_flow_of_depth_three_at_1e_minus_300_runs_along_the_limit_process():
    net = fs.DiagonalNetwork(depth=3)
    path = fs.saddle_to_saddle(net, PROBLEM)
    end = 3 * float(path.jump_times[-1])
    traj = fs.gradient_flow(net, PROBLEM, end, alpha="1e-300", clock="accelerated")
    jumps = np.asarray(path.jump_times, dtype=float)
    plateaus = (np.append(0.0, jumps) + np.append(jumps, end)) / 2
    assert_allclose(traj.at(plateaus, "accelerated").beta, path.saddles, atol=1e-9)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seed", range(9))
def test_random_products_stay_within_twenty_tolerances_at_every_scale(seed):
    problem, depth, start, end = random_case(seed)
    net = fs.DiagonalNetwork(depth=depth)
    for alpha in ("1e-8", f"1e-{290 // (depth - 2)}"):
        run = fs.gradient_flow(net, problem, end, alpha=alpha, start=start, clock="accelerated")
        tight = fs.gradient_flow(net, problem, end, alpha=alpha, start=start, clock="accelerated", rtol=1e-9)
        assert run.info["coordinates"] == tight.info["coordinates"] == "log"
        lengths = np.linspace(0, min(run.arclength[-1], tight.arclength[-1]), 300)
        difference = np.abs(run.at(lengths, "arclength").beta - tight.at(lengths, "arclength").beta).max()
        assert difference <= 20e-6 * max(1.0, np.abs(tight.beta).max())


def test_what_a_product_conserves_is_kept_in_logs_and_weights_multiply_to_beta():
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": [-2.0, 0.7, 1.5, 1.0]}
    traj = fs.gradient_flow(fs.DiagonalNetwork(depth=3), PROBLEM, 8.0, alpha="1e-200", start=start, clock="accelerated")
    first = np.array(start["w1"])
    with np.errstate(divide="ignore"):
        expected = [np.log(np.abs(first**2 - np.square(start[name]))) - 400 * np.log(10) for name in ("w2", "w3")]
    assert_allclose(traj.log_imbalance[0], expected, rtol=1e-13)
    assert_allclose(traj.log_imbalance[-1], expected, rtol=1e-13)
    assert traj.imbalance_drift == 0.0
    assert traj.invariants == ("w1**2 - w2**2", "w1**2 - w3**2")
    product = np.prod([traj.weights[name][-1] for name in traj.weights], axis=0)
    assert_allclose(product, traj.beta[-1], rtol=1e-12, atol=1e-290)


def test_two_zero_weights_hold_a_coordinate_for_ever():
    start = {"w1": [1.0, 1.0, 0.0, 1.0], "w2": [1.0, 1.0, 0.0, 1.0], "w3": [1.0, 1.0, 1.0, 1.0]}
    traj = fs.gradient_flow(fs.DiagonalNetwork(depth=3), PROBLEM, 12.0, alpha="1e-20", start=start, clock="accelerated")
    assert not traj.beta[:, 2].any()
    assert_allclose(traj.beta[-1, 2], 0.0)
    assert traj.loss[-1] < traj.loss[0]


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("alpha", ["1e-1000", "1e-100000"])
def test_no_scale_is_too_small_for_log_coordinates(depth, alpha):
    """One feature from equal weights: ``c~^(2-L) = 1 - (L-2) g t~`` while it waits; then the limit process."""
    net, problem = fs.DiagonalNetwork(depth=depth), fs.Regression([[1.0]], [0.5])
    jump, log_alpha = 2.0 / (depth - 2), -math.log(10) * int(alpha[3:])
    traj = fs.gradient_flow(net, problem, 3 * jump, alpha=alpha, clock="accelerated")
    waiting = traj.at(np.array([0.0, 0.3, 0.9, 0.999]) * jump, "accelerated")
    expected = log_alpha - np.log1p(-np.array([0.0, 0.3, 0.9, 0.999])) / (depth - 2)
    assert_allclose(waiting.log_abs_weights["w1"][:, 0], expected, rtol=1e-14, atol=1e-6)
    assert not waiting.beta.any()
    assert_allclose(traj.at(np.array([1.001 * jump]), "accelerated").beta[0], 0.5, atol=1e-6)
    assert traj.t[-1] == np.inf and traj.t[0] == 0.0
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": [-2.0, 0.7, 1.5, 1.0]}
    start |= {"w4": [1.0, 1.5, 0.9, -1.1]} if depth == 4 else {}
    path = fs.saddle_to_saddle(net, PROBLEM, start=start)
    run = fs.gradient_flow(net, PROBLEM, 1.3 * path.jump_times[-1], alpha=alpha, start=start, clock="accelerated")
    before = run.at(0.999 * path.jump_times, "accelerated")
    assert_allclose(before.beta, path.saddles[:-1], atol=1e-6)
    assert_allclose(run.beta[-1], path.end, atol=1e-6)


def test_in_no_time_that_is_a_float_does_a_start_of_1e_1000_move():
    traj = fs.gradient_flow(fs.DiagonalNetwork(depth=3), PROBLEM, 1e300, alpha="1e-1000")
    assert traj.t.tolist() == [0.0, 1e300] and not traj.beta.any()
    assert_allclose(traj.log_abs_weights["w1"], -1000 * math.log(10), rtol=1e-15)


def test_nor_do_two_units_of_distance(monkeypatch):
    """alpha^2 = 1e-400 in floats of one unit, and as if it were below them."""
    net = fs.DiagonalNetwork(depth=4)
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": np.ones(4), "w4": [1.0, 1.0, -2.0, 0.7]}
    asked = {"alpha": "1e-200", "start": start, "clock": "accelerated", "t_eval": np.linspace(0, 12, 60)}
    one = fs.gradient_flow(net, PROBLEM, 12.0, **asked)
    monkeypatch.setattr(distance_unit, "_LARGEST", 0.0)
    two = fs.gradient_flow(net, PROBLEM, 12.0, **asked)
    assert_allclose(two.beta, one.beta, atol=1e-6)
    for name, logs in one.log_abs_weights.items():
        assert_allclose(two.log_abs_weights[name], logs, atol=1e-6)


THREE = np.array([[1.0, 0.6, 0.2], [0.3, -0.9, 0.5], [-0.4, 0.7, 1.0]])
LOSSES = [("log-cosh", [1.0, 0.7, -0.5]), ("pseudo-huber", [3.0, 0.7, -0.5]), ("poisson", [2.0, 1.0, 4.0])]
UNEVEN = {"u": [1.0, -0.6, 0.9], "v": [0.7, 1.0, 1.2], "w": [1.3, 0.8, -0.7]}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "loss", "y"),
    [
        ("u*v*w", *LOSSES[0]),
        ("u*v*w", *LOSSES[1]),
        ("u*v*w", *LOSSES[2]),
        pytest.param("u**2*v", *LOSSES[0], marks=pytest.mark.slow),
        pytest.param("u**3 - v**3", *LOSSES[2], marks=pytest.mark.slow),
    ],
)
def test_any_loss_follows_the_weights_where_they_are_floats_and_the_limit_beyond(formula, loss, y):
    net, problem = fs.DiagonalNetwork(formula), fs.Problem(THREE, y, loss=loss)
    even = {name: np.ones(3) for name in net.weights}
    path = fs.saddle_to_saddle(net, problem, start=even)
    until = 1.2 * path.jump_times[-1]
    asked = {"start": even, "clock": "accelerated", "t_eval": np.linspace(0, until, 40)}
    run = fs.gradient_flow(net, problem, until, alpha=1e-3, **asked)
    exact = fs.gradient_flow(net, problem, until, alpha=1e-3, coordinates="weights", rtol=1e-10, **asked)
    assert run.info["coordinates"] in ("log", "curve")
    assert_allclose(run.beta, exact.beta, atol=20e-6 * max(1.0, np.abs(exact.beta).max()))
    uneven = {name: UNEVEN[name] for name in net.weights}
    path = fs.saddle_to_saddle(net, problem, start=uneven)
    for alpha in ("1e-100", "1e-1000"):
        run = fs.gradient_flow(net, problem, 1.2 * path.jump_times[-1], alpha=alpha, start=uneven, clock="accelerated")
        assert_allclose(run.at(0.999 * path.jump_times, "accelerated").beta, path.saddles[:-1], atol=1e-6)
        assert_allclose(run.beta[-1], path.end, atol=1e-6)


def test_each_weight_may_have_a_scale_of_its_own():
    """u and v of coordinate 0 wait below w = 1e-1000 e^20: ``ln(4 v / w) / w`` is the way to the pole."""
    net, problem = fs.DiagonalNetwork("u*v*w"), fs.Regression(np.eye(2), [1.0, 1.0])
    start = {"u": fs.Logs(1, [-30.0, 0.0]), "v": fs.Logs(1, [-10.0, 0.0]), "w": fs.Logs(1, [20.0, 0.0])}
    run = fs.gradient_flow(net, problem, 4.0, alpha="1e-1000", start=start, clock="accelerated")
    # d z / dt = 1/2 while the coordinate waits, n = 2; u is nothing beside v.
    jump = 2 * (math.log(4) + 30.0) * math.exp(-20.0)
    assert_allclose(run.at(np.array([0.999, 1.001]) * jump, "accelerated").beta[:, 0], [0.0, 1.0], atol=1e-6)
    assert_allclose(run.at(np.array([1.999, 2.001]), "accelerated").beta[:, 1], [0.0, 1.0], atol=1e-6)
    for name in ("v", "w"):
        assert_allclose(run.log_abs_weights[name][0], np.array(start[name].log_abs) - 1000 * math.log(10), atol=1e-6)
    apart = {"u": fs.Logs(1, -600.0), "v": fs.Logs(1, -400.0), "w": fs.Logs(1, 0.0)}
    with pytest.raises(fs.IntegrationError, match="weights are more than 1e150 apart"):
        fs.gradient_flow(net, problem, 4.0, alpha="1e-1000", start=apart, clock="accelerated")


def test_what_log_coordinates_cannot_do_is_said():
    net = fs.DiagonalNetwork(depth=3)
    ones = np.ones((3, 4))
    scale = InitialScale.parse("1e-3")
    assert admits_products(net, PROBLEM, scale, ones, 1e-6) is None
    assert "not small" in admits_products(net, PROBLEM, InitialScale.parse(0.5), ones * [[1], [2], [3]], 1e-6)
    assert "noise" in admits_products(
        fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.1)), PROBLEM, scale, ones, 1e-6
    )
    assert "not a product" in admits_products(fs.DiagonalNetwork("u**3"), PROBLEM, scale, ones[:1], 1e-6)
    with pytest.raises(ValueError, match="`coordinates` cannot be 'log'"):
        fs.gradient_flow(fs.DiagonalNetwork("u**3"), PROBLEM, 1.0, coordinates="log")
    with pytest.raises(ValueError, match="`method` cannot be 'native'"):
        fs.gradient_flow(net, PROBLEM, 1.0, alpha=0.1, coordinates="weights", method="native")


def test_the_velocity_is_the_derivative_of_beta():
    start = {"w1": [1.0, -0.5, 2.0, 1.0], "w2": [0.3, 1.0, -1.0, 0.5], "w3": [-2.0, 0.7, 1.5, 1.0]}
    net = fs.DiagonalNetwork(depth=3)
    coordinates = DualCoordinates(net, PROBLEM, ProductMap(net, InitialScale.parse(1e-4), net.direction(start, 4)))
    end = 3e4
    solution = coordinates.integrate(end, rtol=1e-9, max_steps=10_000)
    t = np.linspace(0.1 * end, 0.9 * end, 7)
    step = 1e-2
    before, after = (coordinates.predictor(when, solution(when)) for when in (t - step, t + step))
    assert_allclose(coordinates.velocity(t, solution(t)), (after - before) / (2 * step), atol=1e-7)


@pytest.mark.parametrize(("depth", "digits"), [(3, 318), (3, 321), (4, 160), (6, 80), (3, 330), (4, 200), (5, 150)])
def test_an_unbalanced_start_below_the_range_of_floats_ends_where_it_must(depth, digits):
    """``alpha^(L-2)`` subnormal and far below: the flow of one feature ends at its target."""
    start = {f"w{i + 1}": 1.0 + 0.3 * i for i in range(depth)}
    net = fs.DiagonalNetwork(depth=depth)
    run = fs.gradient_flow(
        net, fs.Regression([[1.0]], [1.0]), 20.0, alpha=f"1e-{digits}", start=start, clock="accelerated"
    )
    assert run.success
    assert run.beta[-1, 0] == pytest.approx(1.0, abs=1e-9)


def test_a_target_of_zero_takes_an_unbalanced_start_back_in_few_steps():
    rng = np.random.default_rng(3)
    X, net = rng.standard_normal((3, 3)), fs.DiagonalNetwork(depth=3)
    start = dict(zip(net.weights, rng.standard_normal((3, 3)), strict=True))
    run = fs.gradient_flow(net, fs.Regression(X, np.zeros(3)), 3.0, alpha=1.0, start=start)
    tight = fs.gradient_flow(
        net, fs.Regression(X, np.zeros(3)), 3.0, alpha=1.0, start=start, coordinates="weights", rtol=1e-11
    )
    assert run.stats["steps"] < 500
    assert_allclose(run.beta[-1], tight.beta[-1], atol=1e-5)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("alpha", ["0.0154", "5", "1e-100"])
def test_a_start_of_no_coefficients_that_fits_its_data_stays(depth, alpha):
    rng = np.random.default_rng(7)
    start = {f"w{k + 1}": rng.uniform(0.3, 1.4, 3) for k in range(depth)} | {f"w{depth}": np.zeros(3)}
    problem = fs.Regression(rng.standard_normal((3, 3)), np.zeros(3))
    run = fs.gradient_flow(fs.DiagonalNetwork(depth=depth), problem, 74.0, alpha=alpha, start=start)
    assert_allclose(run.beta[-1], 0.0, atol=1e-300)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("alpha", ["1e-10", "1e-30", "1e-1000"])
@pytest.mark.parametrize(("seed", "columns"), [(0, [0, 0, 1, 2]), (4, [0, 0, 1, 2]), (5, [0, 1, 2, 0, 1, 2])])
def test_columns_that_occur_twice_share_their_coefficient(depth, alpha, seed, columns):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((6, 3))
    y = X @ [1.0, -0.7, 0.3] + 0.2 * rng.standard_normal(6)
    net, problem = fs.DiagonalNetwork(depth=depth), fs.Regression(X[:, columns], y)
    path = fs.saddle_to_saddle(net, problem)
    run = fs.gradient_flow(net, problem, 3 * path.jump_times[-1], alpha=alpha, clock="accelerated", max_steps=2000)
    assert_allclose(run.beta[-1], path.end, rtol=0, atol=1e-6)
    assert_allclose(run.beta[-1][0], run.beta[-1][columns.index(0, 1)], rtol=1e-6)
