"""Products of three weights and more that noise or decay shrinks while a tiny start waits."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

import flowsim as fs

X, Y = 2.0, 3.0


def network(kind: str, depth: int, alpha: str, c: float) -> tuple[fs.DiagonalNetwork, mp.mpf, mp.mpf]:
    """The network of the joint limit, its noise and its decay."""
    scale = mp.mpf(alpha)
    if kind == "noise":
        eta = float(c * scale ** (mp.mpf(depth - 2) / (2 * (depth - 1))))
        return fs.DiagonalNetwork(depth=depth, noise=fs.GaussianNoise(eta)), mp.mpf(eta), mp.mpf(0)
    decay = float(c * scale ** (depth - 2))
    return fs.DiagonalNetwork(depth=depth, weight_decay=decay), mp.mpf(0), mp.mpf(decay)


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    ("kind", "depth", "alpha"),
    [
        *(("noise", depth, alpha) for depth in (3, 4, 5) for alpha in ("1e-16", "1e-30", "1e-100", "1e-300")),
        *(("decay", 3, alpha) for alpha in ("1e-16", "1e-200", "1e-300")),
        *(("decay", depth, alpha) for depth in (4, 5) for alpha in ("1e-16", "1e-60")),
    ],
)
def test_one_feature_is_learned_when_the_integral_over_its_weight_says(kind: str, depth: int, alpha: str) -> None:
    """dt = dw / w', in 40 digits from the balanced start to half the coefficient."""
    c = 0.4 if kind == "noise" else 0.3
    net, eta, decay = network(kind, depth, alpha, c)
    with mp.workdps(40):

        def rate(x: mp.mpf) -> mp.mpf:
            w = mp.e**x
            noise = X**2 * ((w * w + eta * eta) ** (depth - 1) - w ** (2 * (depth - 1)))
            return X * (Y - X * w**depth) * w ** (depth - 2) - noise - decay

        low, high = mp.log(mp.mpf(alpha)), mp.log(mp.mpf(Y) / X / 2) / depth
        places = [low, low + 1, low + 3, low + 8, low + 20, high - 12, high - 5, high - 1, high]
        exact = mp.quad(lambda x: 1 / rate(x), places) * mp.mpf(alpha) ** (depth - 2)
    half = fs.events.Event(lambda t, state: state.beta[:, 0] - Y / X / 2)
    problem = fs.Regression([[X]], [Y])
    traj = fs.gradient_flow(net, problem, 4.0, alpha=alpha, clock="accelerated", events=half)
    assert traj.info["coordinates"] == "log"
    assert traj.events.accelerated_time.tolist() == pytest.approx([float(exact)], rel=1e-10)
    assert traj.beta[-1, 0] == pytest.approx(Y / X, abs=1e-9)


def random_problem(seed: int, depth: int) -> tuple[fs.Regression, dict[str, np.ndarray] | None]:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 14)), int(rng.integers(2, 9))
    X = rng.standard_normal((n, d)) if seed % 2 else rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal((n, d))
    y = rng.standard_normal(n) + X @ (rng.standard_normal(d) * (rng.random(d) < 0.5))
    start = None
    if seed % 3 == 1:
        start = {f"w{k + 1}": rng.standard_normal(d) for k in range(depth)}
    elif seed % 3 == 2:
        start = {f"w{k + 1}": rng.choice([1.0, 0.5, -1.0], d) for k in range(depth)}
    return fs.Regression(X, y), start


def worst_distance(traj: fs.Trajectory, jumps: np.ndarray, saddles: np.ndarray, end: float) -> float:
    """From the saddles, in the middle of plateaus and just before and after every jump."""
    edges = np.concatenate([[0.0], jumps, [end]])
    worst = 0.0
    for begin, stop, saddle in zip(edges[:-1], edges[1:], saddles, strict=True):
        if stop - begin > 1e-3 * stop:
            places = np.array([begin * (1 + 1e-4), (begin + stop) / 2, stop * (1 - 1e-4)])
            worst = max(worst, float(np.abs(traj.at(places, "accelerated").beta - saddle).max()))
    return worst


@pytest.mark.sampled(5)
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_flows_with_noise_follow_the_joint_limit(depth: int, seed: int) -> None:
    problem, start = random_problem(seed, depth)
    c = (0.2, 0.4, 0.7)[seed % 3]
    alpha = ("1e-30", "1e-100", "1e-200", "1e-300")[seed % 4]
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=depth), problem, start, joint_noise=c)
    end = 1.5 * float(path.jump_times.max(initial=2.0))
    net = network("noise", depth, alpha, c)[0]
    traj = fs.gradient_flow(net, problem, end, alpha=alpha, start=start, clock="accelerated")
    assert worst_distance(traj, path.jump_times, path.saddles, end) < 1e-6


@pytest.mark.sampled(5)
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_flows_with_decay_follow_the_limit_without_it_in_another_time(depth: int, seed: int) -> None:
    """s = (1 - exp(-(L - 2) k t)) / ((L - 2) k) is the time of the flow without decay; what comes later never does."""
    problem, start = random_problem(seed, depth)
    c = (0.01, 0.1, 0.3)[seed % 3]
    alpha = ("1e-16", "1e-30", "1e-50", "1e-90")[seed % 4]
    free = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=depth), problem, start)
    rate = (depth - 2) * c
    known = free.jump_times[free.jump_times < 1 / rate]
    jumps = -np.log1p(-rate * known) / rate
    end = 1.5 * float(jumps.max(initial=2.0))
    net = network("decay", depth, alpha, c)[0]
    traj = fs.gradient_flow(net, problem, end, alpha=alpha, start=start, clock="accelerated")
    assert worst_distance(traj, jumps, free.saddles[: len(jumps) + 1], end) < 1e-6


