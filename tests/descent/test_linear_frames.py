"""Descent of U V^T at scales where plain weights lose what waits."""

from __future__ import annotations

import gmpy2
import numpy as np
import pytest

import flowsim as fs
from flowsim.descent import frame_descent
from flowsim.solvers.compilation import compiled
from flowsim.solvers.matrices import calls, interpreted


def exact_descent(X, Y, U, V, step, n_steps, exponent, digits, decay=0.0):
    """Gradient descent in the weights, in arithmetic of many digits."""
    with gmpy2.context(gmpy2.get_context(), precision=int(3.33 * digits)):
        lift = np.vectorize(lambda x: gmpy2.mpfr(repr(float(x))), otypes=[object])
        X, Y, n = lift(X), lift(Y), len(X)
        sigma, signal, h = X.T @ X / n, X.T @ Y / n, gmpy2.mpfr(repr(step))
        u, v = lift(U) * gmpy2.mpfr(10) ** -exponent, lift(V) * gmpy2.mpfr(10) ** -exponent
        out = [u @ v.T]
        for _ in range(n_steps):
            G = signal - sigma @ (u @ v.T)
            u, v = (1 - h * decay) * u + h * (G @ v), (1 - h * decay) * v + h * (G.T @ u)
            out.append(u @ v.T)
        return np.array([each.astype(float) for each in out])


def test_descent_is_that_of_exact_arithmetic_through_two_jumps() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 3)).round(3), rng.standard_normal((6, 2)).round(3)
    U, V = rng.standard_normal((3, 3)).round(3), rng.standard_normal((2, 3)).round(3)
    first, second = np.linalg.svd(X.T @ Y / 6, compute_uv=False)
    for exponent in (20, 60):
        n_steps = int(2.2 * exponent * np.log(10.0) / (0.3 * min(first, 2 * second)))
        exact = exact_descent(X, Y, U, V, 0.3, n_steps, exponent, 3 * exponent + 30)
        traj = fs.gradient_descent(
            fs.LinearNetwork(3), fs.Regression(X, Y), 0.3, n_steps, alpha=f"1e-{exponent}", start={"U": U, "V": V}
        )
        assert traj.info["coordinates"] == "frame"
        np.testing.assert_allclose(traj.beta, exact, atol=1e-9)


def test_weight_decay_multiplies_every_step_by_one_minus_its_rate_at_any_scale() -> None:
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((6, 3)).round(3), rng.standard_normal((6, 2)).round(3)
    U, V = rng.standard_normal((3, 3)).round(3), rng.standard_normal((2, 3)).round(3)
    net, problem, start = fs.LinearNetwork(3, weight_decay=0.125), fs.Regression(X, Y), {"U": U, "V": V}
    for exponent, coordinates in ((1, "linear"), (30, "frame")):
        n_steps = 300 + 1000 * (exponent > 1)
        exact = exact_descent(X, Y, U, V, 0.3, n_steps, exponent, 3 * exponent + 30, 0.125)
        traj = fs.gradient_descent(net, problem, 0.3, n_steps, alpha=f"1e-{exponent}", start=start)
        assert traj.info["coordinates"] == coordinates
        np.testing.assert_allclose(traj.beta, exact, atol=1e-9)
        assert np.abs(exact[-1]).max() > 0.1


def test_weight_decay_of_descent_with_momentum_ends_where_its_flow_does() -> None:
    rng = np.random.default_rng(5)
    problem = fs.Regression(rng.standard_normal((9, 3)), rng.standard_normal((9, 2)))
    net = fs.LinearNetwork(4, weight_decay=0.1)
    flow = fs.gradient_flow(net, problem, 400.0, alpha=0.1)
    for nesterov in (False, True):
        traj = fs.gradient_descent(net, problem, 0.1, 2000, alpha=0.1, momentum=0.8, nesterov=nesterov)
        np.testing.assert_allclose(traj.beta[-1], flow.beta[-1], atol=1e-7)


def test_descent_with_small_steps_follows_the_flow_far_below_floats() -> None:
    rng = np.random.default_rng(1)
    problem = fs.Regression(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)))
    net, step = fs.LinearNetwork(4), 0.1
    # The flow jumps at t = 1970, descent a part h sigma / 2 of that later; the next jump is at 2746.
    flow = fs.gradient_flow(net, problem, 2400.0, alpha="1e-320", t_eval=[2400.0])
    traj = fs.gradient_descent(net, problem, step, 24_000, alpha="1e-320", record_every=6_000)
    np.testing.assert_allclose(traj.beta[-1], flow.beta[-1], atol=1e-6)
    assert np.isfinite(traj.log_abs_weights["U"]).all()


