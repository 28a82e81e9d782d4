"""The continuous limit path: orbits between saddles, in arc length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import flowsim as fs
from flowsim.limits.orbit import integrated

NET = fs.DiagonalNetwork("u*v")
FOUR = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0])


def test_a_single_feature_travels_straight() -> None:
    path = fs.saddle_to_saddle(NET, fs.Regression([[2.0]], [3.0]))
    assert path.length == pytest.approx(1.5, rel=1e-8)
    t = path.jump_times[0]
    np.testing.assert_allclose(path.curve(t + np.array([0.0, 0.3, 1.5, 9.0]))[:, 0], [0, 0.3, 1.5, 1.5], rtol=1e-8)


@pytest.mark.parametrize("formula", ["u*v", "2*u**2 - v**2"])
def test_the_curve_is_continuous_and_arclength_is_its_clock(formula: str) -> None:
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(formula), FOUR)
    last = float(path.arclength(path.jump_times[-1] * 1.1))
    tau = np.linspace(0, last, 20_001)
    moved = np.linalg.norm(np.diff(path.curve(tau), axis=0), axis=1)
    assert moved.max() <= tau[1] * (1 + 1e-5)
    assert moved.sum() == pytest.approx(path.length, rel=1e-4)
    for k, t in enumerate(path.jump_times):
        np.testing.assert_allclose(path.curve(path.arclength(t)), path.saddles[k + 1], atol=1e-12)
        departure = np.nextafter(path.arclength(t) - path.orbits[k].length, 0)
        np.testing.assert_allclose(path.curve(departure), path.saddles[k], atol=1e-9)


@pytest.mark.parametrize("net", [NET, fs.DiagonalNetwork(depth=3)], ids=str)
@pytest.mark.parametrize("exponents", [(0, 560), (560, 0), (-500, 500)])
def test_orbits_of_scaled_data_are_scaled_orbits(net: fs.DiagonalNetwork, exponents: tuple[int, int]) -> None:
    p, q = exponents
    X, y = np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([1.0, 0.9])
    path = fs.saddle_to_saddle(net, fs.Regression(X, y))
    scaled = fs.saddle_to_saddle(net, fs.Regression(np.ldexp(X, p), np.ldexp(y, q)))
    for orbit, own in zip(path.orbits, scaled.orbits, strict=True):
        along = np.linspace(0, orbit.length, 9)
        points = np.ldexp(own.at(np.ldexp(along, q - p)), p - q)
        np.testing.assert_allclose(points, orbit.at(along), atol=1e-8 * orbit.length)


def test_the_loss_never_rises_along_the_curve() -> None:
    problem = fs.datasets.diabetes()
    path = fs.saddle_to_saddle(NET, problem)
    losses = path.curve_loss(np.linspace(0, path.arclength(path.jump_times[-1] * 1.1), 5000))
    assert np.diff(losses).max() <= 1e-12 * losses[0]


def test_orbits_obey_their_field_in_a_finer_independent_integration() -> None:
    problem = fs.datasets.diabetes()
    path = fs.saddle_to_saddle(NET, problem)
    for orbit in path.orbits[2:8:5]:
        step = 1e-5 * orbit.length
        for distance in orbit.length * np.array([0.1, 0.5, 0.9]):
            ahead, behind, here = orbit.at(distance + np.array([step, -step, 0.0]))
            full = np.zeros(10)
            full[orbit.coordinates] = here
            velocity = -np.abs(here) * problem.gradient(full)[orbit.coordinates]
            np.testing.assert_allclose((ahead - behind) / (2 * step), velocity / np.linalg.norm(velocity), atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("net", "alphas"),
    [
        (NET, ["1e-100", "1e-1000", "1e-10000"]),
        (fs.DiagonalNetwork("2*u**2 - v**2"), ["1e-100", "1e-1000", "1e-10000"]),
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1)), ["1e-100", "1e-1000", "1e-10000"]),
        (fs.DiagonalNetwork(depth=3), ["1e-2", "1e-3"]),
        (fs.DiagonalNetwork("u**3 - v**3"), ["1e-2", "1e-3", "1e-4"]),
        (fs.DiagonalNetwork("w1*w2*w3 + (w1*w2*w3)**3"), ["1e-2", "1e-3"]),
    ],
    ids=str,
)
def test_flows_in_arc_length_approach_the_curve(net: fs.DiagonalNetwork, alphas: list[str]) -> None:
    path = fs.saddle_to_saddle(net, FOUR)
    errors = []
    for alpha in alphas:
        t_end = float(path.jump_times[-1] * 1.1)
        flow = fs.gradient_flow(net, FOUR, t_end, alpha=alpha, clock="accelerated", rtol=1e-8)
        errors.append(np.linalg.norm(path.curve(flow.arclength) - flow.beta, axis=1).max())
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(errors)), errors
    assert errors[-1] < (0.01 if path.order == 2 else 0.1)


def test_tied_dependent_coordinates_leave_along_the_orbit_of_their_start() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((5, 3))
    X, y = np.column_stack([base, base[:, 1]]), rng.standard_normal(5)
    start = {"u": np.array([1.0, 2.0, 1.0, 0.5]), "v": np.zeros(4)}
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y), start)
    end = path.end
    assert end[1] / end[3] == pytest.approx(16.0, rel=1e-9)  # shares as the squares of u(0)
    for orbit in path.orbits:  # each ends at its saddle, or it would have raised
        assert orbit.length > 0


@pytest.mark.parametrize("exponent", [-20, 0, 20])
def test_orbits_of_tied_coordinates_have_the_length_of_the_flow_whatever_the_size_of_the_data(exponent: int) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((6, 5)), rng.standard_normal(6)
    X[:, -1] = X[:, 0]
    net, problem = fs.DiagonalNetwork("u*v"), fs.Regression(np.ldexp(X, -exponent // 2), np.ldexp(y, exponent // 2))
    path = fs.saddle_to_saddle(net, problem)
    assert any(len(orbit.coordinates) > 1 and {0, 4} <= set(orbit.coordinates.tolist()) for orbit in path.orbits)
    flow = fs.gradient_flow(net, fs.Regression(X, y), 2 * path.jump_times[-1], alpha="1e-1000", clock="accelerated")
    travelled = flow.arclength[-1] - flow.accelerated_time[-1]
    np.testing.assert_allclose(np.ldexp(sum(orbit.length for orbit in path.orbits), -exponent), travelled, rtol=1e-4)


@pytest.mark.parametrize("rate", [1.0, 0.3, 0.02])
def test_of_tied_products_of_three_the_slower_one_goes_first(rate: float) -> None:
    # Alone, w' = w^2 (rate - w^3), or rate * s = x with w = 1/x: both from x = 0 backwards at one time.
    problem = fs.Regression(np.sqrt(2.0) * np.eye(2), np.sqrt(2.0) * np.array([1.0, rate]))
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=3), problem, {f"w{k}": [rate, 1.0] for k in (1, 2, 3)})
    (orbit,) = path.orbits
    assert abs(orbit.at(np.array([orbit.length]))[0] - [1.0, rate]).max() < 1e-9
    assert (np.diff(orbit.points, axis=0) > -1e-9).all() and orbit.length <= 1.0 + rate + 1e-9
    if rate == 1.0:
        np.testing.assert_allclose(orbit.length, np.sqrt(2.0), rtol=1e-9)
    if rate == 0.02:  # it is at its end before the other one has started
        np.testing.assert_allclose(orbit.length, 1.0 + rate, rtol=1e-3)


def test_orbits_of_a_general_formula_need_to_know_its_start() -> None:
    net = fs.DiagonalNetwork("a*tanh(a) - b**2")
    path = fs.saddle_to_saddle(net, FOUR)
    rest = fs.saddle_to_saddle(net, FOUR, path.state(2.0))
    np.testing.assert_allclose(rest.end, path.end, rtol=1e-12)
    with pytest.raises(ValueError, match="from a vanishing start only"):
        rest.curve(1.0)


@pytest.mark.parametrize("tau", [-0.1, np.nan])
def test_a_negative_or_undefined_arc_length_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="`tau` must be >= 0"):
        fs.saddle_to_saddle(NET, FOUR).curve(tau)


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), *range(1, 6)])
def test_orbits_of_tied_and_dependent_integer_data_end_at_their_saddles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    X, y = rng.integers(-2, 3, (n, d)).astype(float), rng.integers(-4, 5, n).astype(float)
    X = np.column_stack([X, X[:, :1], -X[:, -1:], X[:, 0] + X[:, -1]])
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    for k, orbit in enumerate(path.orbits):
        ends = orbit.at(np.array([0.0, orbit.length]))
        np.testing.assert_allclose(ends, path.saddles[k : k + 2][:, orbit.coordinates], atol=1e-12)
        assert orbit.length >= np.linalg.norm(path.saddles[k + 1] - path.saddles[k]) * (1 - 1e-6)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("net", "start"),
    [
        (NET, None),
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2)), None),
        (fs.DiagonalNetwork(depth=3), {"w1": 1.0, "w2": 0.7, "w3": -0.3}),
    ],
    ids=["u*v", "noise", "depth 3"],
)
def test_lengths_and_losses_of_orbits_are_sound_down_to_the_smallest_jump(
    net: fs.DiagonalNetwork, start: dict[str, float] | None
) -> None:
    for seed in (5, 8, 11):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((4, 5)), rng.standard_normal(4)
        X[:, 4] = -X[:, 1]
        path = fs.saddle_to_saddle(net, fs.Regression(X, y), start)
        for k, orbit in enumerate(path.orbits):
            points = np.zeros((20_001, 5))
            points[:, orbit.coordinates] = orbit.at(np.linspace(0, orbit.length, 20_001))
            np.testing.assert_allclose(points[[0, -1]], path.saddles[k : k + 2], atol=1e-12)
            chords = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
            # Rounding of the largest coefficients is what the smallest jump is read to.
            assert orbit.length == pytest.approx(chords, rel=1e-5, abs=2e-8 * np.abs(path.saddles).max())
            penalty = sum(
                np.maximum(side * points, 0) @ np.broadcast_to(cost, (5,))
                for side, cost in zip((1, -1), path.penalties, strict=True)
            )
            descent = path.problem.loss(points) + penalty
            assert np.diff(descent).max() <= 1e-9 * descent[0] + 1e-13


def test_a_stiff_saddle_is_left_even_if_the_coordinate_that_leaves_is_slow() -> None:
    rng = np.random.default_rng(6)
    problem = fs.Regression(rng.standard_normal((4, 5)), rng.standard_normal(4))
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=4), problem, {"w1": 1.0, "w2": 0.7, "w3": -0.3, "w4": 0.5})
    for k, orbit in enumerate(path.orbits):
        assert orbit.length < 2 * np.linalg.norm(path.saddles[k + 1] - path.saddles[k])


@pytest.mark.parametrize("gap", [1e-4, pytest.param(1e-7, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_orbits_of_nearly_collinear_data_end_at_their_saddles(gap: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        X, y = rng.standard_normal((6, 5)), rng.standard_normal(6)
        X[:, 1] = X[:, 0] + gap * rng.standard_normal(6)
        path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
        for k, orbit in enumerate(path.orbits):  # each ends at its saddle, or it would have raised
            assert orbit.length >= np.linalg.norm(path.saddles[k + 1] - path.saddles[k]) * (1 - 1e-6)


def test_a_singular_iteration_matrix_of_an_orbit_is_no_warning() -> None:
    """Radau factorises ``mu / h - J`` with ``mu = 3 + 3^(2/3) - 3^(1/3)``, and takes another step where it is 0."""
    mu = 3 + 3 ** (2 / 3) - 3 ** (1 / 3)
    options = {"method": "Radau", "first_step": 1.0, "jac": lambda t, y: np.array([[mu]])}
    found = integrated(lambda t, y: 0 * y, 2.0, np.ones(1), **options)
    assert found is None or np.array_equal(found[1][0], np.ones(found[1].shape[1]))
