"""Linear networks from starts of ordinary size: the explicit method, and where it hands over."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import flowsim as fs
from flowsim.solvers.frames.explicit import Limits, integrate, method, read
from flowsim.solvers.frames.problem import Linear
from flowsim.solvers.frames.solution import StepChain
from tests.flows.linear_oracle import taylor_flow


def case(seed: int, D: int = 3, m: int = 2, h: int = 4, n: int = 5):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, D)) / np.sqrt(2.0)).round(3)
    Y = (X @ rng.standard_normal((D, m)) + 0.2 * rng.standard_normal((n, m))).round(3)
    return X, Y, rng.standard_normal((D, h)).round(3), rng.standard_normal((m, h)).round(3)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("seed", "exponent", "decay"), [(0, 0, 0.0), (1, 1, 0.0), (2, 2, 0.0), (3, 3, 0.0), (4, 2, 0.05)]
)
def test_the_flow_is_that_of_exact_arithmetic(seed: int, exponent: int, decay: float) -> None:
    X, Y, U, V = case(seed)
    times = [0.5, 2.0, 7.0, 15.0]
    exact = taylor_flow(X, Y, U, V, times, exponent=exponent, decay=decay, digits=40)
    net = fs.LinearNetwork(4, weight_decay=decay)
    traj = fs.gradient_flow(
        net, fs.Regression(X, Y), times[-1], alpha=f"1e-{exponent}", start={"U": U, "V": V}, t_eval=times
    )
    assert traj.stats["explicit_steps"] == traj.stats["steps"]
    np.testing.assert_allclose(traj.beta, exact, atol=20e-6)
    assert traj.imbalance_drift <= 1e-9


def test_weights_keep_the_imbalance_and_have_the_product() -> None:
    X, Y, U, V = case(5, D=4, m=3, h=9)
    traj = fs.gradient_flow(
        fs.LinearNetwork(9), fs.Regression(X, Y), 20.0, alpha=1e-2, start={"U": U, "V": V},
        t_eval=np.linspace(0.0, 20.0, 23),
    )  # fmt: skip
    U, V = traj.weights["U"], traj.weights["V"]
    imbalance = np.swapaxes(U, 1, 2) @ U - np.swapaxes(V, 1, 2) @ V
    np.testing.assert_allclose(imbalance, np.broadcast_to(imbalance[0], imbalance.shape), atol=1e-13)
    np.testing.assert_allclose(U @ np.swapaxes(V, 1, 2), traj.beta, atol=2e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("rtol", "most"), [(1e-6, 120), (1e-9, 250)])
def test_a_stiff_flow_goes_on_by_collocation(rtol: float, most: int) -> None:
    """Condition 1e4: the explicit method would need thousands of steps at the limit of its stability."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 4)))[0] for size in (8, 4))
    X = np.sqrt(8) * (left * np.geomspace(1.0, 1e-2, 4)) @ right.T
    problem = fs.Regression(X, X @ rng.standard_normal((4, 2)))
    run = lambda rtol: fs.gradient_flow(fs.LinearNetwork(6), problem, 3e4, alpha=0.1, rtol=rtol)  # noqa: E731
    traj, reference = run(rtol), run(0.01 * rtol)
    assert 0 < traj.stats["explicit_steps"] < traj.stats["steps"] < most
    times = np.geomspace(0.1, 3e4, 30)
    np.testing.assert_allclose(traj.at(times).beta, reference.at(times).beta, atol=20 * rtol)
    assert traj.imbalance_drift <= 1e-9


def test_a_terminal_event_ends_the_run_among_explicit_steps() -> None:
    X, Y, U, V = case(6)
    problem = fs.Regression(X, Y)
    start = {"U": U, "V": V}
    whole = fs.gradient_flow(fs.LinearNetwork(4), problem, 30.0, alpha=0.1, start=start)
    level = float(whole.at([4.0]).loss[0])
    traj = fs.gradient_flow(
        fs.LinearNetwork(4),
        problem,
        30.0,
        alpha=0.1,
        start=start,
        events=[fs.events.loss_reaches(level, terminal=True)],
    )
    assert traj.t[-1] == pytest.approx(4.0, abs=1e-5)


def test_a_step_is_of_order_eight_and_its_inside_of_order_seven() -> None:
    rng = np.random.default_rng(3)
    linear = Linear(rng.standard_normal((3, 2)), np.array([1.0, 0.7, 0.2]), np.ones(2))
    Z = 0.7 * rng.standard_normal((5, 4))

    def end(h: float, parts: int) -> np.ndarray:
        now = Z
        for _ in range(parts):
            now = read(method(), linear, 0.1, now, h / parts, np.array([1.0]))[0]
        return now

    errors = [np.abs(end(h, 1) - end(h, 16)).max() for h in (0.08, 0.04)]
    assert 7.5 <= np.log2(errors[0] / errors[1]) <= 10.0
    inside = []
    for h in (0.08, 0.04):
        middle = read(method(), linear, 0.1, Z, h, np.array([0.4]))[0]
        inside.append(np.abs(middle - end(0.4 * h, 16)).max())
    assert 7.0 <= np.log2(inside[0] / inside[1]) <= 9.5