def test_logarithms_of_wide_weights_far_below_floats_are_those_of_the_start() -> None:
    rng = np.random.default_rng(2)
    problem = fs.Regression(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)))
    start = {"U": rng.standard_normal((3, 20)), "V": rng.standard_normal((2, 20))}
    traj = fs.gradient_descent(fs.LinearNetwork(20), problem, 0.1, 3, alpha="1e-1000", start=start)
    for name, values in start.items():
        logs = np.log(np.abs(values)) - 1000 * np.log(10)
        np.testing.assert_allclose(traj.log_abs_weights[name][0], logs, rtol=1e-14)
        assert np.isfinite(traj.log_abs_weights[name]).all()


def test_other_losses_and_measurements_descend_along_their_flows_far_below_floats() -> None:
    rng = np.random.default_rng(3)
    X, labels = rng.standard_normal((30, 4)), np.sign(rng.standard_normal((30, 2)))
    A = rng.standard_normal((9, 3, 3))
    for problem, step, n_steps in (
        (fs.Problem(X, labels, loss="logistic"), 0.05, 40_000),
        (fs.MatrixSensing(A, rng.standard_normal(9)), 0.05, 36_000),
    ):
        net = fs.LinearNetwork(6)
        traj = fs.gradient_descent(net, problem, step, n_steps, alpha="1e-100", record_every=n_steps)
        assert traj.info["coordinates"] == "frame"
        flow = fs.gradient_flow(net, problem, step * n_steps, alpha="1e-100", t_eval=[step * n_steps])
        assert flow.loss[-1] < 0.99 * problem.loss(np.zeros((problem.d, problem.n_targets)))
        np.testing.assert_allclose(traj.beta[-1], flow.beta[-1], atol=1e-6)


def test_steps_on_measurements_are_those_of_plain_weights() -> None:
    rng = np.random.default_rng(5)
    A, y, U0, V0 = (rng.standard_normal(shape) for shape in ((9, 3, 2), 9, (3, 5), (2, 5)))
    problem, net = fs.MatrixSensing(A, y), fs.LinearNetwork(5)
    for alpha, batches in ((0.1, None), (1e-9, None), (0.1, [[0, 3], [5]] * 100)):
        U, V = alpha * U0, alpha * V0
        traj = fs.gradient_descent(net, problem, 0.02, 200, alpha=alpha, start={"U": U0, "V": V0}, batches=batches)
        for rows in batches or [list(range(9))] * 200:
            G = np.tensordot(y[rows] - np.einsum("kij,ij->k", A[rows], U @ V.T), A[rows], 1) / len(rows)
            U, V = U + 0.02 * G @ V, V + 0.02 * G.T @ U
        np.testing.assert_allclose(traj.beta[-1], U @ V.T, rtol=1e-11)

    def field(Z: np.ndarray) -> np.ndarray:
        G = problem.gradient(Z[:3] @ Z[3:].T)
        return np.concatenate([G @ Z[3:], G.T @ Z[:3]])

    Z = np.concatenate([U0, V0])
    columns = [
        (field(Z + 1e-5 * unit) - field(Z - 1e-5 * unit)).ravel() / 2e-5 for unit in np.eye(25).reshape(-1, 5, 5)
    ]
    top = np.linalg.eigvalsh((np.array(columns) + np.array(columns).T) / 2)[-1]
    np.testing.assert_allclose(fs.sharpness(net, problem, {"U": U0, "V": V0}), top, rtol=1e-7)


def test_until_it_is_compiled_the_loop_is_interpreted_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(X := rng.standard_normal((12, 4)), X @ rng.standard_normal((4, 2)))
    for options in ({}, {"weight_decay": 0.1}, {"noise": fs.GaussianNoise(0.1)}):
        run = {"alpha": "1e-30", "expected": "noise" in options}
        net = fs.LinearNetwork(3, **options)
        right = fs.gradient_descent(net, problem, 0.1, 1500, **run)
        with monkeypatch.context() as patch:
            patch.setattr(frame_descent, "call_loop", lambda loop, _, *arguments: interpreted.call(loop, *arguments))
            plain = fs.gradient_descent(net, problem, 0.1, 1500, **run)
        assert np.abs(right.beta[-1]).max() > 0.1
        np.testing.assert_allclose(plain.beta, right.beta, rtol=1e-8, atol=1e-10)
    assert list(frame_descent.run_frame.overloads) == [frame_descent.run_frame.declared]


def test_a_loop_of_many_operations_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = compiled()(_counted)
    monkeypatch.setattr(
        type(fresh._cache), "is_filled", property(lambda cache: False)
    )  # a run before may have stored it
    monkeypatch.setattr(calls, "compile_ahead", lambda *_, **__: None)
    monkeypatch.setattr(calls, "ALLOWANCE", calls.Allowance(1.0))
    one, other = np.zeros(1), np.zeros(1)
    assert calls.call_loop(fresh, 10.0, one) == 3.0 and not fresh.overloads
    assert calls.call_loop(fresh, 1e12, other) == 3.0 and fresh.overloads
    assert one == other == 1.0


def _counted(x):
    x[0] += 1.0
    return 3.0
