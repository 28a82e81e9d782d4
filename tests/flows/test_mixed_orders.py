"""Coordinates whose formulas have different orders: at tiny alpha each order moves on a time scale of its own."""

import numpy as np
import pytest
from gmpy2 import mpfr

import flowsim as fs
from tests.flows.collocation import Collocation
from tests.fuzz import oracles
from tests.fuzz.oracles import Data, Products

X, Y = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, -0.4]]), np.array([1.0, 0.6])
START = {"u": 1.0, "v": 0.4, "w": 0.7}


def exact(alpha: str, times: list[float]) -> np.ndarray:
    """beta (T, 3) of ``u*v, u*v*w, u*v`` by the angles of each."""
    with oracles.precision(60):
        data, small = Data(X, Y), mpfr(alpha)
        weights = [[mpfr(START[name]) * small] for name in "uvw"]
        grown = [Products(weights[:2]), Products(weights), Products(weights[:2])]

        def read(q: list) -> list:
            return [own.beta([angle])[0] for own, angle in zip(grown, q, strict=True)]

        def field(q: list) -> list:
            speeds = [own.speed([angle])[0] for own, angle in zip(grown, q, strict=True)]
            return [-g * s for g, s in zip(data.gradient(read(q)), speeds, strict=True)]

        flow = Collocation(field, [own.start[0] for own in grown])
        return np.array([[float(b) for b in read(flow.to(mpfr(float(t))))] for t in times])


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("alpha", "share"), [("1e-3", 400.0), ("1e-9", 4.0), ("1e-16", 4.0), ("1e-1000", 4.0)])
@pytest.mark.slow
def test_those_of_higher_order_wait_while_the_others_grow(alpha, share):
    net, problem = fs.DiagonalNetwork(["u*v", "u*v*w", "u*v"]), fs.Regression(X, Y)
    gamma = -float(oracles.gmpy2.log(mpfr(alpha)))
    times = gamma * np.array([0.6, 1.2, 1.7, share])
    truth = exact(alpha, times.tolist())
    for rtol in (1e-6, 1e-10):
        traj = fs.gradient_flow(net, problem, times[-1], alpha=alpha, start=START, t_eval=times, rtol=rtol)
        assert traj.info["coordinates"] == "curve"
        assert np.abs(traj.beta - truth).max() <= 20 * rtol * max(1.0, np.abs(truth).max())
    waiting = traj.log_abs_weights["w"][:, 1]
    if alpha != "1e-3":
        np.testing.assert_allclose(waiting, np.log(0.7) - gamma, rtol=1e-8)


@pytest.mark.parametrize("loss", ["logistic", "log-cosh", "pseudo-huber"])
def test_they_wait_under_losses_of_bounded_slope(loss):
    y = np.sign(Y) if loss == "logistic" else Y
    net, weights = fs.DiagonalNetwork(["u*v", "u*v*w", "u*v"]), [2.0, 0.5]
    run, without = (
        fs.gradient_flow(one, fs.Problem(data, y, loss, sample_weight=weights), 3.0, alpha="1e-30", clock="accelerated",
                         start={name: START[name] for name in one.weights}, rtol=1e-9)
        for one, data in ((net, X), (fs.DiagonalNetwork("u*v"), X[:, [0, 2]]))
    )  # fmt: skip
    np.testing.assert_allclose(run.beta[-1, [0, 2]], without.beta[-1], rtol=1e-7)
    np.testing.assert_allclose(run.log_abs_weights["w"][-1, 1], np.log(0.7) - 30 * np.log(10), rtol=1e-12)


def test_at_rest_means_that_what_waits_for_longer_has_not_moved():
    net, problem = fs.DiagonalNetwork(["u*v", "u*v*w", "u*v"]), fs.Regression(X, Y)
    ends = [fs.gradient_flow(net, problem, alpha=alpha, start=START).beta[-1] for alpha in ("1e-16", "1e-1000")]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)
    assert abs(ends[0][1]) < 1e-12


@pytest.mark.parametrize("clock", ["accelerated", "time"])
def test_horizons_on_which_all_orders_move_are_refused_where_floats_do_not_carry_both(clock):
    net, problem = fs.DiagonalNetwork(["u*v*w", "u**2*v**2", "u*v*w"]), fs.Regression(X, Y)
    with pytest.raises(fs.IntegrationError, match=r"orders \[3, 4\] have time scales of their own"):
        fs.gradient_flow(net, problem, 4.0 if clock == "accelerated" else 4e30, alpha="1e-30", start=START, clock=clock)


@pytest.mark.parametrize("formulas", [["u*v*w", "tanh(u*v)", "u*v*w"], ["u*v*w", "u**2*v*w", "u*v*w"]])
def test_coefficients_that_stand_still_are_those_of_the_start(formulas):
    """Without data to fit, or with tiny ones, products of three weights do not move; they are not 0 for that."""
    start = {"u": [1.1, 0.7, 1.3], "v": [1.3, 1.3, -1.3], "w": [0.7, 1.0, 0.5]}
    problem = fs.Regression(np.random.default_rng(0).standard_normal((3, 3)), [1e-9, 0.0, 0.0])
    run = fs.gradient_flow(fs.DiagonalNetwork(formulas), problem, 3.0, alpha="1e-5", start=start, t_eval=[0.0, 3.0])
    for i in (0, 2):
        right = 1e-15 * start["u"][i] * start["v"][i] * start["w"][i]
        np.testing.assert_allclose(run.beta[:, i], right, rtol=1e-9)


def test_where_data_are_zero_a_smaller_scale_is_no_remedy() -> None:
    """Then ``u**2 - v**2`` is a difference of terms of order 2 beside a product of order 3: a larger rtol is one."""
    net, problem = fs.DiagonalNetwork(["u*v*w", "u**2 - v**2"]), fs.Regression([[0.8, 1.3], [0.2, -2.9]], [0.0, 0.0])
    with pytest.raises(fs.IntegrationError, match="exceeds `rtol`; use a larger `rtol`"):
        fs.gradient_flow(net, problem, 2.0, alpha=1e-8, start=dict.fromkeys("uvw", 1.01), method="BDF", rtol=1e-8)
    run = fs.gradient_flow(net, problem, 2.0, alpha=1e-8, start=dict.fromkeys("uvw", 1.01), method="BDF", rtol=1e-4)
    np.testing.assert_allclose(run.beta[-1], [1.01**3 * 1e-24, 0.0], rtol=1e-9)
