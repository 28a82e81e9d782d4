"""Flows of general formulas along their growth curves."""

import math

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad

import flowsim as fs
from flowsim.growth.curve_map import CurveMap
from flowsim.network import InitialScale
from tests.flows.any_formula import exact_flow
from tests.flows.precise import integrate

#: Coordinate 0 becomes negative first; coordinate 1 changes sign.
FLIP = ([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
GENERIC = {"u": [1.4, 1.4], "v": [0.3, 0.3]}

#: phi and its gradient in the weights.
IN_WEIGHTS = {
    "tanh(u)*v": (lambda u, v: mp.tanh(u) * v, lambda u, v: (v / mp.cosh(u) ** 2, mp.tanh(u))),
    "sin(u*v)": (lambda u, v: mp.sin(u * v), lambda u, v: (v * mp.cos(u * v), u * mp.cos(u * v))),
}


@pytest.mark.parametrize(
    ("formula", "alpha"),
    [
        ("tanh(u)*v", "1e-30"),
        pytest.param("tanh(u)*v", "1e-100", marks=pytest.mark.slow),
        pytest.param("sin(u*v)", "1e-30", marks=pytest.mark.slow),
    ],
)
def test_growth_out_of_a_tiny_start_is_that_of_thirty_digits(formula, alpha):
    """``theta' = grad phi dz`` in the weights, as far as the coordinate is seen."""
    phi, gradient = IN_WEIGHTS[formula]
    gamma = -math.log(10.0) * int(alpha[2:])
    curve = CurveMap(fs.DiagonalNetwork(formula), InitialScale.parse(alpha), np.array([[1.4], [0.3]]))
    with mp.workdps(30):
        for sign in (1.0, -1.0):
            z = [sign * (gamma - 1.0), sign * (gamma + 0.2)]
            state, last = [mp.mpf(alpha) * mp.mpf("1.4"), mp.mpf(alpha) * mp.mpf("0.3")], mp.mpf(0)
            for end in z:
                length = abs(mp.mpf(end)) - last
                state = integrate(lambda w, s=sign: [s * g for g in gradient(*w)], state, length, mp.mpf("1e-15"))
                last += length
                beta = curve(np.array([[end]]))[0][0, 0]
                assert beta == pytest.approx(float(phi(*state)), rel=1e-9)


@pytest.mark.parametrize("formula", ["tanh(u)*v", pytest.param("u*v+u**3*v", marks=pytest.mark.slow)])
def test_a_sign_change_far_below_the_tolerance_is_right(formula):
    # A partner weight of 1e-12 grows again: integrated in the weights the end was off by 1.4, with success.
    alpha, times = "1e-6", -4.2 * math.log(1e-6) * np.array([0.8])
    truth = exact_flow(formula, *map(np.array, FLIP), alpha, np.array([[1.4, 1.4], [0.3, 0.3]]), times)
    for method in ("LSODA", "BDF", "Radau", "DOP853"):
        traj = fs.gradient_flow(
            fs.DiagonalNetwork(formula), fs.Regression(*FLIP), times[-1], alpha=alpha, start=GENERIC, t_eval=times,
            method=method,
        )  # fmt: skip
        assert np.abs(traj.beta - truth).max() < 2e-5


def test_three_weights_without_a_polynomial_invariant_end_where_they_should():
    # Ends from Taylor series of 70 to 280 digits; the model and thresholds of arXiv 2607.12332.
    problem = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1, 0])
    net = fs.DiagonalNetwork("2*a*b + (a**2+b**2+c**2)*c")
    start = {"a": 1.0, "b": 0.5, "c": 0.3}
    ends = {
        "1e-20": (3.466790e-4, 0, 1.428076172, -0.204258506),
        "1e-30": (8.08e-6, 0, 1.428559883, -0.204085756),
        "1e-60": (1.02e-10, 0, 1.428571428, -0.204081633),
    }
    for alpha, end in ends.items():
        traj = fs.gradient_flow(net, problem, 7.322448979591836, alpha=alpha, start=start, clock="accelerated")
        assert_allclose(traj.beta[-1], end, atol=1e-8)


@pytest.mark.parametrize("formula", ["tanh(u)*v", "2*a*b+(a**2+b**2+c**2)*c", "log(1+u)*v", "erf(u)*v", "u*v*exp(u)"])
def test_flows_at_vanishing_scale_end_where_the_limit_process_does(formula):
    net = fs.DiagonalNetwork(formula)
    start = dict(zip(net.weights, (1.0, 0.4, 0.3), strict=False))
    problem = fs.Regression(*FLIP)
    traj = fs.gradient_flow(net, problem, 12.0, alpha="1e-1000", clock="accelerated", start=start)
    assert np.abs(traj.beta[-1] - fs.saddle_to_saddle(net, problem, start=start).end).max() < 1e-6
    assert traj.log_abs_weights[net.weights[0]].min() < -2000