@pytest.mark.parametrize("signs", [(1.0, 1.0, 1.0), (1.0, -0.5, 0.8)])
def test_weights_that_wait_shrink_and_forget_their_imbalance(signs: tuple[float, ...]) -> None:
    """ln |w| falls by k t where nothing pulls, ln |w_l^2 - w_m^2| by twice that, whatever the accelerated time."""
    c, alpha = 0.3, "1e-200"
    net, _, _ = network("decay", 3, alpha, c)
    start = {f"w{k + 1}": [sign, sign] for k, sign in enumerate(signs)}
    traj = fs.gradient_flow(
        net, fs.Regression(np.eye(2), [3.0, 0.0]), 50.0, alpha=alpha, start=start, clock="accelerated"
    )
    times = np.linspace(0.0, 50.0, 21)
    seen = traj.at(times, "accelerated")
    for k, sign in enumerate(signs):
        exact = math.log(abs(sign)) - 200 * math.log(10) - c * times
        np.testing.assert_allclose(seen.log_abs_weights[f"w{k + 1}"][:, 1], exact, rtol=1e-9)
    if signs[1] != 1.0:
        exact = math.log(0.75) - 400 * math.log(10) - 2 * c * times
        np.testing.assert_allclose(seen.log_imbalance[:, 0, 1], exact, rtol=1e-9)
    assert seen.beta[-1] == pytest.approx([3.0, 0.0], abs=1e-9)


def test_what_can_no_longer_grow_is_trapped_at_any_alpha() -> None:
    """(L - 2) k t+ >= |g|: |g| = 3, t+ = 1, sigma^2 = 4, k = 4 c^4."""
    edge = (3.0 / 4.0) ** 0.25
    problem = fs.Regression([[2.0]], [1.5])
    for alpha in ("1e-30", "1e-400", "1e-1000"):
        ends = []
        for c in (0.99 * edge, 1.01 * edge):
            eta = math.exp(math.log(c) + 0.25 * float(alpha[2:]) * math.log(10))
            net = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(eta))
            ends.append(fs.gradient_flow(net, problem, 20.0, alpha=alpha, clock="accelerated").beta[-1, 0])
        assert ends == pytest.approx([0.75, 0.0], abs=1e-9)


def test_a_run_is_read_on_every_clock_and_ends_where_it_is_told() -> None:
    alpha = "1e-100"
    net, _, _ = network("noise", 3, alpha, 0.3)
    problem = fs.Regression(np.eye(3), [6.0, 3.0, 0.0])
    whole = fs.gradient_flow(net, problem, 4.0, alpha=alpha, clock="accelerated")
    assert whole.beta[-1] == pytest.approx([6.0, 3.0, 0.0], abs=1e-8)
    # Arc length is accelerated time and the two jumps.
    assert whole.arclength[-1] == pytest.approx(4.0 + 6.0 + 3.0, rel=1e-6)
    short = fs.gradient_flow(net, problem, 8.0, alpha=alpha, clock="arclength")
    assert short.beta[-1] == pytest.approx([6.0, *whole.at(8.0, "arclength").beta[1:]], abs=1e-6)
    timed = fs.gradient_flow(net, problem, 4e100, alpha=alpha)
    assert timed.beta[-1] == pytest.approx([6.0, 3.0, 0.0], abs=1e-8)
    resting = fs.gradient_flow(net, problem, alpha=alpha, clock="accelerated")
    assert resting.beta[-1] == pytest.approx([6.0, 3.0, 0.0], abs=1e-8)
    first = fs.events.Event(lambda t, state: state.beta[:, 0] - 1.0, terminal=True)
    stopped = fs.gradient_flow(net, problem, 4.0, alpha=alpha, clock="accelerated", events=first)
    assert stopped.beta[-1, 0] == pytest.approx(1.0, abs=1e-6)
    halfway = whole.at(0.5 * (stopped.accelerated_time[-1] + 1.0), "accelerated")
    assert halfway.beta == pytest.approx([6.0, 0.0, 0.0], abs=1e-8)


def test_noise_that_changes_active_weights_is_refused_with_the_tolerance_that_allows_it() -> None:
    net, problem = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(3e-5)), fs.Regression([[1.0]], [2.0])
    with pytest.raises(ValueError, match=r"changes weights of size one by more than `rtol`; one of 2e-08 allows it"):
        fs.gradient_flow(net, problem, 4.0, alpha=1e-16, clock="accelerated", rtol=1e-9, coordinates="log")
    loose = fs.gradient_flow(net, problem, 4.0, alpha=1e-16, clock="accelerated", rtol=2e-8, coordinates="log")
    assert loose.beta[-1, 0] == pytest.approx(2.0, abs=1e-7)


def test_dependent_columns_that_noise_would_decide_between_are_refused() -> None:
    """Of two equal columns with unequal shares noise makes both the same, in a time of 1 / eta^2."""
    problem = fs.Regression([[1.0, 1.0]], [2.0])
    net, _, _ = network("noise", 3, "1e-100", 0.3)
    even = fs.gradient_flow(net, problem, 4.0, alpha="1e-100", clock="accelerated")
    assert even.beta[-1] == pytest.approx([1.0, 1.0], abs=1e-6)
    net, _, _ = network("noise", 3, "1e-14", 0.3)
    start = {"w1": [1.0, 1.0 + 3e-14], "w2": 1.0, "w3": 1.0}
    with pytest.raises(fs.IntegrationError, match="linearly dependent, and noise or decay decides between them"):
        fs.gradient_flow(net, problem, 4.0, alpha="1e-14", start=start, clock="accelerated")
