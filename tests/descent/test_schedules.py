"""Given batches and steps that change, replayed in plain NumPy; batches under the expected noise; balls never left."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import flowsim as fs

RNG = np.random.default_rng(0)
X, Y, N = RNG.standard_normal((6, 4)), RNG.standard_normal(6), 200
BATCHES, SIZES = RNG.integers(0, 6, (N, 2)), 0.05 / (1 + np.arange(N) / 50)
START = {"u": np.ones(4), "v": np.full(4, 0.5)}


def replay(phi: Callable, slopes: Callable, momentum: float = 0.0, nesterov: bool = False) -> np.ndarray:
    w = 0.3 * np.array([START["u"], START["v"]])
    v = np.zeros_like(w)
    for rows, size in zip(BATCHES, SIZES, strict=True):
        at = w + momentum * v if nesterov else w
        g = X[rows].T @ (X[rows] @ phi(at) - Y[rows]) / 2
        v = momentum * v - size * slopes(at) * g
        w = w + v
    return phi(w)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}], ids=str)
@pytest.mark.parametrize(
    ("formula", "phi", "slopes"),
    [
        ("u*v", lambda w: w[0] * w[1], lambda w: w[::-1]),
        ("sinh(u)*v", lambda w: np.sinh(w[0]) * w[1], lambda w: np.array([np.cosh(w[0]) * w[1], np.sinh(w[0])])),
    ],
)
def test_given_batches_and_step_sizes_are_taken_as_they_are(
    formula: str, phi: Callable, slopes: Callable, options: dict
) -> None:
    net, problem = fs.DiagonalNetwork(formula), fs.Regression(X, Y)
    arguments = {"alpha": 0.3, "start": START, "batches": BATCHES, **options}
    run = fs.gradient_descent(net, problem, SIZES, N, **arguments)
    np.testing.assert_allclose(run.beta[-1], replay(phi, slopes, **options), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(run.t, np.concatenate([[0.0], np.cumsum(SIZES)]), rtol=1e-13)
    again = fs.gradient_descent(net, problem, lambda k: 0.05 / (1 + k / 50), N, **arguments)
    np.testing.assert_array_equal(again.beta, run.beta)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"coordinates": "weights"}], ids=str)
def test_batches_of_unequal_length_are_passes_over_all_rows(options: dict) -> None:
    """Passes of 4 and 2 rows, replayed in NumPy: each step has the mean over its own batch."""
    batches = [[0, 1, 2, 5], [3, 4]] * 20
    run = fs.gradient_descent(
        fs.DiagonalNetwork("u*v"), fs.Regression(X, Y), 0.05, 40, alpha=0.3, start=START, batches=batches, **options
    )
    w, v = 0.3 * np.array([START["u"], START["v"]]), 0.0
    for rows in batches:
        v = options.get("momentum", 0.0) * v - 0.05 * w[::-1] * (X[rows].T @ (X[rows] @ (w[0] * w[1]) - Y[rows])) / len(
            rows
        )
        w = w + v
    np.testing.assert_allclose(run.beta[-1], w[0] * w[1], rtol=1e-12, atol=1e-14)
    wide, U, V = [[0, 1, 2, 3, 4], [5, 4, 3], [0]], np.ones((4, 2)), np.array([[1.0, -0.5]])
    linear = fs.gradient_descent(
        fs.LinearNetwork(2), fs.Regression(X, Y), 0.05, 3, alpha=0.3, start={"U": U, "V": V}, batches=wide
    )
    U, V = 0.3 * U, 0.3 * V
    for rows in wide:
        G = X[rows].T @ (X[rows] @ (U @ V.T) - Y[rows, None]) / len(rows)
        U, V = U - 0.05 * G @ V, V - 0.05 * G.T @ U
    np.testing.assert_allclose(linear.beta[-1], U @ V.T, rtol=1e-12, atol=1e-15)


def test_the_batches_of_a_seed_given_again_are_the_same_run() -> None:
    from flowsim.descent.streams import Streams
    from flowsim.plain_numbers import read_seed

    drawn = Streams([read_seed(3)], 6, 2, False, None, None, np.zeros(2), (2, 4)).rows(N)
    net, problem = fs.DiagonalNetwork("u*v"), fs.Regression(X, Y)
    one = fs.gradient_descent(net, problem, 0.05, N, alpha=0.3, batch_size=2, seed=3)
    other = fs.gradient_descent(net, problem, 0.05, N, alpha=0.3, batches=drawn)
    np.testing.assert_array_equal(one.beta, other.beta)


@pytest.mark.parametrize("coordinates", ["auto", "weights"])
def test_the_expected_noise_of_a_batch_is_weighed_by_its_own_rows(coordinates: str) -> None:
    data, eta, h = np.array([[1.0], [3.0]]), 0.5, 0.01
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(eta))
    rows = [[1], [0], [1]]
    run = fs.gradient_descent(
        net, fs.Regression(data, np.zeros(2)), h, 3, alpha=1.0, start={"u": 1.0, "v": 0.0}, batches=rows, expected=True,
        coordinates=coordinates,
    )  # fmt: skip
    expected = np.cumprod([1.0] + [1 - h * eta**2 * data[row[0], 0] ** 2 for row in rows])
    np.testing.assert_allclose(run.weights["u"][:, 0], expected, rtol=1e-13)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("alpha", [1e-8, 1e-12])
def test_a_ball_that_is_never_left_changes_nothing(alpha: float, momentum: float) -> None:
    problem = fs.Regression([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
    steps = int(1.15 * 3.657 * -math.log(alpha) / 0.05)
    arguments = {"alpha": alpha, "start": {"u": [1.4, 1.4], "v": [0.3, 0.3]}, "momentum": momentum}
    net = fs.DiagonalNetwork("u*v")
    free = fs.gradient_descent(net, problem, 0.05 * (1 - momentum), steps, **arguments)
    bound = fs.gradient_descent(net, problem, 0.05 * (1 - momentum), steps, radius=1e3, **arguments)
    np.testing.assert_array_equal(free.beta, bound.beta)
    tight = fs.gradient_descent(net, problem, 0.01, 2000, alpha=0.2, radius=0.6)
    assert tight.info["coordinates"] == "weights"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": [[0, 1]] * 3}, r"shape \(4, b\)"),
        ({"batches": [[0, 9]] * 4}, "rows from 0 to 5"),
        ({"batches": [[0.5, 1.0]] * 4}, "must be integers"),
        ({"batches": [[0, 1], [2], [], [3]]}, r"that of step 2 is \[\]"),
        ({"batches": [[0, 1]] * 4, "batch_size": 2}, "`batch_size` and `shuffle` must be left out"),
        ({"step": [0.1, 0.1]}, "one size for each of 4 steps"),
        ({"step": [0.1, 0.1, -0.1, 0.1]}, "it is -0.1 at iteration 2"),
        ({"step": lambda k: math.nan}, "at iteration 0"),
    ],
)
def test_bad_schedules_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_descent(
            fs.DiagonalNetwork("u*v"), fs.Regression(X, Y), **{"step": 0.1, "n_steps": 4, "alpha": 0.1, **options}
        )