@pytest.mark.parametrize("formula", ["tanh(u*v)", "exp(u*v)-1", "u*v+u**2*v**2"])
def test_a_balanced_start_stays_balanced(formula):
    traj = fs.gradient_flow(
        fs.DiagonalNetwork(formula), fs.Regression([[1.0]], [-1.0]), 200.0, alpha=1e-3, start={"u": 1.0, "v": 1.0}
    )
    assert (traj.beta >= 0).all()
    assert (traj.weights["u"] == traj.weights["v"]).all()


def test_a_side_that_only_higher_orders_open_is_reached_late():
    # tanh(u) v from u = v: u - v starts at order alpha^3, so that beta < 0 takes three times the wait.
    net, alpha = fs.DiagonalNetwork("tanh(u)*v"), "1e-300"
    traj = fs.gradient_flow(net, fs.Regression([[1.0]], [-1.0]), 4.0, alpha=alpha, clock="accelerated")
    half = np.interp(0.5, -traj.beta[:, 0], traj.accelerated_time)
    assert half == pytest.approx(3.0, abs=0.01)
    assert traj.beta[-1, 0] == pytest.approx(-1.0, abs=1e-6)


def test_coordinates_of_different_kinds_flow_together():
    net = fs.DiagonalNetwork(["u*v", "u**2-v**2", "tanh(u)*v", "u*v*w"])
    problem = fs.Regression([[1, 0.5, 0.7, 0.3], [0.5, 1, 0.1, 0.7]], [1, 0])
    start = {"u": 1.0, "v": 0.4, "w": 0.7}
    runs = [
        fs.gradient_flow(net, problem, 60.0, alpha=0.1, start=start, coordinates=which, rtol=1e-9, atol=1e-13)
        for which in ("auto", "weights")
    ]
    assert [run.info["coordinates"] for run in runs] == ["curve", "weights"]
    times = np.linspace(0.0, 60.0, 50)
    assert_allclose(runs[0].at(times).beta, runs[1].at(times).beta, atol=1e-7)
    assert_allclose(runs[0].at(times).weights["w"], runs[1].at(times).weights["w"], atol=1e-7)


@pytest.mark.parametrize(
    ("formula", "start"), [("log(1+u*v)", {"u": 2.0, "v": -1.0}), ("sqrt(u)*v", {"u": -1.0, "v": 1.0})]
)
def test_a_formula_undefined_at_the_start_is_refused(formula, start):
    with pytest.raises(ValueError, match="`start` puts the formula .* where it is undefined"):
        fs.gradient_flow(fs.DiagonalNetwork(formula), fs.Regression([[1.0]], [1.0]), 1.0, alpha=1.0, start=start)


def test_a_power_that_is_no_integer_flows_where_it_is_defined():
    # u' = -(u^2.5 - 2) 2.5 u^1.5, alone.
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u**2.5"), fs.Regression([[1.0]], [2.0]), 0.3, alpha=1.0, rtol=1e-9
    )  # fmt: skip
    from scipy.integrate import solve_ivp

    truth = solve_ivp(lambda t, u: -(u**2.5 - 2) * 2.5 * u**1.5, (0, 0.3), [1.0], rtol=1e-12, atol=1e-14).y[0, -1]
    assert traj.weights["u"][-1, 0] == pytest.approx(truth, abs=1e-8)


def test_a_critical_point_of_the_formula_holds_a_coordinate():
    # sin(u v) <= 1: a target of 2 is out of reach, and the coordinate stays at 1.
    traj = fs.gradient_flow(fs.DiagonalNetwork("sin(u*v)"), fs.Regression([[1.0]], [2.0]), 200.0, alpha="1e-30")
    assert traj.beta[-1, 0] == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(traj.beta[:, 0]) >= -1e-14).all()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "start"),
    [
        ("log(1+u)*v", {"u": [1.2, -0.85], "v": [-1.05, -0.59]}),  # u = -1 is at finite z on both sides
        ("(u+v)**2*w", {"u": [1.34, 1.28], "v": [-0.6, -0.74], "w": [-1.28, 1.12]}),  # u = -v is a line at rest
    ],
)
def test_curves_that_end_at_finite_z_or_sink_to_rest_hold_a_flow_away_from_there(formula, start) -> None:
    net, problem = fs.DiagonalNetwork(formula), fs.Regression([[1.0, 0.6], [0.3, -0.9]], [1.0, 0.7])
    times = np.linspace(0.0, 30.0, 40)
    run = fs.gradient_flow(net, problem, 30.0, start=start, t_eval=times)
    exact = fs.gradient_flow(net, problem, 30.0, start=start, t_eval=times, coordinates="weights", rtol=1e-10)
    assert run.info["coordinates"] == "curve"
    np.testing.assert_allclose(run.beta, exact.beta, atol=2e-5)


