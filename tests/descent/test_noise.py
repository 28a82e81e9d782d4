"""Mini-batches, label noise and stochastic SAM."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.descent import machine
from flowsim.descent.streams import Streams, child_seeds

SAM = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2))


def identical(a: fs.Trajectory, b: fs.Trajectory) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("t", "beta", "loss", "imbalance", "log_imbalance", "arclength")
    ) and all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


@pytest.mark.parametrize("net", [fs.DiagonalNetwork("u*v"), SAM], ids=["growth", "weights"])
def test_full_batches_are_gradient_descent_bit_for_bit(problem, net) -> None:
    full = fs.gradient_descent(net, problem, 0.02, 200, alpha=0.1, seed=3)
    batches = fs.gradient_descent(net, problem, 0.02, 200, alpha=0.1, seed=3, batch_size=problem.n)
    assert identical(full, batches)


NOISY = {
    "batches": (fs.DiagonalNetwork("u*v"), {"batch_size": 2}),
    "shuffled": (fs.DiagonalNetwork("u*v"), {"batch_size": 4, "shuffle": True}),
    "labels": (fs.DiagonalNetwork("u*v"), {"label_noise": 0.3}),
    "sam": (SAM, {}),
    "everything": (SAM, {"batch_size": 3, "label_noise": fs.RademacherNoise(0.1), "momentum": 0.5}),
}


@pytest.mark.parametrize("case", NOISY)
def test_the_same_seed_gives_the_same_run_however_the_draws_are_grouped(problem, case, monkeypatch) -> None:
    net, options = NOISY[case]

    def run(seed):
        return fs.gradient_descent(net, problem, 0.02, 150, alpha=0.1, seed=seed, record_every=4, **options)

    first, other = run(7), run(8)
    monkeypatch.setattr(machine, "_DRAWN_AHEAD", 40)  # a handful of steps at a time
    assert identical(first, run(7))
    assert not np.array_equal(first.beta, other.beta)
    assert first.info["seed"]["entropy"] == 7


@pytest.mark.parametrize(
    "noise", [fs.GaussianNoise(1.0), fs.UniformNoise(1.0), fs.RademacherNoise(1.0), fs.LaplaceNoise(1.0)]
)
def test_draws_in_blocks_are_the_draws_at_once(noise) -> None:
    def streams():
        return Streams([np.random.SeedSequence(1)], 5, 3, False, noise, noise, np.array([1.0, 2.0]), (2, 3))

    whole, parts = streams(), streams()
    for draw in ("rows", "labels", "weights"):
        at_once = getattr(whole, draw)(7)
        piecewise = np.concatenate([getattr(parts, draw)(steps).copy() for steps in (1, 4, 2)])
        np.testing.assert_array_equal(at_once, piecewise)


def test_a_run_without_a_seed_can_be_repeated_from_what_it_recorded(problem) -> None:
    first = fs.gradient_descent(SAM, problem, 0.02, 50, alpha=0.1)
    again = fs.gradient_descent(SAM, problem, 0.02, 50, alpha=0.1, seed=first.info["seed"]["entropy"])
    assert identical(first, again)


def test_child_seeds_are_those_that_spawn_gives_first() -> None:
    ours = child_seeds(np.random.SeedSequence(5), 3)
    theirs = np.random.SeedSequence(5).spawn(3)
    assert [list(a.generate_state(4)) for a in ours] == [list(b.generate_state(4)) for b in theirs]


def test_every_subset_of_rows_is_equally_likely() -> None:
    streams = Streams([np.random.SeedSequence(0)], 5, 2, False, None, None, np.zeros(2), (2, 3))
    rows = streams.rows(20_000)
    assert (rows[:, 0] != rows[:, 1]).all()
    counts = np.zeros((5, 5))
    np.add.at(counts, (rows.min(axis=1), rows.max(axis=1)), 1)
    pairs = counts[np.triu_indices(5, 1)]
    assert np.abs(pairs - 2000).max() < 5 * np.sqrt(2000)


def test_a_step_on_a_batch_uses_the_rows_of_that_batch_only(problem) -> None:
    traj = fs.gradient_descent(fs.DiagonalNetwork("u*v"), problem, 0.05, 40, alpha=0.3, batch_size=2, seed=11)
    rows = Streams([np.random.SeedSequence(11)], problem.n, 2, False, None, None, np.zeros(2), (2, problem.d)).rows(40)
    u, v = np.full(problem.d, np.sqrt(2) * 0.3), np.zeros(problem.d)
    for batch in rows:
        X, y = problem.X[batch], problem.y[batch]
        g = X.T @ (X @ (u * v) - y) / 2
        u, v = u - 0.05 * g * v, v - 0.05 * g * u
    np.testing.assert_allclose(traj.weights["u"][-1], u, rtol=1e-11)
    np.testing.assert_allclose(traj.weights["v"][-1], v, rtol=1e-11, atol=1e-14)
    assert traj.imbalance_drift < 1e-13  # the law holds with the gradient of the batch


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("kind", "multiplicative"),
    [
        pytest.param(kind, multiplicative, marks=[pytest.mark.slow] * (multiplicative == (kind is fs.RademacherNoise)))
        for kind in (fs.GaussianNoise, fs.RademacherNoise, fs.UniformNoise)
        for multiplicative in (False, True)
    ],
)
@pytest.mark.slow
def test_a_step_of_stochastic_sam_is_the_expected_step_on_average(problem, kind, multiplicative) -> None:
    """8000 single steps: E theta_1 = theta_0 - h * field(theta_0), within 5 standard errors in every weight."""
    net = fs.DiagonalNetwork(depth=3, noise=kind({"w1": 0.3, "w2": 0.1, "w3": 0.2}, multiplicative))
    rng = np.random.default_rng(2)
    start = dict(zip(net.weights, rng.standard_normal((3, problem.d)), strict=True))
    runs = fs.gradient_descents(net, problem, 0.1, 1, alpha=0.7, start=start, runs=8000, seed=5)
    expected = fs.gradient_descent(net, problem, 0.1, 1, alpha=0.7, start=start, expected=True)
    for name in net.weights:
        sample = runs.weights[name][:, -1]
        error = np.abs(sample.mean(axis=0) - expected.weights[name][-1])
        assert (error < 5 * sample.std(axis=0, ddof=1) / np.sqrt(len(sample)) + 1e-14).all()


def test_below_the_range_of_floats_additive_noise_takes_over_at_once(problem) -> None:
    tiny = fs.gradient_descent(SAM, problem, 0.02, 100, alpha="1e-1000", seed=1)
    small = fs.gradient_descent(SAM, problem, 0.02, 100, alpha="1e-250", seed=1)
    np.testing.assert_array_equal(tiny.beta[3:], small.beta[3:])


@pytest.mark.parametrize("size", [2, 4])
def test_shuffled_batches_pass_over_every_row_in_orders_of_their_own(size) -> None:
    streams = Streams([np.random.SeedSequence(0)], 6, size, True, None, None, np.zeros(2), (2, 3))
    rows = np.concatenate([streams.rows(steps).ravel() for steps in (1, 5, 2994)])
    passes = rows[: rows.size // 6 * 6].reshape(-1, 6)
    assert (np.sort(passes, axis=1) == np.arange(6)).all()
    # Any row is equally likely at any place, and after any other.
    counts = np.array([np.bincount(passes[:, place], minlength=6) for place in range(6)])
    assert np.abs(counts - len(passes) / 6).max() < 5 * np.sqrt(len(passes) / 6)
    followers = np.zeros((6, 6))
    np.add.at(followers, (passes[:-1, -1], passes[1:, 0]), 1)
    assert np.abs(followers - len(passes) / 36).max() < 5 * np.sqrt(len(passes) / 36)


def test_a_shuffled_pass_of_small_steps_is_nearer_to_the_full_gradient_than_drawn_batches(problem) -> None:
    """Over whole passes the noise of shuffled batches cancels to first order in h: what they are for."""
    net, h, n_steps = fs.DiagonalNetwork("u*v"), 0.002, 600
    full = fs.gradient_descent(net, problem, h, n_steps, alpha=0.5)
    apart = {
        shuffle: np.linalg.norm(
            fs.gradient_descents(net, problem, h, n_steps, alpha=0.5, batch_size=2, shuffle=shuffle, runs=10, seed=1)
            .beta[:, -1] - full.beta[-1], axis=1,
        ).mean()
        for shuffle in (False, True)
    }  # fmt: skip
    assert apart[True] < 0.3 * apart[False]


DISTRIBUTIONS = [fs.GaussianNoise, fs.UniformNoise, fs.RademacherNoise, fs.LaplaceNoise]


@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.5, True)])
def test_projected_sam_takes_the_steps_of_its_definition(problem, kind, multiplicative, momentum, nesterov) -> None:
    problem = fs.Regression(problem.X, 3 * problem.y)
    h, n_steps, radius = 0.02, 150, 1.85
    std = {"a": 0.2, "b": 0.1, "c": 0.3}
    net = fs.DiagonalNetwork("a*b*c", noise=kind(std, multiplicative))
    start = dict(zip(net.weights, np.random.default_rng(3).standard_normal((3, problem.d)), strict=True))
    traj = fs.gradient_descent(
        net, problem, h, n_steps, alpha=0.3, start=start, radius=radius, momentum=momentum, nesterov=nesterov, seed=6
    )
    noise = Streams(
        [np.random.SeedSequence(6)], problem.n, None, False, None, net.noise, np.array(list(std.values())),
        (3, problem.d),
    ).weights(n_steps)  # fmt: skip
    w = 0.3 * np.array(list(start.values()))
    before, touched = w.copy(), 0
    for k in range(n_steps):
        ahead = w + momentum * (w - before) if nesterov else w
        here = ahead * (1 + noise[k]) if multiplicative else ahead + noise[k]
        a, b, c = here
        slope = problem.gradient(a * b * c) * np.array([b * c, a * c, a * b])
        if multiplicative:
            slope *= 1 + noise[k]
        new = w - h * slope + momentum * (w - before)
        size = np.linalg.norm(new)
        touched += size > radius
        w, before = new * min(1.0, radius / size), w
        np.testing.assert_allclose([traj.weights[name][k + 1] for name in net.weights], w, atol=1e-11)
    assert 3 < touched < n_steps
    assert max(np.linalg.norm(list(state)) for state in zip(*traj.weights.values(), strict=True)) <= radius * (
        1 + 1e-14
    )


def test_projected_sam_of_a_linear_network_takes_the_steps_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    X, Y, h, radius = rng.standard_normal((8, 3)), 3 * rng.standard_normal((8, 2)), 0.05, 1.5
    net = fs.LinearNetwork(4, noise=fs.LaplaceNoise(0.1))
    start = {"U": rng.standard_normal((3, 4)), "V": rng.standard_normal((2, 4))}
    traj = fs.gradient_descent(
        net, fs.Regression(X, Y), h, 40, alpha=0.3, start=start, radius=radius, momentum=0.5, seed=2
    )
    noise = Streams([np.random.SeedSequence(2)], 8, None, False, None, net.noise, np.full(20, 0.1), (20,)).weights(40)
    U, V = 0.3 * start["U"], 0.3 * start["V"]
    old_u, old_v, touched = U, V, 0
    for k in range(40):
        W, Z = U + noise[k, :12].reshape(3, 4), V + noise[k, 12:].reshape(2, 4)
        G = X.T @ (X @ W @ Z.T - Y) / 8
        new_u, new_v = U - h * G @ Z + 0.5 * (U - old_u), V - h * G.T @ W + 0.5 * (V - old_v)
        size = np.hypot(np.linalg.norm(new_u), np.linalg.norm(new_v))
        touched += size > radius
        shrink = min(1.0, radius / size)
        (U, old_u), (V, old_v) = (shrink * new_u, U), (shrink * new_v, V)
    assert touched > 3
    np.testing.assert_allclose(traj.weights["U"][-1], U, atol=1e-12)
    np.testing.assert_allclose(traj.weights["V"][-1], V, atol=1e-12)


@pytest.mark.parametrize("loss", ["squared", "linear network", "general"])
def test_noise_on_labels_is_weighed_like_its_rows(loss: str) -> None:
    """One step moves the coefficients by ``X^T W (r - e)``: e is that of the step without weights."""
    rng = np.random.default_rng(5)
    X, y, w = rng.standard_normal((3, 3)), rng.standard_normal(3), np.array([0.3, 1.0, 2.5])
    start = {"u": np.ones(3), "v": np.zeros(3)}
    net: fs.DiagonalNetwork | fs.LinearNetwork = fs.DiagonalNetwork("tanh(v)*u" if loss == "general" else "u*v")
    if loss == "linear network":
        net, start = fs.LinearNetwork(3), {"U": np.zeros((3, 3)), "V": np.eye(3)[:1]}
    seen = []
    for weight in (np.ones(3), w):
        problem = fs.Regression(X, y, sample_weight=weight)
        step = fs.gradient_descent(net, problem, 1.0, 1, alpha=1.0, start=start, label_noise=0.5, seed=0).weights
        force = step["U"][-1][:, 0] if loss == "linear network" else step["v"][-1]
        seen.append(3 * np.linalg.solve(X.T * weight, force) - y)
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-12)
    assert np.abs(seen[0]).max() > 0.1
