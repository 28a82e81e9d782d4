"""Two-layer linear networks: the recursion against its definition, compression, the law of the imbalance."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.descent import linear
from flowsim.solvers.matrices import interpreted

RNG = np.random.default_rng(4)
X = RNG.standard_normal((7, 4))
Y = X @ RNG.standard_normal((4, 3))
PROBLEM = fs.Regression(X, Y)


def by_hand(U, V, h, n_steps, momentum=0.0, nesterov=False, eta_u2=0.0, eta_v2=0.0):
    n = len(X)
    dU, dV = np.zeros_like(U), np.zeros_like(V)
    for _ in range(n_steps):
        W, Z = (U + momentum * dU, V + momentum * dV) if nesterov else (U, V)
        G = X.T @ (X @ W @ Z.T - Y) / n
        gU = G @ Z + eta_v2 * 3 * (X.T @ X / n) @ W
        gV = G.T @ W + eta_u2 * np.trace(X.T @ X / n) * Z
        dU, dV = momentum * dU - h * gU, momentum * dV - h * gV
        U, V = U + dU, V + dV
    return U, V


@pytest.mark.parametrize("width", [2, 20])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.5, True)])
def test_the_steps_are_those_of_the_definition_at_any_width(width, momentum, nesterov) -> None:
    start = {"U": RNG.standard_normal((4, width)), "V": RNG.standard_normal((3, width))}
    traj = fs.gradient_descent(
        fs.LinearNetwork(width), PROBLEM, 0.02, 150, alpha=0.3, start=start, momentum=momentum, nesterov=nesterov
    )
    U, V = by_hand(0.3 * start["U"], 0.3 * start["V"], 0.02, 150, momentum, nesterov)
    np.testing.assert_allclose(traj.weights["U"][-1], U, atol=1e-11)
    np.testing.assert_allclose(traj.weights["V"][-1], V, atol=1e-11)
    np.testing.assert_allclose(traj.beta[-1], U @ V.T, atol=1e-11)
    np.testing.assert_allclose(traj.loss, PROBLEM.loss(traj.beta), rtol=1e-12)
    assert traj.beta.shape == (151, 4, 3)
    assert traj.imbalance.shape == (151, min(width, 7), min(width, 7))


def test_the_imbalance_gains_h2_times_what_the_exact_law_says() -> None:
    h = 0.05
    start = {"U": RNG.standard_normal((4, 5)), "V": RNG.standard_normal((3, 5))}
    traj = fs.gradient_descent(fs.LinearNetwork(5), PROBLEM, h, 60, alpha=0.5, start=start)
    U, V = traj.weights["U"], traj.weights["V"]
    for k in range(60):
        G = X.T @ (Y - X @ U[k] @ V[k].T) / len(X)
        law = traj.imbalance[k] + h**2 * (V[k].T @ G.T @ G @ V[k] - U[k].T @ G @ G.T @ U[k])
        np.testing.assert_allclose(traj.imbalance[k + 1], law, atol=1e-13)
    assert traj.imbalance_drift < 1e-13
    assert np.linalg.norm(traj.imbalance[-1] - traj.imbalance[0]) > 1e-3


def test_descent_follows_the_flow_to_first_order() -> None:
    net = fs.LinearNetwork(30)
    flow = fs.gradient_flow(net, PROBLEM, 4.0, alpha=0.2, rtol=1e-9)
    descents = [fs.gradient_descent(net, PROBLEM, h, round(4.0 / h), alpha=0.2) for h in (0.02, 0.01, 0.005)]
    assert fs.compare(flow, descents).order == pytest.approx(1.0, abs=0.1)


def test_the_expected_gradient_of_weight_noise_decays_the_weights() -> None:
    start = {"U": RNG.standard_normal((4, 20)), "V": RNG.standard_normal((3, 20))}
    net = fs.LinearNetwork(20, noise=fs.GaussianNoise({"U": 0.2, "V": 0.1}))
    traj = fs.gradient_descent(net, PROBLEM, 0.02, 80, alpha=0.3, start=start, expected=True)
    U, V = by_hand(0.3 * start["U"], 0.3 * start["V"], 0.02, 80, eta_u2=0.04, eta_v2=0.01)
    np.testing.assert_allclose(traj.beta[-1], U @ V.T, atol=1e-11)


@pytest.mark.parametrize(
    "noise", [fs.GaussianNoise({"U": 0.3, "V": 0.1}), pytest.param(fs.RademacherNoise(0.2), marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_drawn_step_is_the_expected_step_on_average(noise) -> None:
    start = {"U": RNG.standard_normal((4, 6)), "V": RNG.standard_normal((3, 6))}
    net = fs.LinearNetwork(6, noise=noise)
    runs = fs.gradient_descents(net, PROBLEM, 0.1, 1, alpha=0.5, start=start, runs=4000, seed=1)
    mean = fs.gradient_descent(net, PROBLEM, 0.1, 1, alpha=0.5, start=start, expected=True)
    for name in ("U", "V"):
        sample = runs.weights[name][:, -1]
        error = np.abs(sample.mean(axis=0) - mean.weights[name][-1])
        assert (error < 5 * sample.std(axis=0, ddof=1) / np.sqrt(len(sample))).all()


def test_full_batches_are_gradient_descent_and_batches_are_repeatable() -> None:
    net = fs.LinearNetwork(9)
    full = fs.gradient_descent(net, PROBLEM, 0.02, 50, alpha=0.3, seed=1)
    same = fs.gradient_descent(net, PROBLEM, 0.02, 50, alpha=0.3, seed=1, batch_size=7)
    np.testing.assert_array_equal(full.beta, same.beta)
    options = {"batch_size": 3, "label_noise": 0.1, "alpha": 0.3, "seed": 2}
    one, two = (fs.gradient_descent(net, PROBLEM, 0.02, 50, **options) for _ in range(2))
    np.testing.assert_array_equal(one.beta, two.beta)
    assert one.imbalance_drift < 1e-12  # the law holds with the gradient of the batch


def test_a_single_target_is_a_matrix_of_one_column_as_in_the_flow(tmp_path) -> None:
    problem = fs.Regression(X, Y[:, 0])
    net = fs.LinearNetwork(9)
    descent = fs.gradient_descent(net, problem, 0.01, 100, alpha=0.3)
    flow = fs.gradient_flow(net, problem, 1.0, alpha=0.3, rtol=1e-9)
    assert descent.beta.shape == (101, 4, 1)
    assert fs.compare(flow, descent).largest < 0.05
    stored = fs.load(descent.save(tmp_path / "linear.nc"))
    np.testing.assert_array_equal(stored.beta, descent.beta)


def test_divergence_and_cancelled_imbalances_are_errors() -> None:
    net = fs.LinearNetwork(9)
    with pytest.raises(fs.IntegrationError, match="diverged") as caught:
        fs.gradient_descent(net, PROBLEM, 5.0, 100, alpha=0.3)
    assert np.isfinite(caught.value.trajectory.loss).all()
    with pytest.raises(fs.IntegrationError, match="lost to cancellation"):
        fs.gradient_descent(net, PROBLEM, 0.05, 3000, alpha=1e-10, record_every=100, coordinates="weights")
    with pytest.raises(ValueError, match="below the range of floats"):
        fs.gradient_descent(net, PROBLEM, 0.05, 10, alpha="1e-400", batch_size=2)
    assert fs.gradient_descent(net, PROBLEM, 0.05, 3000, alpha=1e-10, record_every=100).info["coordinates"] == "frame"
    with pytest.raises(ValueError, match="cannot be 'growth'"):
        fs.gradient_descent(net, PROBLEM, 0.05, 10, alpha=0.1, coordinates="growth")


def test_step_sizes_given_one_by_one_hold_at_tiny_scales_too() -> None:
    problem, net = fs.datasets.sparse_regression(10, 4, 2), fs.LinearNetwork(6)
    given = fs.gradient_descent(net, problem, np.full(200, 0.05), 200, alpha="1e-20")
    plain = fs.gradient_descent(net, problem, 0.05, 200, alpha="1e-20")
    np.testing.assert_array_equal(given.beta[-1], plain.beta[-1])


def test_the_expected_noise_of_a_batch_is_that_of_its_own_rows() -> None:
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((6, 3)) * np.arange(1, 7)[:, None], rng.standard_normal((6, 2))
    U, V, eta, h = rng.standard_normal((3, 4)), rng.standard_normal((2, 4)), 0.2, 0.003
    rows = [[0, 3], [5, 1], [4, 4], [2, 0]]
    run = fs.gradient_descent(
        fs.LinearNetwork(4, noise=fs.GaussianNoise(eta)), fs.Regression(X, Y), h, 4, alpha=1.0,
        start={"U": U, "V": V}, batches=rows, expected=True,
    )  # fmt: skip
    for batch in rows:
        x, n = X[batch], len(batch)
        sigma, G = x.T @ x / n, x.T @ (Y[batch] - x @ U @ V.T) / n
        pulled = G @ V - eta**2 * 2 * sigma @ U, G.T @ U - eta**2 * np.trace(sigma) * V
        U, V = U + h * pulled[0], V + h * pulled[1]
    np.testing.assert_allclose(run.beta[-1], U @ V.T, rtol=1e-13)


def test_noise_on_labels_is_that_of_any_loss() -> None:
    """Squares written as a loss of one's own take the same draws."""
    own = fs.Problem(X, Y, fs.losses.from_formula("(f - y)**2/2"))
    runs = [
        fs.gradient_descent(fs.LinearNetwork(5), each, 0.02, 50, alpha=0.3, label_noise=1.0, batch_size=3, seed=1).beta
        for each in (PROBLEM, own)
    ]
    np.testing.assert_allclose(runs[1], runs[0], atol=1e-12)
    calm = fs.gradient_descent(fs.LinearNetwork(5), own, 0.02, 50, alpha=0.3, batch_size=3, seed=1).beta
    assert np.abs(runs[1] - calm).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.5, "nesterov": True},
        {"batch_size": 3, "label_noise": 0.1},
        {"radius": 1.0},
        {"noise": fs.GaussianNoise(0.1, multiplicative=True)},
        {"noise": fs.GaussianNoise(0.1), "expected": True, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_until_it_is_compiled_the_loop_is_interpreted_with_the_same_result(options, monkeypatch) -> None:
    own = {name: options[name] for name in ("noise", "weight_decay") if name in options}
    run = {name: value for name, value in options.items() if name not in own} | {"seed": 1, "alpha": 0.3}
    right = fs.gradient_descent(fs.LinearNetwork(4, **own), PROBLEM, 0.02, 60, **run)
    monkeypatch.setattr(linear, "call_loop", lambda loop, _, *arguments: interpreted.call(loop, *arguments))
    plain = fs.gradient_descent(fs.LinearNetwork(4, **own), PROBLEM, 0.02, 60, **run)
    np.testing.assert_allclose(plain.beta, right.beta, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(plain.arclength, right.arclength, rtol=1e-10)
    assert list(linear.run_linear.overloads) == [linear.run_linear.declared]