@pytest.mark.parametrize("alpha", ["1e-10", "1e-14", "1e-30"])
def test_a_step_that_is_shortened_often_is_predicted_anew(alpha: str) -> None:
    """u' = 1.7 u^0.7 (1 - u^1.7): with s = u^0.3 the time is the integral of 1 / (0.51 (1 - s^(17/3)))."""
    traj = fs.gradient_flow(fs.DiagonalNetwork("u**1.7"), fs.Regression([[1.0]], [1.0]), 0.5, alpha=alpha)
    end = float(traj.weights["u"][-1, 0]) ** 0.3
    time, _ = quad(lambda s: 1 / (0.51 * (1 - s ** (17 / 3))), float(alpha) ** 0.3, end, epsabs=0, epsrel=1e-12)
    assert time == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("alpha", ["1e-12", "1e-16", "1e-40"])
def test_powers_that_are_no_integers_grow_at_any_scale_of_the_start(alpha: str) -> None:
    """u' = 2.5 u^1.5 while alone: u = (alpha^-0.5 - 1.25 t)^-2; half of its time to infinity doubles u^0.5."""
    half = 0.4 * float(alpha) ** -0.5
    run = fs.gradient_flow(fs.DiagonalNetwork("u**2.5"), fs.Regression([[1.0]], [1.0]), half, alpha=alpha)
    assert run.beta[-1, 0] == pytest.approx((0.5 * float(alpha) ** -0.5) ** -5, rel=1e-5)


@pytest.mark.parametrize("alpha", ["1e-17", "1e-19", "1e-22"])
def test_real_powers_jump_to_the_fit_at_any_scale_that_floats_of_time_resolve(alpha: str) -> None:
    """Curves end where the spacing of z is felt; weights, relative to their own size, go on."""
    problem = fs.Regression([[1.0, 0.3], [0.2, 1.0], [0.5, 0.5]], [1.0, 0.5, 0.8])
    run = fs.gradient_flow(fs.DiagonalNetwork("u**2.5"), problem, 20 * float(alpha) ** -0.5, alpha=alpha)
    np.testing.assert_allclose(run.beta[-1], np.linalg.lstsq(problem.X, problem.y)[0], rtol=1e-6)


def test_a_jump_of_a_real_power_that_no_float_resolves_says_so() -> None:
    problem = fs.Regression([[1.0]], [1.0])
    net, why = fs.DiagonalNetwork("u**2.5"), r"'u\*\*2.5' grow 1e\+15 times as slowly at the start as near 1"
    assert fs.gradient_flow(net, problem, 1e14, alpha="1e-30").beta[-1] < 1e-70
    with pytest.raises(fs.IntegrationError, match=why):
        fs.gradient_flow(net, problem, 1e17, alpha="1e-30")
    with pytest.raises(ValueError, match=why):
        fs.gradient_flow(net, problem, 1e17, alpha="1e-30", coordinates="curve")


@pytest.mark.parametrize("method", ["auto", "Radau", "DOP853"])
def test_a_coefficient_whose_terms_cancel_has_a_curve_where_the_targets_are_zero(method: str) -> None:
    """``u*v`` from (u, 0) is ``sinh(2 z) u^2 / 2``; for y = 0 nothing but the other coordinate moves it."""
    alpha, net = 1e-5, fs.DiagonalNetwork(["u*v + u**3*v", "u*v"])
    problem = fs.Regression([[1.0, 0.5], [0.5, 1.0]], [0.0, 0.0])
    t, start = np.array([0.0, 1.5, 3.0]), {"u": [1.0, 0.7], "v": [1.0, 0.0]}
    run = fs.gradient_flow(net, problem, t[-1], alpha=alpha, start=start, t_eval=t, method=method, atol=1e-20)
    # beta = (alpha^2, 0) to first order: z_1 = - t x_1^T x_0 alpha^2 / n, d beta_1 / dz_1 = (0.7 alpha)^2
    assert_allclose(run.beta[:, 0], alpha**2, rtol=1e-8)
    assert_allclose(
        run.beta[:, 1], -0.49 * alpha**4 * t / 2, rtol=1e-4, atol=1e-6 * alpha**2 if method == "auto" else 0
    )


@pytest.mark.parametrize(("alpha", "most"), [(1e-4, 200), (1e-6, 1000)])
def test_steps_of_formulas_of_order_three_are_nearly_as_long_as_without_tables(alpha: float, most: int) -> None:
    rng = np.random.default_rng(3)
    X, b = rng.standard_normal((6, 4)), np.array([1.0, 0.0, 0.0, 2.0])
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u**2*v"), fs.Regression(X, X @ b), 30 / alpha, alpha=alpha, start={"u": 1.0, "v": 0.7}
    )
    np.testing.assert_allclose(traj.beta[-1], b, atol=1e-4)
    assert traj.stats["steps"] < most
