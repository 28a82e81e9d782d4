"""Growth to infinity at finite z, natively: closed forms, SciPy in the weights, many coordinates, derivatives."""

import dis
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

from flowsim.solvers import SeparableFlow, Status, integrate_separable
from flowsim.solvers.multistep.distance_reading import between

TOL = 1e-6


def product(X, y, depth, alpha, squares=0.0):
    """The flow of w_1 ... w_L: a weight alpha, the others sqrt(alpha^2 + squares), by their distances from infinity."""
    d = X.shape[1]
    if squares == 0.0:
        near = alpha ** (2 - depth) / (depth - 2)
    else:
        assert depth == 3  # int_a^inf dx / (x^2 + m^2)
        near = math.atan2(math.sqrt(squares), alpha) / math.sqrt(squares)
    far = np.inf if squares == 0.0 else math.pi / math.sqrt(squares) - near
    side, zero = np.repeat([[1.0], [-1.0]], d, axis=1), np.zeros((2, d))
    distance = np.stack([np.full(d, near), np.full(d, far)])
    return SeparableFlow(
        X, y, len(y), zero, side, side, zero,
        power=depth, squares=np.full((depth - 1, d), squares), distance=distance,
    )  # fmt: skip


def beta_of(y, depth):
    """Of balanced weights."""
    near = np.minimum(*np.split(y, 2, axis=1))
    return ((depth - 2) * near) ** (-depth / (depth - 2))


