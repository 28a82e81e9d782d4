"""Weight coordinates: right where floats carry them, an error where they do not."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import sympy
from scipy.integrate import solve_ivp

import flowsim as fs


def naive(problem: fs.Regression, field, start: np.ndarray, t_end: float, times: np.ndarray) -> np.ndarray:
    """An independent integration of a hand-written field, by an explicit method of high order."""
    shape = start.shape

    def rhs(_: float, y: np.ndarray) -> np.ndarray:
        w = y.reshape(shape)
        return field(w, problem).ravel()

    return solve_ivp(rhs, (0, t_end), start.ravel(), "DOP853", t_eval=times, rtol=1e-11, atol=1e-13).y.T.reshape(
        len(times), *shape
    )


def depth_three(w: np.ndarray, problem: fs.Regression) -> np.ndarray:
    g = problem.gradient(w.prod(0))
    return -g * np.array([w[1] * w[2], w[0] * w[2], w[0] * w[1]])


def analytic(w: np.ndarray, problem: fs.Regression) -> np.ndarray:
    a, b = w
    g = problem.gradient(a * np.tanh(a) - (np.exp(b) - 1) ** 2)
    return -g * np.array([np.tanh(a) + a / np.cosh(a) ** 2, -2 * (np.exp(b) - 1) * np.exp(b)])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["auto", "LSODA", "BDF", "Radau", "DOP853"])
@pytest.mark.parametrize(
    ("formula", "field", "k"), [("x*y*z", depth_three, 3), ("a*tanh(a) - (exp(b) - 1)**2", analytic, 2)]
)
def test_any_formula_follows_its_hand_written_field(formula: str, field, k: int, method: str) -> None:
    problem = fs.datasets.sparse_regression(5, 4, 2, seed=1)
    net = fs.DiagonalNetwork(formula)
    start = 0.3 * np.random.default_rng(0).uniform(0.5, 1.5, (k, 4))
    times = np.linspace(0, 8, 30)
    expected = naive(problem, field, start, 8, times)
    traj = fs.gradient_flow(
        net, problem, 8, alpha=0.3, start=dict(zip(net.weights, start / 0.3, strict=True)), t_eval=times,
        method=method, coordinates="weights", rtol=1e-7,
    )  # fmt: skip
    for a, name in enumerate(net.weights):
        np.testing.assert_allclose(traj.weights[name], expected[:, a], atol=2e-6)
    np.testing.assert_allclose(traj.loss, problem.loss(traj.beta), rtol=1e-12)


def test_without_growth_coordinates_small_weights_are_still_in_sight_of_the_step_control() -> None:
    """One feature of a*tanh(a) - (exp(b)-1)^2 from 1e-20: the jump comes at ln(1/alpha) / (2 |g|)."""
    problem = fs.Regression([[1.0]], [2.0])
    net = fs.DiagonalNetwork("a*tanh(a) - (exp(b) - 1)**2")
    traj = fs.gradient_flow(net, problem, 1.5, alpha=1e-20, clock="accelerated")
    crossing = traj.accelerated_time[np.argmax(traj.beta[:, 0] > 1.0)]
    # |g| = 2 and Hess phi(0) = diag(2, -2): predicted 1/(2*2), off by O(1/gamma)
    assert crossing == pytest.approx(0.25, abs=0.5 / (20 * np.log(10)))
    assert traj.beta[-1, 0] == pytest.approx(2.0, abs=1e-5)


def test_depth_three_noise_obeys_the_balancing_law() -> None:
    problem = fs.datasets.sparse_regression(6, 3, 2, seed=0)
    eta = 0.2
    net = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(eta))
    start = {"w1": 1.0, "w2": 2.0, "w3": -1.5}
    traj = fs.gradient_flow(net, problem, 5, alpha=0.3, start=start, rtol=1e-8)
    assert traj.invariants == ("w1**2 - w2**2", "w1**2 - w3**2")
    assert traj.imbalance_drift <= 1e-5
    # The law, integrated here from the reported weights: d/dt ln(w1^2 - w2^2) = -2 sigma^2 eta^2 (w3^2 + eta^2).
    fine = traj.at(np.linspace(0, 5, 4001))
    rate = -2 * problem.feature_variances * eta**2 * (fine.weights["w3"] ** 2 + eta**2)
    law = np.concatenate([np.zeros((1, 3)), np.cumsum((rate[1:] + rate[:-1]) / 2 * (5 / 4000), axis=0)])
    np.testing.assert_allclose(fine.log_imbalance[:, 0] - fine.log_imbalance[0, 0], law, atol=1e-5)


@pytest.mark.parametrize("alpha", [1e-8, 1e-12, 1e-16, 1e-20, 1e-60])
def test_an_imbalance_lost_to_cancellation_is_an_error_that_names_growth_coordinates(
    sign_switching: fs.Regression, alpha: float
) -> None:
    with pytest.raises(fs.IntegrationError, match="lost to cancellation.*growth coordinates") as caught:
        fs.gradient_flow(
            fs.DiagonalNetwork("u*v"), sign_switching, 6, alpha=alpha, clock="accelerated", coordinates="weights"
        )
    partial = caught.value.trajectory
    assert partial is not None and not partial.success and np.isfinite(partial.beta).all()


def test_weights_below_the_range_of_floats_are_an_error_that_names_the_way_out(sign_switching: fs.Regression) -> None:
    with pytest.raises(fs.IntegrationError, match="`alpha` = 1e-400.*growth coordinates"):
        fs.gradient_flow(fs.DiagonalNetwork("u*v"), sign_switching, 1, alpha="1e-400", coordinates="weights")
    with pytest.raises(fs.IntegrationError, match="`alpha` = 1e-400.*leave out `coordinates`"):
        fs.gradient_flow(fs.DiagonalNetwork("a*tanh(a)"), sign_switching, 1, alpha="1e-400", coordinates="weights")
    for formula in ("u*v", "u**2 - v**2"):  # their conserved quantity, 1e-400, is not a float
        with pytest.raises(fs.IntegrationError, match="or what they conserve, below the range.*growth"):
            fs.gradient_flow(fs.DiagonalNetwork(formula), sign_switching, 1, alpha=1e-200, coordinates="weights")


def test_a_weight_that_sinks_out_of_sight_and_grows_again_is_an_error() -> None:
    """Feature 0 decays like alpha^20 until feature 1 jumps, and must then climb all the way back."""
    problem = fs.Regression([[-20.0, 1.0], [100.0, -0.5]], [1.0, 0.0])
    net = fs.DiagonalNetwork("w**2")
    growth = fs.gradient_flow(net, problem, 4, clock="accelerated")
    assert growth.log_abs_weights["w"][:, 0].min() < -100
    assert growth.beta[-1, 0] > 1e-3
    with pytest.raises(fs.IntegrationError, match="'w' of coordinate 0 sank.*grows again.*growth coordinates"):
        fs.gradient_flow(net, problem, 4, clock="accelerated", coordinates="weights")
    still = fs.Regression([[1.0]], [-1.0])  # it decays for good: nothing is lost
    assert fs.gradient_flow(net, still, 500, coordinates="weights").beta[-1, 0] < 1e-20


def test_a_conserved_quantity_lost_to_the_tolerance_is_an_error() -> None:
    problem = fs.datasets.sparse_regression(20, 5, 3, seed=1)
    with pytest.raises(fs.IntegrationError, match="lost to the tolerance.*tighten `rtol`"):
        fs.gradient_flow(
            fs.DiagonalNetwork("u*v"), problem, 6, alpha=1e-6, clock="accelerated", coordinates="weights",
            rtol=1e-1, method="BDF",
        )  # fmt: skip


def test_a_mixed_network_runs_each_coordinate_by_its_own_formula() -> None:
    X = np.sqrt(3) * np.eye(3)
    problem = fs.Regression(X, np.sqrt(3) * np.array([1.0, 2.0, 0.5]))
    texts = ["u*v", "w1*w2*w3", "u**2 - v**2"]
    mixed = fs.gradient_flow(fs.DiagonalNetwork(texts), problem, 6, alpha=0.2, rtol=1e-8)
    for i, text in enumerate(texts):
        alone = fs.gradient_flow(
            fs.DiagonalNetwork(text), fs.Regression([[1.0]], [problem.y[i] / np.sqrt(3)]), 6, alpha=0.2, rtol=1e-8
        )
        assert mixed.beta[-1, i] == pytest.approx(alone.beta[-1, 0], abs=1e-6)


CANCELLING = "exp(u) - 1 - u - u**2/2"  # its gradient, u^2/2, is a difference of terms of size 1


def test_a_gradient_that_cancels_to_rounding_at_the_start_is_an_error_in_weights() -> None:
    net, problem = fs.DiagonalNetwork(CANCELLING), fs.Regression([[1.0]], [1.0])
    assert fs.gradient_flow(net, problem, 1.0, alpha=0.5, coordinates="weights").success
    for alpha in (1e-9, 1e-12, 1e-40):
        with pytest.raises(fs.IntegrationError, match="cancels to rounding; leave out `coordinates`"):
            fs.gradient_flow(net, problem, 1.0, alpha=alpha, coordinates="weights")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("alpha", ["1e-9", "1e-20"])
def test_curve_coordinates_hold_a_gradient_that_cancels(alpha: str) -> None:
    """One weight: ``t = int du / ((1 - phi) phi')``, in digits enough for the cancellation."""
    problem = fs.Regression([[1.0]], [1.0])
    traj = fs.gradient_flow(fs.DiagonalNetwork(CANCELLING), problem, 4.0, alpha=alpha, clock="accelerated")
    assert traj.beta[-1, 0] == pytest.approx(1.0, abs=1e-6)
    with mp.workdps(60):

        def time_by_inverse(s):
            u = 1 / s
            slope = mp.exp(u) - 1 - u
            return 1 / (s * s * (1 - slope + u * u / 2) * slope)

        for row in (np.argmax(traj.beta[:, 0] > level) for level in (1e-2, 0.9)):
            first = mp.exp(-mp.mpf(float(traj.log_abs_weights["u"][row, 0])))
            ends = [first, *(mp.mpf(10) ** j for j in range(0, 22, 2) if first < mp.mpf(10) ** j < 1 / mp.mpf(alpha))]
            exact = mp.quad(time_by_inverse, [*ends, 1 / mp.mpf(alpha)])
            assert abs(exact / mp.mpf(float(traj.t[row])) - 1) < 1e-12


@pytest.mark.slow
def test_a_balance_that_rounding_breaks_never_decides_where_weights_go():
    """Weights that start equal stay equal: one ends at 0, which rounding in a linear solve turned to -0.15."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 6))
    problem = fs.Regression(X, X @ np.array([0.75, -0.15, 0.5, 0, 0, 0]) + 0.02 * rng.standard_normal(30))
    net = fs.DiagonalNetwork("u*v + u**2*v**2")
    asked = {"alpha": 1e-8, "clock": "accelerated", "coordinates": "weights", "t_eval": [0.0, 100.0]}
    with pytest.raises(fs.IntegrationError, match="coordinate 1 started balanced, rounding broke the balance"):
        fs.gradient_flow(net, problem, 100.0, method="LSODA", **asked)
    assert abs(fs.gradient_flow(net, problem, 100.0, method="DOP853", **asked).beta[-1, 1]) < 1e-9


def test_products_whose_imbalance_weights_lose_to_the_tolerance_are_followed_in_distances_from_mirrors() -> None:
    """Columns are orthogonal: each coordinate comes to rest at its own least-squares coefficient, or still waits."""
    X, y = np.array([[3.0, 2, 2], [3, -2, 2], [3, 2, -2], [3, -2, -2]]), np.array([0.909, 0.823, -1.166, -0.0513])
    start = {"w1": [1.193, 0.694, 1.3247], "w2": [1.389, 0.993, 1.3271], "w3": [1.297, 0.937, 0.315]}
    start["w4"] = [0.508, 1.0, 0.413]
    net, problem = fs.DiagonalNetwork(depth=4), fs.Regression(X, y)
    traj = fs.gradient_flow(net, problem, 6.2, alpha=1e-4, start=start, clock="accelerated", rtol=8e-6)
    right = X.T @ y / (X**2).sum(axis=0)
    np.testing.assert_allclose(traj.beta[-1], [right[0], 0.0, right[2]], atol=1e-5)
    assert traj.imbalance_drift < 1e-3


def test_a_feature_orthogonal_to_the_targets_does_not_stall_the_start() -> None:
    # Its rate, of second order in time, was the rounding of the residual: 73,000 steps in the first 2e-9 of the run.
    problem = fs.Regression([[-2.0, 1.0, 1.0], [-2.0, 1.0, 2.0], [-1.0, 1.0, -2.0]], [2.0, 0.0, 1.0])
    assert problem.gradient(np.zeros(3))[2] == 0.0
    net = fs.DiagonalNetwork("sin(u)*v", noise=fs.RademacherNoise(0.012))
    start = {"u": [0.86, 0.33, 1.36], "v": np.zeros(3)}
    run = fs.gradient_flow(net, problem, 3.7, alpha=0.01, start=start, rtol=2e-7, atol=2e-9)
    assert run.stats["steps"] < 400
    fine = fs.gradient_flow(net, problem, 3.7, alpha=0.01, start=start, method="DOP853", rtol=1e-11, atol=1e-14)
    assert fine.beta[-1, 2] != 0.0
    np.testing.assert_allclose(run.beta[-1], fine.beta[-1], rtol=1e-5)


@pytest.mark.parametrize("coordinates", ["auto", "weights"])
@pytest.mark.parametrize("log_ratio", [-10.0, -25.0, -50.0, -200.0, -600.0])
@pytest.mark.parametrize("formula", ["u**2*v", "u**2*tanh(v)", "u**2*v + u**4*v"])
def test_a_weight_far_below_another_of_its_coordinate_grows_from_its_own_start(
    formula: str, log_ratio: float, coordinates: str
) -> None:
    """An independent integration in ``ln u``: u is multiplied, and its start decides when beta jumps."""
    symbols = sympy.symbols("u v")
    phi = sympy.sympify(formula, dict(zip("uv", symbols, strict=True)))
    slopes = sympy.expand(sympy.diff(phi, "u") / symbols[0]), sympy.diff(phi, "v")
    value, by_u, by_v = (sympy.lambdify(symbols, expression) for expression in (phi, *slopes))

    def rates(t: float, state: np.ndarray) -> list[float]:
        u, v = np.exp(min(state[0], 3.0)), state[1]
        g = 1.0 - value(u, v)
        return [g * by_u(u, v), g * by_v(u, v)]

    alpha, horizon = 0.05, -log_ratio / 0.1 + 100.0
    exact = solve_ivp(
        rates, (0.0, horizon), [math.log(alpha) + log_ratio, alpha], "Radau", rtol=1e-10, atol=1e-12,
        events=lambda t, state: value(np.exp(state[0]), state[1]) - 0.5,
    )  # fmt: skip
    start = {"u": fs.Logs(1, log_ratio), "v": 1.0}
    run = fs.gradient_flow(
        fs.DiagonalNetwork(formula), fs.Regression([[1.0]], [1.0]), horizon, alpha=alpha, start=start,
        coordinates=coordinates, events=fs.events.crosses("beta", 0, 0.5), rtol=1e-8,
    )  # fmt: skip
    assert run.events[0].t == pytest.approx(exact.t_events[0][0], rel=1e-6)
    assert run.beta[-1, 0] == pytest.approx(value(np.exp(exact.y[0, -1]), exact.y[1, -1]), rel=1e-6)


def test_weights_too_far_apart_for_floats_and_curves_are_named() -> None:
    """u and v wait until w has multiplied both: neither is driven by what is above the resolution of curves."""
    start = {"u": fs.Logs(1, -60.0), "v": fs.Logs(1, -40.0), "w": 1.0}
    with pytest.raises(fs.IntegrationError, match=r"start more than 1e\+09 apart"):
        fs.gradient_flow(
            fs.DiagonalNetwork("u*v*w + u**3*v*w"), fs.Regression([[1.0]], [1.0]), 4.0, alpha="1e-300", start=start,
            clock="accelerated",
        )  # fmt: skip
