"""U V^T from starts far below the range of floats, against arithmetic of hundreds of digits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.linalg import expm

import flowsim as fs
from flowsim.flows.frames import FrameCoordinates
from flowsim.network import InitialScale
from flowsim.network.linear_start import LinearCase
from tests.flows.linear_oracle import taylor_flow

#: Digits that scales ask for: what is learned second hides behind the first in the digits of the weights.
SCALES = {8: 60, 30: 90, 60: 140, 150: 260, 1000: 1400}


def case(index: int):
    """A random shape, its noise, the exponent of its scale, and times around its first two jumps and after."""
    rng = np.random.default_rng([17, index])
    exponent = (8, 60, 30, 150, 8, 60, 8, 1000)[index % 8]
    top = 3 if exponent < 150 else 2 if exponent < 1000 else 1
    D, m, h = (int(rng.integers(1, top + 1)) for _ in range(3))
    if index % 3 == 0:
        D += 1
    n = int(rng.integers(1, 6))
    X = (rng.standard_normal((n, D)) / np.sqrt(2.0)).round(3)
    if index % 5 == 4:  # rank-deficient
        X[:, -1] = X[:, 0]
    Y = (X @ rng.standard_normal((D, m)) + 0.2 * rng.standard_normal((n, m))).round(3)
    U, V = rng.standard_normal((D, h)).round(3), rng.standard_normal((m, h)).round(3)
    kind = index % 4
    if kind == 1:
        V = 0 * V
    if kind == 2:
        U, V = (1e-3 * U).round(9), (10 * V).round(3)
    noise = 0.1 if index % 4 == 3 else 0.0
    values = np.linalg.svd(X.T @ Y / n, compute_uv=False)
    gamma = exponent * np.log(10.0)
    first = gamma / values[0]
    times = [0.6 * first, first, first + 1 / values[0], 1.2 * first + 4 / values[0], 1.6 * first + 6 / values[0]]
    return X, Y, U, V, noise, exponent, [round(t, 3) for t in times]


def check(index: int) -> None:
    X, Y, U, V, noise, exponent, times = case(index)
    net = fs.LinearNetwork(U.shape[1], noise=fs.GaussianNoise(noise) if noise else None)
    exact = taylor_flow(X, Y, U, V, times, exponent=exponent, eta=noise, digits=SCALES[exponent])
    traj = fs.gradient_flow(
        net, fs.Regression(X, Y), times[-1], alpha=f"1e-{exponent}", start={"U": U, "V": V}, t_eval=times
    )
    assert np.abs(traj.beta - exact).max() <= 20e-6 * max(1.0, np.abs(exact).max()), (index, X.shape, Y.shape, U.shape)
    assert traj.imbalance_drift <= 1e-9


@pytest.mark.sampled(4)
@pytest.mark.parametrize("index", range(7))
def test_the_flow_is_that_of_exact_arithmetic(index: int) -> None:
    check(index)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(7, 50))
def test_the_flow_is_that_of_exact_arithmetic_on_many_shapes(index: int) -> None:
    check(index)


def test_what_was_learned_is_unlearned_and_learned_with_the_other_sign() -> None:
    """The second sign grows out of the imbalance of the start, 1e-60, which no product of floats could keep."""
    X, Y = np.array([[1.0, 0.2], [0.1, 0.8], [0.3, -0.5]]), np.array([[-1.0, 0.3], [0.2, -0.7], [0.4, 0.1]])
    A, B = np.array([[1.0], [0.5]]), np.array([[1.0], [-0.4]])
    pretrained = {"U": A @ [[1.0, 0.0]], "V": B @ [[np.sqrt(A.T @ A).item() / np.sqrt(B.T @ B).item(), 0.0]]}
    start = {"U": np.array([[0.3, -1.0], [0.7, 0.2]]), "V": np.array([[0.4, 0.9], [-0.6, 0.5]])}
    times = [1.0, 5.0, 40.0, 120.0, 250.0, 400.0]
    exact = taylor_flow(
        X, Y, start["U"], start["V"], times, exponent=60, pretrained=(pretrained["U"], pretrained["V"]), digits=250
    )
    traj = fs.gradient_flow(
        fs.LinearNetwork(2), fs.Regression(X, Y), times[-1], alpha="1e-60", start=start, pretrained=pretrained,
        t_eval=times,
    )  # fmt: skip
    np.testing.assert_allclose(traj.beta, exact, atol=2e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.slow
def test_pretrained_weights_of_any_imbalance_leave_what_is_tiny_alone(decay: float) -> None:
    """What U^T U - V^T V keeps of them is no small number next to which alpha would be rounding."""
    rng = np.random.default_rng(11)
    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    pretrained = {"U": np.array([[1.0, 0.0], [0.5, 0.0]]), "V": np.array([[0.3, 0.0], [-0.2, 0.0]])}
    start = {"U": rng.standard_normal((2, 2)), "V": rng.standard_normal((2, 2))}
    times = [1.0, 20.0, 300.0, 1000.0]
    exact = taylor_flow(
        X, Y, start["U"], start["V"], times, exponent=60, decay=decay, digits=200,
        pretrained=(pretrained["U"], pretrained["V"]),
    )  # fmt: skip
    traj = fs.gradient_flow(
        fs.LinearNetwork(2, weight_decay=decay), fs.Regression(X, Y), times[-1], alpha="1e-60", start=start,
        pretrained=pretrained, t_eval=times,
    )  # fmt: skip
    np.testing.assert_allclose(traj.beta, exact, atol=2e-5)
    assert np.abs(exact[-1] - exact[1]).max() > 0.05  # it has jumped
    assert traj.imbalance_drift < 1e-9


def test_a_scalar_network_changes_sign_at_any_scale() -> None:
    """u v from (1, 1) to -1: u + v shrinks while u - v grows out of what alpha left of it; they cross at gamma."""
    problem = fs.Regression([[1.0]], [-1.0])
    ones = {"U": [[1.0]], "V": [[1.0]]}
    for exponent in (8, 60, 300):
        gamma = exponent * np.log(10.0)
        # p = u + v decays like exp(-t) and q = u - v grows like exp(t) while u v is small.
        times = [0.5 * gamma + 1, 1.5 * gamma]
        traj = fs.gradient_flow(
            fs.LinearNetwork(1), problem, times[-1], alpha=f"1e-{exponent}", start={"U": [[1.0]], "V": [[-1.0]]},
            pretrained=ones, t_eval=times,
        )  # fmt: skip
        np.testing.assert_allclose(traj.beta[:, 0, 0], [0.0, -1.0], atol=1e-5)


def test_weight_decay_is_that_of_exact_arithmetic_and_the_imbalance_decays_by_its_law() -> None:
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((5, 3)).round(3), rng.standard_normal((5, 2)).round(3)
    U, V = rng.standard_normal((3, 3)).round(3), rng.standard_normal((2, 3)).round(3)
    times = [20.0, 60.0, 100.0, 200.0]
    exact = taylor_flow(X, Y, U, V, times, exponent=20, decay=0.05, digits=90)
    net = fs.LinearNetwork(3, weight_decay=0.05)
    traj = fs.gradient_flow(net, fs.Regression(X, Y), times[-1], alpha="1e-20", start={"U": U, "V": V}, t_eval=times)
    np.testing.assert_allclose(traj.beta, exact, atol=2e-5)
    assert traj.imbalance_drift <= 1e-9
    law = np.log(np.abs(U.T @ U - V.T @ V)) - 40 * np.log(10.0) - 0.1 * np.array(times)[:, None, None]
    np.testing.assert_allclose(traj.log_imbalance, law, atol=1e-9)


def test_levels_rise_from_zero_to_one_at_the_singular_values() -> None:
    rng = np.random.default_rng(0)
    X = np.sqrt(8.0) * np.linalg.qr(rng.standard_normal((8, 3)))[0]
    values = np.array([2.0, 1.0, 0.5])
    problem = fs.Regression(X, X @ np.diag(values))
    traj = fs.gradient_flow(
        fs.LinearNetwork(6), problem, 2.5, alpha="1e-1000", clock="accelerated", t_eval=np.linspace(0, 2.5, 26)
    )
    np.testing.assert_allclose(traj.levels, np.minimum(values * traj.accelerated_time[:, None], 1.0), atol=3e-3)
    np.testing.assert_allclose(traj.singular_values[-1], values, atol=1e-6)
    assert traj.stats["steps"] < 200


@pytest.mark.parametrize("noise", [0.0, 0.0217])
def test_a_start_that_turns_towards_what_grows_fastest_is_followed_to_the_tolerance(noise: float) -> None:
    # Beta is 1e-9 of its end: the weights are exp(t S) times their start, S that of the origin.
    x, Y = np.array([2.223, -0.11, -2.959]), np.array([[0.94, 0.961], [-0.188, -0.048], [0.095, -1.278]])
    G, eta = x[None] @ Y / 3, noise**2 * (x @ x) / 3
    S = np.block([[np.diag([-2 * eta]), G], [G.T, -eta * np.eye(2)]])
    Z = np.array([[1.356], [-1.621], [0.486]])
    net = fs.LinearNetwork(1, noise=fs.GaussianNoise(noise) if noise else None)
    for rtol in (1e-7, 1e-9):
        run = fs.gradient_flow(
            net, fs.Regression(x[:, None], Y), 2.5, alpha=1e-7, start={"U": Z[:1], "V": Z[1:]}, rtol=rtol
        )
        end = 1e-7 * expm(2.5 * S) @ Z
        np.testing.assert_allclose(run.beta[-1], end[:1] @ end[1:].T, rtol=10 * rtol)


def test_a_start_says_what_of_it_was_taken_for_rounding() -> None:
    problem = fs.Regression(np.eye(2), np.diag([2.0, 1.0]))
    for size, told in ((1e-10, False), (3e-14, True), (0.0, False)):
        U = np.diag([1.0, size])
        run = fs.gradient_flow(fs.LinearNetwork(2), problem, 1.0, alpha=1.0, start={"U": U, "V": U})
        assert ("taken_as_rounding" in run.info) == told
        assert (run.beta[-1, 1, 1] > 0) == (size > 1e-13)
    assert "3.0e-14" in fs.gradient_flow(
        fs.LinearNetwork(2), problem, 1.0, alpha=1.0, start=dict.fromkeys("UV", np.diag([1.0, 3e-14]))
    ).info["taken_as_rounding"]  # fmt: skip


def test_data_whose_squared_gradients_are_no_floats_are_refused_with_the_powers_of_two_that_help() -> None:
    """The same data over these powers: the same jump times, and the same end."""
    rng = np.random.default_rng(2)
    X, Y, net = rng.standard_normal((6, 4)), rng.standard_normal((6, 2)), fs.LinearNetwork(5)
    huge, plain = fs.Regression(2.0**250 * X, 2.0**400 * Y), fs.Regression(X, Y)
    limit = fs.saddle_to_saddle(net, plain)
    np.testing.assert_allclose(fs.saddle_to_saddle(net, huge).jump_times * 2.0**650, limit.jump_times, rtol=1e-12)
    with pytest.raises(fs.IntegrationError, match=r"divide X by 2\^25\d, y by 2\^40\d and `alpha` by 2\^7\d"):
        fs.gradient_flow(net, huge, 2.0**-640, alpha="1e-200", clock="accelerated")
    end = 2 * limit.jump_times[-1]
    small = fs.gradient_flow(
        net, fs.Regression(2.0**-244 * X, 2.0**-244 * Y), end * 2.0**488, alpha="1e-200", clock="accelerated"
    )
    np.testing.assert_allclose(small.beta[-1], limit.end, atol=1e-6)


def test_a_trial_beyond_floats_is_no_warning() -> None:
    problem = fs.Problem([[1.0, 2.0], [-1.0, 0.5]], [[1.0], [3.0]], "poisson")
    case = LinearCase(fs.LinearNetwork(2), problem, InitialScale.parse("1"), None)
    coupling = FrameCoordinates(case).growth.problem.coupling
    assert not np.isfinite(coupling.value(np.full((2, 1), 1e4))).any()


@pytest.mark.parametrize("size", [1e3, 1e4, 1e8])
@pytest.mark.parametrize("h", [2, 3, 8])
def test_with_one_layer_far_larger_than_the_fit_the_other_is_least_squares_on_it(h: int, size: float) -> None:
    """U moves by a part ``t / size^2``; V, and so beta, rests at the fit through the columns of U at once."""
    rng = np.random.default_rng(h)
    X, Y = rng.standard_normal((6, 4)), rng.standard_normal((6, 2))
    U, V = rng.standard_normal((4, h)), rng.standard_normal((2, h))
    fit = np.linalg.lstsq(X @ U, Y, rcond=None)[0]
    for small in (V, fit.T):
        run = fs.gradient_flow(
            fs.LinearNetwork(h), fs.Regression(X, Y), 10.0, alpha=1.0, start={"U": size * U, "V": small / size},
            t_eval=[5.0, 10.0], max_steps=2000,
        )  # fmt: skip
        drift = 1e3 / size**2  # measured: 3e-5 at 1e3
        np.testing.assert_allclose(run.beta, [U @ fit] * 2, rtol=0, atol=2e-6 + drift)


def test_both_layers_far_larger_than_the_fit_agree_with_the_weights() -> None:
    rng = np.random.default_rng(1)
    problem, t = fs.Regression(rng.standard_normal((6, 4)), rng.standard_normal((6, 2))), [0.1, 1.0, 10.0]
    start = {"U": 1e3 * rng.standard_normal((4, 2)), "V": 1e3 * rng.standard_normal((2, 2))}
    runs = [
        fs.gradient_flow(fs.LinearNetwork(2), problem, 10.0, alpha=1.0, start=start, t_eval=t, method=method, rtol=rtol)
        for method, rtol in (("auto", 1e-6), ("Radau", 1e-9))
    ]
    np.testing.assert_allclose(runs[0].beta, runs[1].beta, rtol=0, atol=3e-6)
    again = pickle.loads(pickle.dumps(runs[1]))
    np.testing.assert_array_equal(again.at(5.0).beta, runs[1].at(5.0).beta)


def test_functions_compiled_in_advance_or_by_themselves_are_those_that_a_flow_calls():
    from flowsim.solvers.frames.collocation import propagation
    from flowsim.solvers.frames.collocation_march import march_steps
    from flowsim.solvers.frames.iteration import fixed_point

    problem = fs.Regression(np.eye(3), np.diag([1.0, 0.5, 0.2])[:, :2])
    fs.gradient_flow(fs.LinearNetwork(4), problem, 2.5, alpha="1e-60", clock="accelerated")
    for function in (march_steps, propagation, fixed_point):
        assert function.compiled.signatures == [function.declared]
