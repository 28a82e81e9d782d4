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
        return Streams([np.random.SeedSequence(1)], 5, 3, noise, noise, np.array([1.0, 2.0]), (2, 3))

    whole, parts = streams(), streams()
    for draw in ("rows", "labels", "weights"):
        at_once = getattr(whole, draw)(7)
        piecewise = np.concatenate([getattr(parts, draw)(steps) for steps in (1, 4, 2)])
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
    streams = Streams([np.random.SeedSequence(0)], 5, 2, None, None, np.zeros(2), (2, 3))
    rows = streams.rows(20_000)
    assert (rows[:, 0] != rows[:, 1]).all()
    counts = np.zeros((5, 5))
    np.add.at(counts, (rows.min(axis=1), rows.max(axis=1)), 1)
    pairs = counts[np.triu_indices(5, 1)]
    assert np.abs(pairs - 2000).max() < 5 * np.sqrt(2000)


def test_a_step_on_a_batch_uses_the_rows_of_that_batch_only(problem) -> None:
    traj = fs.gradient_descent(fs.DiagonalNetwork("u*v"), problem, 0.05, 40, alpha=0.3, batch_size=2, seed=11)
    rows = Streams([np.random.SeedSequence(11)], problem.n, 2, None, None, np.zeros(2), (2, problem.d)).rows(40)
    u, v = np.full(problem.d, np.sqrt(2) * 0.3), np.zeros(problem.d)
    for batch in rows:
        X, y = problem.X[batch], problem.y[batch]
        g = X.T @ (X @ (u * v) - y) / 2
        u, v = u - 0.05 * g * v, v - 0.05 * g * u
    np.testing.assert_allclose(traj.weights["u"][-1], u, rtol=1e-11)
    np.testing.assert_allclose(traj.weights["v"][-1], v, rtol=1e-11, atol=1e-14)
    assert traj.imbalance_drift < 1e-13  # the law holds with the gradient of the batch


@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("kind", [fs.GaussianNoise, fs.RademacherNoise, fs.UniformNoise])
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