def test_a_course_ends_where_it_was_told_and_counts_its_work() -> None:
    linear = Linear(np.eye(2), np.ones(2), np.ones(2))
    Z = np.array([[0.1, 0.0], [0.0, 0.2], [0.1, 0.0], [0.0, 0.2]])
    course = integrate(method(), linear, 0.0, Z, 0.0, 10.0, 0.0, Limits(1e-10, 1e-14, 1.0, 1e9, np.inf, 1000))
    assert course.t[-1] == 10.0
    assert course.evaluations == 1 + 12 * (len(course.t) - 1 + course.rejected)
    # u = v: u^2 obeys the logistic equation.
    exact = [1 / (1 + (1 / b - 1) * np.exp(-20.0)) for b in (0.01, 0.04)]
    last = course.states[-1]
    np.testing.assert_allclose(np.diag(last[:2] @ last[2:].T), exact, rtol=1e-8)


def test_a_long_run_of_explicit_steps_is_pickled() -> None:
    problem = fs.Regression(np.eye(2), np.eye(2))
    traj = fs.gradient_flow(fs.LinearNetwork(3), problem, 500.0, alpha=0.5)
    assert traj.stats["explicit_steps"] > 150
    assert traj.imbalance_drift <= 1e-9
    again = pickle.loads(pickle.dumps(traj))
    np.testing.assert_array_equal(again.beta, traj.beta)


@pytest.mark.slow
def test_small_starts_keep_shrinking_parts_in_columns_of_their_own() -> None:
    """In one floating-point matrix the parts that shrink first and grow later would be off by 2e-3 here."""
    rng = np.random.default_rng([9, 24])
    X = (rng.standard_normal((6, 3)) / np.sqrt(2)).round(3)
    Y = (X @ rng.standard_normal((3, 2)) + 0.3 * rng.standard_normal((6, 2))).round(3)
    U, V = rng.standard_normal((3, 5)).round(3), rng.standard_normal((2, 5)).round(3)
    last = 138.0 / np.linalg.svd(X.T @ Y / 6, compute_uv=False)[0] + 10.0
    times = [round(share * last, 2) for share in (0.3, 0.4, 0.6, 0.8, 1.0)]
    exact = taylor_flow(X, Y, U, V, times, exponent=20, digits=80)
    traj = fs.gradient_flow(
        fs.LinearNetwork(5), fs.Regression(X, Y), times[-1], alpha="1e-20", start={"U": U, "V": V}, t_eval=times
    )
    assert traj.stats["explicit_steps"] == traj.stats["steps"]
    np.testing.assert_allclose(traj.beta, exact, atol=5e-6)
    assert traj.imbalance_drift <= 1e-9
    U, V = traj.weights["U"], traj.weights["V"]
    np.testing.assert_allclose(U @ np.swapaxes(V, 1, 2), traj.beta, atol=2e-5)


def test_ends_of_steps_are_read_without_the_dense_output(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y, U, V = case(7, D=5, m=2, h=9, n=3)
    with monkeypatch.context() as patch:
        patch.setattr("flowsim.solvers.frames.solution.read", None)
        traj = fs.gradient_flow(fs.LinearNetwork(9), fs.Regression(X, Y), 40.0, alpha=1e-6, start={"U": U, "V": V})
    assert traj.stats["explicit_steps"] == traj.stats["steps"]
    inside = traj.at(traj.t[1:] * (1.0 - 1e-13))
    np.testing.assert_allclose(traj.beta[1:], inside.beta, rtol=1e-9, atol=1e-15)


def test_coefficients_are_read_without_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where U has a part outside the row space of X, and with their speed."""

    def fail(chain: StepChain, number: int) -> None:
        raise AssertionError("a frame was computed")

    monkeypatch.setattr(StepChain, "frame", fail)
    X, Y, U, V = case(7, D=5, m=2, h=9, n=3)
    times = [5.0, 20.0, 40.0]
    exact = taylor_flow(X, Y, U, V, times, exponent=6, digits=50)
    traj = fs.gradient_flow(
        fs.LinearNetwork(9), fs.Regression(X, Y), times[-1], alpha=1e-6, start={"U": U, "V": V}, t_eval=times
    )
    assert traj.stats["explicit_steps"] == traj.stats["steps"]
    np.testing.assert_allclose(traj.beta, exact, atol=5e-6)
    assert (np.diff(traj.arclength) >= np.linalg.norm(np.diff(exact, axis=0), axis=(1, 2)) * (1 - 1e-5)).all()