def gaussian(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


@pytest.mark.parametrize(("depth", "alpha"), [(3, 0.1), (4, 0.1), (5, 0.3), (7, 0.5)])
def test_it_is_the_flow_of_the_weights(depth, alpha):
    """w' = -(X^T (X w^L - y) / n) w^(L-1), by SciPy."""
    X, y = gaussian(6, 9)
    end = 20.0 * alpha ** (2 - depth)
    t = np.linspace(0, end, 60)
    reference = solve_ivp(
        lambda _, w: (X.T @ (y - X @ w**depth) / 6) * w ** (depth - 1),
        (0, end), np.full(9, alpha), "LSODA", t, rtol=1e-11, atol=1e-14,
    ).y.T**depth  # fmt: skip
    run = integrate_separable(product(X, y, depth, alpha), end, tol=TOL)
    assert run.status is Status.COMPLETED
    assert np.abs(beta_of(run(t), depth) - reference).max() < 10 * TOL


@pytest.mark.parametrize("depth", [3, 4, 5, 8])
@pytest.mark.parametrize("digits", [8, 30])
def test_a_lone_coordinate_reaches_its_target_as_its_closed_form_says(depth, digits):
    """1/w = 1/alpha - t while w is small, in distances; then it rests at the target."""
    alpha = 10.0 ** (-digits / (depth - 2))
    flow = product(np.ones((1, 1)), np.ones(1), depth, alpha)
    start = flow.distance[0, 0]
    run = integrate_separable(flow, 1.5 * start, tol=TOL)
    assert run.status is Status.COMPLETED
    t = start * np.linspace(0, 0.9, 7)
    assert_allclose(run(t)[:, 0], start - t, rtol=1e-9)
    assert beta_of(run.z[-1:], depth)[0, 0] == pytest.approx(1.0, abs=1e-3 * TOL)


def test_a_plateau_is_one_straight_line():
    """Thresholds a factor of ten apart: three lines, up to 1e30 long, and no step is longer than the jumps."""
    X, y = math.sqrt(2.0) * np.eye(2), math.sqrt(2.0) * np.array([1.0, 0.1])
    run = integrate_separable(product(X, y, 3, 1e-30), 20e30, tol=TOL)
    order = np.concatenate([chunk.order for chunk in run.chunks])
    assert run.h[order == 0].sum() == pytest.approx(20e30, rel=1e-12)
    assert (order == 0).sum() == 3
    assert run.h[order > 0].max() < 1e12
    assert_allclose(beta_of(run.z[-1:], 3)[0], [1.0, 0.1], rtol=1e-3 * TOL)


def test_next_to_the_end_of_a_straight_line_distances_are_not_lost_to_cancellation():
    """From 1e300 down to 1e4 or so in one step: a share 2^-k before its end they are of 1e300 2^-k, and positive."""
    y = np.array([0.5308, 0.3])
    run = integrate_separable(product(math.sqrt(2.0) * np.eye(2), math.sqrt(2.0) * y, 3, 1e-300), 3e300, tol=TOL)
    share = 2.0 ** -np.arange(54)
    begin, end = run.z[:2, 0]
    assert end < 1e10
    line = run.at_steps(np.zeros(54, dtype=np.intp), 1.0 - share)[:, 0]
    assert_allclose(line, begin * share + end * (1.0 - share), rtol=1e-14)


def test_ends_of_steps_are_read_without_the_compiled_extension(monkeypatch):
    run = integrate_separable(product(*gaussian(8, 12), 3, 0.05), 8e2, tol=TOL)
    count = np.arange(len(run.h))
    out = np.empty((2, len(count), run.z.shape[1]))
    for row, position in zip(out, (0.0, 1.0), strict=True):
        chunk = run.chunks[0]
        place = np.full(len(count), position)
        between(chunk.tables.addresses, chunk.h, chunk.place, chunk.f, chunk.df, count, place, row)
    monkeypatch.setattr("flowsim.solvers.multistep.distance_reading.between", None)
    assert (run.at_steps(count, np.zeros(len(count))) == out[0]).all()
    assert (run.at_steps(count, np.ones(len(count))) == out[1]).all()


def test_arc_length_is_that_of_the_path():
    X, y = gaussian(8, 12)
    flow = product(X, y, 4, 0.05)
    run = integrate_separable(flow, 8e3, tol=TOL)
    steps, theta = np.repeat(np.arange(len(run.h)), 40), np.tile(np.arange(40) / 40, len(run.h))
    beta = beta_of(run.at_steps(steps, theta, with_end=True), 4)
    polygon = np.linalg.norm(np.diff(beta, axis=0), axis=1).sum()
    assert run.arclength(0.0).values[-1] == pytest.approx(polygon, rel=1e-4)


def test_weights_that_are_not_balanced_follow_their_own_law():
    """One coordinate, m^2 = 1e-12: c' = g (c^2 + m^2), so that c is a tangent while beta is small."""
    m = 1e-6
    flow = product(np.ones((1, 1)), np.ones(1), 3, 0.5e-6, m * m)
    end = 0.999 * flow.distance[0, 0]
    run = integrate_separable(flow, end, tol=TOL)
    assert_allclose(flow.distance[0, 0] - run.z[-1, 0], end, rtol=1e-9)
    assert_allclose(run.z[-1].sum(), math.pi / m, rtol=1e-13)


@pytest.mark.parametrize("n", [4, 400])
def test_more_coordinates_than_a_gram_matrix_is_kept_of(n):
    """By the rows of A alone, against those that move and no others."""
    rng = np.random.default_rng(3)
    X = np.zeros((n, 900))
    X[:, :6] = rng.standard_normal((n, 6))
    y = X[:, :3] @ np.array([1.0, 0.5, 0.2])
    t = np.linspace(0, 3e4, 40)
    few, many = (integrate_separable(product(A, y, 3, 1e-3), t[-1], tol=TOL) for A in (X[:, :6], X))
    assert many.status is Status.COMPLETED
    one, other = beta_of(few(t), 3), beta_of(many(t), 3)
    lengths = [run.arclength(0.0).values[-1] for run in (few, many)]
    assert lengths[1] == pytest.approx(lengths[0], abs=20 * TOL)
    # Jumps may be a little earlier or later: their time is known to its own rounding.
    assert np.median(np.abs(one - other[:, :6])) < TOL


def test_random_products_are_as_accurate_as_asked_for():
    """Along the path, against a run that is a thousand times tighter."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n, d, depth = int(rng.integers(1, 20)), int(rng.integers(1, 20)), int(rng.integers(3, 7))
        X, y = gaussian(n, d, seed)
        alpha = 10.0 ** -rng.uniform(1, 100 / (depth - 2))
        end = 15.0 / np.abs(X.T @ y / n).max() * alpha ** (2 - depth)
        flow = product(X, y, depth, alpha)
        runs = [integrate_separable(flow, end, tol=tol) for tol in (TOL, 1e-9)]
        assert all(run.status is Status.COMPLETED for run in runs)
        lengths = [run.arclength(0.0) for run in runs]
        grid = np.linspace(0, min(each.values[-1] for each in lengths), 200)
        one, other = (beta_of(run.at_steps(*each.places(grid)), depth) for run, each in zip(runs, lengths, strict=True))
        assert np.abs(one - other).max() <= 10 * TOL * max(1.0, np.abs(other).max()), seed


def test_the_map_of_distances_compiles_no_linear_algebra_of_its_own():
    """A second compilation of the iteration matrix took half of a first flow of depth 3."""
    from numba.core.dispatcher import Dispatcher

    from flowsim.solvers.multistep import distance_map

    seen, left = set(), [value for value in vars(distance_map).values() if isinstance(value, Dispatcher)]
    while left:
        function = left.pop().py_func
        if function not in seen:
            seen.add(function)
            names = [each.argval for each in dis.get_instructions(function) if each.opname == "LOAD_GLOBAL"]
            left.extend(value for value in map(function.__globals__.get, names) if isinstance(value, Dispatcher))
    modules = {function.__module__.rpartition(".")[2] for function in seen}
    assert {"distance_map", "straight_lines", "newton"} <= modules
    assert not modules & {"implicit_rest", "inverse", "iteration_matrix", "products", "step"}
