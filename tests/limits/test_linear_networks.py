"""The limit process of two-layer linear networks against closed forms and against flows."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

import flowsim as fs

Array = NDArray[np.float64]


def random_problem(seed: int, n: int = 30, D: int = 5, m: int = 4) -> fs.Regression:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D)) * rng.uniform(0.5, 1.5, D)
    return fs.Regression(X, X @ rng.standard_normal((D, m)) + 0.3 * rng.standard_normal((n, m)))


def soft_thresholded(problem: fs.Regression, rank: int, threshold: float = 0.0) -> Array:
    """Reduced-rank regression by its formula, singular values shrunk."""
    X, n = problem.X, problem.n
    values, vectors = np.linalg.eigh(X.T @ X / n)
    keep = values > 1e-12 * values.max()
    inverse_root = (vectors[:, keep] / np.sqrt(values[keep])) @ vectors[:, keep].T
    A, s, Bt = np.linalg.svd(inverse_root @ X.T @ problem.y / n, full_matrices=False)
    return inverse_root @ (A[:, :rank] * np.maximum(s[:rank] - threshold, 0.0)) @ Bt[:rank]


@pytest.mark.parametrize(("D", "m", "n"), [(5, 4, 30), (2, 6, 30), (12, 3, 7)])
def test_saddles_are_reduced_rank_regressions_and_the_first_jump_is_one_over_the_largest_correlation(
    D: int, m: int, n: int
) -> None:
    problem = random_problem(0, n, D, m)
    path = fs.saddle_to_saddle(fs.LinearNetwork(D + m + 2), problem)
    assert path.complete
    assert path.ranks.tolist() == list(range(min(D, m, n) + 1))
    for rank, saddle in zip(path.ranks, path.saddles, strict=True):
        np.testing.assert_allclose(saddle, soft_thresholded(problem, rank), atol=1e-12)
    largest = np.linalg.norm(problem.X.T @ problem.y / n, 2)
    assert path.jump_times[0] == pytest.approx(1 / largest, rel=1e-13)
    np.testing.assert_allclose(path.end, np.linalg.lstsq(problem.X, problem.y, rcond=None)[0], atol=1e-12)
    np.testing.assert_allclose(path.losses, [problem.loss(saddle) for saddle in path.saddles], atol=1e-12)


def test_whitened_data_jump_at_one_over_each_correlation() -> None:
    rng = np.random.default_rng(1)
    X = np.linalg.qr(rng.standard_normal((20, 4)))[0] * np.sqrt(20)
    Y = rng.standard_normal((20, 3))
    path = fs.saddle_to_saddle(fs.LinearNetwork(9), fs.Regression(X, Y))
    np.testing.assert_allclose(path.jump_times, 1 / np.linalg.svd(X.T @ Y / 20, compute_uv=False), rtol=1e-12)
    assert path.stats["blocks"] > 1


def test_waits_follow_from_the_singular_values_at_each_saddle() -> None:
    problem = random_problem(2)
    path = fs.saddle_to_saddle(fs.LinearNetwork(9), problem)
    levels, time = np.zeros(4), 0.0
    for rank in range(4):
        G = problem.X.T @ (problem.y - problem.X @ path.saddles[rank]) / problem.n
        rates = np.linalg.svd(G, compute_uv=False)
        wait = (1 - levels[rank]) / rates[0]
        levels[rank:] += wait * rates[: 4 - rank]
        time += wait
        assert path.jump_times[rank] == pytest.approx(time, rel=1e-9)
        np.testing.assert_allclose(path.levels(path.jump_times[rank])[:4], levels, atol=1e-9)


def test_levels_start_at_0_come_in_pairs_and_reach_1_at_their_jump() -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(20), random_problem(3))
    assert not path.levels(0.0).any()
    levels = path.levels(np.linspace(0, 2 * path.jump_times[-1], 50))
    assert levels.shape == (50, 9)
    # The imbalance is conserved: directions and their mirror images (U, -V) have opposite levels.
    np.testing.assert_allclose(levels, -levels[:, ::-1], atol=1e-12)
    for rank, time in enumerate(path.jump_times, start=1):
        assert path.levels(time)[rank - 1] == 1.0
        assert path.levels(time * (1 - 1e-6))[rank - 1] < 1.0


def test_noise_soft_thresholds_the_singular_values() -> None:
    problem, eta = random_problem(4), 0.35
    path = fs.saddle_to_saddle(fs.LinearNetwork(9, noise=fs.GaussianNoise(eta)), problem)
    threshold = eta**2 * np.sqrt(4 * np.trace(problem.X.T @ problem.X) / problem.n)
    for rank, saddle in zip(path.ranks, path.saddles, strict=True):
        np.testing.assert_allclose(saddle, soft_thresholded(problem, rank, threshold), atol=1e-12)
    np.testing.assert_allclose(path.end, soft_thresholded(problem, 4, threshold), atol=1e-12)
    assert 1 <= path.ranks[-1] < 4
    np.testing.assert_allclose(path.levels(path.jump_times[-1] - 1e-9)[path.ranks[-1] - 1], 1.0, atol=1e-6)


def test_noise_that_outweighs_the_signal_leaves_the_network_at_0() -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(9, noise=fs.GaussianNoise(5.0)), random_problem(4))
    assert path.complete
    assert path.ranks.tolist() == [0]
    assert not path.end.any()


def test_a_narrow_network_ends_at_the_best_fit_of_its_rank() -> None:
    problem = random_problem(5)
    path = fs.saddle_to_saddle(fs.LinearNetwork(2), problem)
    assert path.complete
    assert "rank 2" in path.message
    np.testing.assert_allclose(path.end, soft_thresholded(problem, 2), atol=1e-12)
    wide = fs.saddle_to_saddle(fs.LinearNetwork(9), problem)
    np.testing.assert_allclose(path.jump_times, wide.jump_times[:2], rtol=1e-13)


def test_tied_directions_jump_together() -> None:
    X, Y = np.eye(3) * np.sqrt(3), np.diag([3.0, 2.0, 2.0])
    path = fs.saddle_to_saddle(fs.LinearNetwork(8), fs.Regression(X, Y))
    np.testing.assert_allclose(path.jump_times, np.sqrt(3) * np.array([1 / 3, 1 / 2]), rtol=1e-14)
    assert path.ranks.tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match="jump 1, 2 directions leave together; their relative sizes"):
        _ = path.orbits


def test_jumps_that_nearly_tie_say_at_which_scales_a_flow_tells_them_apart() -> None:
    """White data jump at 1/s: here 5e-7 apart, at a rate of 2 between them."""
    left, right = (np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0] for seed in (1, 2))
    values = np.array([2.0, 2.0 * (1 - 1e-6), 0.5])
    X = np.sqrt(3) * np.eye(3)
    path = fs.saddle_to_saddle(fs.LinearNetwork(3), fs.Regression(X, X @ (left * values) @ right.T))
    np.testing.assert_allclose(path.jump_times, 1 / values, rtol=1e-9)
    assert "the jumps at 0.5 and 0.5000005 nearly tie" in path.message
    assert "ln(1/alpha) is well above 1e+06" in path.message
    assert "nearly tie" not in fs.saddle_to_saddle(fs.LinearNetwork(3), random_problem(0)).message


@pytest.mark.sampled(2)
@pytest.mark.parametrize("eta", [0.0, 0.2])
def test_directions_that_leave_the_origin_together_do_so_in_the_shares_of_the_start(eta: float) -> None:
    problem = fs.Regression(np.eye(3) * np.sqrt(3), np.diag([2.0, 2.0, 1.0]))
    net = fs.LinearNetwork(8, noise=fs.GaussianNoise(eta) if eta else None)
    for seed in (0, 1):
        start = fs.linear_start(net, problem, seed=seed)
        path = fs.saddle_to_saddle(net, problem, start)
        assert path.ranks.tolist() == [0, 2, 3]
        flow = fs.gradient_flow(
            net, problem, 1.3 * path.jump_times[0], alpha="1e-100", start=start, clock="accelerated"
        )
        travelled = flow.arclength[-1] - flow.accelerated_time[-1]
        assert path.orbits[0].length == pytest.approx(travelled, rel=1e-4)
        assert path.orbits[0].length > 1.005 * np.linalg.norm(path.saddles[1])


@pytest.mark.parametrize("std", [{"U": 0.0, "V": 0.3}, pytest.param({"U": 0.3, "V": 0.0}, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_noise_on_one_factor_has_orbits_that_flows_approach(std: dict[str, float]) -> None:
    problem, net = random_problem(8, D=3, m=2), fs.LinearNetwork(5, noise=fs.GaussianNoise(std))
    path = fs.saddle_to_saddle(net, problem)
    for jump, orbit in enumerate(path.orbits):
        size = np.linalg.norm(path.saddles[jump + 1] - path.saddles[jump])
        assert size <= orbit.length < 3 * size
        departs = path.arclength(path.jump_times[jump]) - orbit.length
        np.testing.assert_allclose(path.curve(departs + orbit.length), path.saddles[jump + 1], atol=1e-8)
    gaps = []
    for alpha in ("1e-30", "1e-300"):
        flow = fs.gradient_flow(net, problem, 1.5 * path.jump_times[-1], alpha=alpha, clock="accelerated")
        chords = np.linalg.norm(np.diff(flow.beta, axis=0), axis=(1, 2)).sum()
        gaps.append(abs(chords / path.length - 1))
    # The pulled factor shrinks like a power of time: order 1/2 in 1/ln(1/alpha).
    assert gaps[1] < gaps[0] / 2
    assert gaps[1] < 0.01


@pytest.mark.sampled(5)
@pytest.mark.parametrize("kind", ["squares", "logistic", "escape", "blocks", "pretrained", "noise"])
def test_a_path_comes_back_from_its_file(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem, options = random_problem(14), {}
    net = fs.LinearNetwork(9, noise=fs.GaussianNoise(0.2) if kind == "noise" else None)
    if kind == "logistic":
        rng = np.random.default_rng(0)
        problem = fs.Problem(
            problem.X, np.where(rng.random((30, 4)) < 0.5, 1.0, -1.0), kind, sample_weight=np.arange(1, 31)
        )
    if kind == "escape":
        problem = fs.Problem(problem.X[:4], np.sign(problem.y[:4, 0]), "logistic")
    if kind == "blocks":
        problem = fs.Regression(np.eye(3) * np.sqrt(3), np.diag([2.0, 2.0, 1.0]))
    if kind == "pretrained":
        options["pretrained"] = {"U": np.eye(5, 9), "V": 0.3 * np.eye(4, 9)[::-1]}
        options["pretrained"]["U"][:, 1:] = options["pretrained"]["V"][:, 1:] = 0
        options["pretrained"]["V"][:, 0] = [0.3, -0.2, 0.1, 0.4]
    path = fs.saddle_to_saddle(net, problem, **options)
    again = fs.load(path.save(tmp_path / "path.nc"))
    assert type(again) is type(path)
    assert (again.message, again.complete, again.width, again.stats) == (
        path.message,
        path.complete,
        path.width,
        path.stats,
    )
    np.testing.assert_array_equal(again.saddles, path.saddles)
    np.testing.assert_array_equal(again.losses, path.losses)
    if len(path.jump_times):
        np.testing.assert_array_equal(again.levels(0.9 * path.jump_times), path.levels(0.9 * path.jump_times))
        assert again.orbits[0].length == path.orbits[0].length
    if path.escape is not None:
        np.testing.assert_array_equal(again.escape.direction, path.escape.direction)
        assert (again.escape.time, again.escape.margin) == (path.escape.time, path.escape.margin)


def test_classes_of_equal_size_tie_in_fit_but_not_in_time() -> None:
    rng = np.random.default_rng(6)
    problem = fs.Regression(rng.standard_normal((6, 9)), np.repeat(np.eye(3), 2, axis=0))
    path = fs.saddle_to_saddle(fs.LinearNetwork(12), problem)
    assert path.ranks.tolist() == [0, 1, 2, 3]
    # Every saddle is stationary among fits of its rank, though the fits of rank 1 and 2 are not unique.
    np.testing.assert_allclose(path.losses, [1 / 2, 1 / 3, 1 / 6, 0], atol=1e-12)
    for saddle in path.saddles:
        G = problem.X.T @ (problem.y - problem.X @ saddle)
        np.testing.assert_allclose(G.T @ saddle, 0.0, atol=1e-9)
        np.testing.assert_allclose(G @ saddle.T, 0.0, atol=1e-9)


def test_data_that_decouple_are_learned_part_by_part() -> None:
    """Feature 1 is louder, so it is learned first, though feature 0 explains more of Y."""
    X, Y = np.diag([1.0, 2.0]) * np.sqrt(2), np.diag([1.0, 0.75]) * np.sqrt(2)
    path = fs.saddle_to_saddle(fs.LinearNetwork(5), fs.Regression(X, Y))
    np.testing.assert_allclose(path.jump_times, [1 / 1.5, 1.0], rtol=1e-14)
    np.testing.assert_allclose(path.saddles[1], np.diag([0.0, 0.375]), atol=1e-14)
    np.testing.assert_allclose(path.end, np.diag([1.0, 0.375]), atol=1e-14)
    narrow = fs.saddle_to_saddle(fs.LinearNetwork(1), fs.Regression(X, Y))
    assert not narrow.complete
    assert "decouples exactly" in narrow.message


def test_a_rotated_block_structure_is_found() -> None:
    rng = np.random.default_rng(7)
    X, Y = np.zeros((8, 4)), np.zeros((8, 4))
    X[:4], Y[:2, :2], Y[2:4, 2:] = (
        np.diag([2.0, 1.5, 1.0, 0.7]),
        rng.standard_normal((2, 2)),
        rng.standard_normal((2, 2)),
    )
    plain = fs.saddle_to_saddle(fs.LinearNetwork(8), fs.Regression(X, Y))
    turns = [np.linalg.qr(rng.standard_normal((size, size)))[0] for size in (8, 4, 4)]
    turned = fs.saddle_to_saddle(fs.LinearNetwork(8), fs.Regression(turns[0] @ X @ turns[1], turns[0] @ Y @ turns[2]))
    assert plain.stats["blocks"] == turned.stats["blocks"] == 2
    np.testing.assert_allclose(turned.jump_times, plain.jump_times, rtol=1e-10)
    np.testing.assert_allclose(turned.saddles, turns[1].T @ plain.saddles @ turns[2], atol=1e-12)


def test_orbits_join_the_saddles() -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(9), random_problem(8))
    for jump, orbit in enumerate(path.orbits):
        assert orbit.length >= np.linalg.norm(path.saddles[jump + 1] - path.saddles[jump]) * (1 - 1e-9)
        departs = path.arclength(path.jump_times[jump]) - orbit.length
        np.testing.assert_allclose(path.curve(departs), path.saddles[jump], atol=1e-8)
        np.testing.assert_allclose(path.curve(departs + orbit.length), path.saddles[jump + 1], atol=1e-8)
    assert path.length == pytest.approx(sum(orbit.length for orbit in path.orbits))
    fine = path.curve(np.linspace(0, path.arclength(path.jump_times[-1]), 4000))
    travelled = np.linalg.norm(np.diff(fine, axis=0), axis=(1, 2)).sum()
    assert travelled == pytest.approx(path.length, rel=1e-3)


def test_the_time_average_is_the_average_of_the_staircase() -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(9), random_problem(9))
    t = 1.3 * path.jump_times[-1]
    edges = np.concatenate([[0.0], path.jump_times, [t]])
    expected = np.einsum("k,kij->ij", np.diff(edges) / t, path.saddles)
    np.testing.assert_allclose(path.time_average(t), expected, atol=1e-13)
    np.testing.assert_allclose(path.time_average([0.0, np.inf])[1], path.end)
    np.testing.assert_array_equal(path.beta([0.0, t])[1], path.end)


@pytest.mark.parametrize("kind", ["gaussian", "balanced", "unbalanced"])
def test_a_start_in_general_position_matters_in_lower_order_only(kind: str) -> None:
    problem = random_problem(10)
    net = fs.LinearNetwork(9)
    path = fs.saddle_to_saddle(net, problem, fs.linear_start(net, problem, kind))
    np.testing.assert_allclose(path.jump_times, fs.saddle_to_saddle(net, problem).jump_times, rtol=1e-12)


def test_one_factor_zero_and_factors_of_different_scale_have_the_same_limit() -> None:
    problem, net = random_problem(11), fs.LinearNetwork(9)
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((5, 9)), rng.standard_normal((4, 9))
    expected = fs.saddle_to_saddle(net, problem).jump_times
    for start in ({"U": U, "V": 0 * V}, {"U": 0 * U, "V": V}, {"U": U, "V": 1e-9 * V}, {"U": 1e-200 * U, "V": V}):
        np.testing.assert_allclose(fs.saddle_to_saddle(net, problem, start).jump_times, expected, rtol=1e-12)


def test_an_early_stop_knows_how_far_it_goes() -> None:
    problem, net = random_problem(12), fs.LinearNetwork(9)
    whole = fs.saddle_to_saddle(net, problem)
    path = fs.saddle_to_saddle(net, problem, max_jumps=2)
    assert not path.complete
    assert path.horizon == pytest.approx(whole.jump_times[2])
    assert "max_jumps=2" in path.message
    with pytest.raises(ValueError, match="has not reached its end"):
        _ = path.end
    timed = fs.saddle_to_saddle(net, problem, t_end=float(whole.jump_times[1:3].mean()))
    np.testing.assert_allclose(timed.jump_times, whole.jump_times[:2])
    with pytest.raises(ValueError, match="`t` must be below"):
        timed.beta(timed.horizon)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    problem, net = random_problem(13), fs.LinearNetwork(9)
    with pytest.raises(ValueError, match="`exact` is for a DiagonalNetwork"):
        fs.saddle_to_saddle(net, problem, exact=True)
    with pytest.raises(ValueError, match="must have shape"):
        fs.saddle_to_saddle(net, problem, {"U": np.ones((2, 9)), "V": np.ones((4, 9))})
    with pytest.raises(ValueError, match="zero everywhere"):
        fs.saddle_to_saddle(net, problem, {"U": np.zeros((5, 9)), "V": np.zeros((4, 9))})
    left, _, right = np.linalg.svd(problem.X.T @ problem.y)
    orthogonal = {"U": left[:, :1] @ np.ones((1, 9)), "V": -right[:1].T @ np.ones((1, 9))}
    with pytest.raises(ValueError, match="general position"):
        fs.saddle_to_saddle(net, problem, orthogonal)


def test_data_that_decouple_say_where_the_least_coupling_would_decide() -> None:
    delicate = fs.saddle_to_saddle(fs.LinearNetwork(5), fs.Regression(np.diag([1.0, 2.0]), np.diag([1.0, 0.75])))
    assert "any coupling, however small, would change the jump times" in delicate.message
    white = fs.saddle_to_saddle(fs.LinearNetwork(5), fs.Regression(np.eye(3), np.diag([3.0, 2.0, 1.0])))
    assert white.message == "reached the minimiser"


def test_a_path_shows_itself_and_travels() -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(9), random_problem(14))
    frame = path.to_dataframe()
    assert list(frame["rank"]) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(frame["s1"].iloc[-1], np.linalg.norm(path.end, 2))
    assert "rank at the end" in path._repr_html_()
    again = pickle.loads(pickle.dumps(path))
    np.testing.assert_array_equal(again.end, path.end)
    assert repr(path) == "LinearSaddlePath(4 jumps, reached the minimiser)"


def nuclear_optimality(problem: fs.Regression, beta: Array, penalty: float) -> float:
    """How far X^T (Y - X beta) / n is from penalty times a subgradient of the nuclear norm."""
    G = problem.X.T @ (problem.y - problem.X @ beta) / problem.n
    left, values, right = np.linalg.svd(beta, full_matrices=False)
    rank = int((values > 1e-10).sum())
    left, right = left[:, :rank], right[:rank]
    rest = G - penalty * left @ right
    return float(max(np.abs(left.T @ rest).max(), np.abs(rest @ right.T).max(), np.linalg.norm(rest, 2) - penalty))


def test_weight_decay_ends_at_the_least_nuclear_norm() -> None:
    problem = random_problem(15)
    path = fs.saddle_to_saddle(fs.LinearNetwork(9, weight_decay=0.2), problem)
    assert path.complete
    assert 1 <= path.ranks[-1] <= 4
    assert nuclear_optimality(problem, path.end, 0.2) < 1e-12
    # The first direction grows at sigma_1 - lambda.
    assert path.jump_times[0] == pytest.approx(1 / (np.linalg.norm(problem.X.T @ problem.y / 30, 2) - 0.2), rel=1e-12)
    for jump, orbit in enumerate(path.orbits):
        assert orbit.length >= np.linalg.norm(path.saddles[jump + 1] - path.saddles[jump]) * (1 - 1e-9)


def test_weight_decay_on_white_data_soft_thresholds() -> None:
    rng = np.random.default_rng(16)
    X = np.linalg.qr(rng.standard_normal((20, 4)))[0] * np.sqrt(20)
    problem = fs.Regression(X, 2 * rng.standard_normal((20, 3)))
    path = fs.saddle_to_saddle(fs.LinearNetwork(9, weight_decay=0.1), problem)
    left, values, right = np.linalg.svd(X.T @ problem.y / 20, full_matrices=False)
    np.testing.assert_allclose(path.end, (left * np.maximum(values - 0.1, 0)) @ right, atol=1e-12)
    np.testing.assert_allclose(path.jump_times, 1 / (values[values > 0.1] - 0.1), rtol=1e-10)


def test_weight_decay_beside_noise_is_a_minimum_of_both_penalties() -> None:
    problem, eta, decay = random_problem(17), 0.15, 0.1
    path = fs.saddle_to_saddle(fs.LinearNetwork(9, noise=fs.GaussianNoise(eta), weight_decay=decay), problem)
    Sigma = problem.X.T @ problem.X / problem.n
    a = eta**2 * 4 * Sigma + decay * np.eye(5)
    b = eta**2 * np.trace(Sigma) + decay
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values)) @ vectors.T
    # In M = a^(1/2) beta the penalty is sqrt(b) times the nuclear norm.
    scaled = fs.Regression(problem.X @ np.linalg.inv(root), problem.y)
    assert nuclear_optimality(scaled, root @ path.end, float(np.sqrt(b))) < 1e-11


def test_the_risk_on_other_data_tells_where_to_stop() -> None:
    rng = np.random.default_rng(18)
    X, truth = rng.standard_normal((40, 6)), np.outer(rng.standard_normal(6), rng.standard_normal(4))
    train, test = (
        fs.Regression(X[rows], X[rows] @ truth + rng.standard_normal((20, 4))) for rows in (slice(20), slice(20, 40))
    )
    path = fs.saddle_to_saddle(fs.LinearNetwork(12), train)
    risk = path.risk(test)
    np.testing.assert_allclose(risk, [test.loss(saddle) for saddle in path.saddles])
    assert path.stop(test).plateau == np.argmin(risk) == 1
    vector = fs.Regression(X, X @ truth[:, 0])
    single = fs.saddle_to_saddle(fs.LinearNetwork(3), vector)
    np.testing.assert_allclose(single.risk(vector), single.losses, atol=1e-12)
