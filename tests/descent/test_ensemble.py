"""Many runs side by side."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

import flowsim as fs
from flowsim.descent.products import dense_products, load_data
from flowsim.descent.tiles import LANES, ROWS, lane_products, pack
from flowsim.solvers.simd import pointer

PLAIN = fs.DiagonalNetwork("u*v")
SAM = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
CASES = {
    "growth": (PLAIN, {"label_noise": 0.2}),
    "weights": (SAM, {"momentum": 0.3}),
    "batches": (PLAIN, {"batch_size": 2}),
    "projected": (SAM, {"radius": 1.5, "momentum": 0.5}),
}


@njit
def one_run(X, target, rows, beta, scale, out):
    return dense_products(X, target, pointer(rows, 0), rows.size, beta, scale, out)


@njit
def lanes_of_runs(packed, packed_columns, target, beta, scale, residual, out, square):
    lane_products(packed, packed_columns, target, beta, scale, residual, out, square)


@pytest.mark.parametrize("case", CASES)
def test_the_result_does_not_depend_on_the_number_of_workers(problem, case) -> None:
    net, options = CASES[case]
    one, two, three = (
        fs.gradient_descents(net, problem, 0.02, 60, alpha=0.2, runs=11, seed=9, workers=workers, **options)
        for workers in (1, 2, 3)
    )
    for other in (two, three):
        np.testing.assert_array_equal(one.beta, other.beta)
        np.testing.assert_array_equal(one.weights["u"], other.weights["u"])
        np.testing.assert_array_equal(one.arclength, other.arclength)


@pytest.mark.parametrize("case", CASES)
def test_a_run_does_not_depend_on_its_company(problem, case) -> None:
    """The same bits among 2, 9 and 20 runs, whatever their step sizes."""
    net, options = CASES[case]
    sizes = 0.02 * np.linspace(0.5, 1.5, 20)
    many, some, two = (
        fs.gradient_descents(net, problem, sizes[:count], 60, alpha=0.2, seed=9, **options) for count in (20, 9, 2)
    )
    for few in (some, two):
        np.testing.assert_array_equal(many.beta[: len(few)], few.beta)
        np.testing.assert_array_equal(many.weights["v"][: len(few)], few.weights["v"])
        np.testing.assert_array_equal(many.arclength[: len(few)], few.arclength)


@pytest.mark.parametrize("n", [1, 3, 4, 9])
@pytest.mark.parametrize("d", [1, 2, 7, 8])
def test_tiles_give_the_products_of_matrices_whatever_is_left_over(n, d) -> None:
    rng = np.random.default_rng(n + 10 * d)
    X, B, Y = rng.standard_normal((n, d)), rng.standard_normal((d, LANES)), rng.standard_normal((n, LANES))
    scale = rng.random(LANES)
    target = np.zeros(-(-n // ROWS) * ROWS * LANES)
    target[: n * LANES] = Y.ravel()
    residual, out, square = np.empty_like(target), np.full(-(-d // ROWS) * ROWS * LANES, np.nan), np.empty(LANES)
    lanes_of_runs(pack(X), pack(X.T), target, B.ravel(), scale, residual, out, square)
    np.testing.assert_allclose(square, ((X @ B - Y) ** 2).sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(out[: d * LANES].reshape(d, LANES), X.T @ ((X @ B - Y) * scale), rtol=1e-12, atol=1e-14)
    assert len(pack(X)) == -(-n // ROWS) * ROWS * d


@pytest.mark.parametrize("n", [1, 3, 4, 9])
@pytest.mark.parametrize("d", [1, 7, 8, 18])
def test_products_of_one_run_are_those_of_matrices_whatever_is_left_over(n, d) -> None:
    rng = np.random.default_rng(n + 10 * d)
    X, y, beta = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d)
    whole = load_data(fs.Regression(X, y)).X
    for rows in (np.empty(0, np.int64), np.array([n - 1]), rng.permutation(n)[: max(n - 1, 1)]):
        used = rows if len(rows) else np.arange(n)
        room = whole.shape[1]
        out = np.full(room + 3, np.nan)
        square = one_run(whole, y, rows, np.pad(beta, (0, room - d)), 0.3, out[:room])
        residual = X[used] @ beta - y[used]
        assert square == pytest.approx(residual @ residual, rel=1e-13)
        np.testing.assert_allclose(out[:d], 0.3 * X[used].T @ residual, rtol=1e-12, atol=1e-14)
        assert np.isnan(out[room:]).all()  # nothing is written behind the last vector


@pytest.mark.parametrize("case", CASES)
def test_run_r_is_the_single_run_with_seed_r(problem, case) -> None:
    net, options = CASES[case]
    runs = fs.gradient_descents(net, problem, 0.02, 60, alpha=0.2, runs=3, seed=9, record_every=7, **options)
    for r, child in enumerate(np.random.SeedSequence(9).spawn(3)):
        alone = fs.gradient_descent(net, problem, 0.02, 60, alpha=0.2, seed=child, record_every=7, **options)
        np.testing.assert_allclose(runs.beta[r], alone.beta, atol=1e-12)
        np.testing.assert_allclose(runs[r].weights["v"], alone.weights["v"], atol=1e-12)
        np.testing.assert_allclose(runs.arclength[r], alone.arclength, rtol=1e-11)
        assert runs[r].info["seed"] == alone.info["seed"]


def test_step_sizes_run_together_and_the_diverged_ones_are_marked(problem) -> None:
    steps = np.array([0.01, 0.05, 0.2, 3.0, 40.0])
    runs = fs.gradient_descents(PLAIN, problem, steps, 400, alpha=0.2, record_every=10)
    assert runs.success.tolist() == [True, True, True, False, False]
    for r in range(3):
        alone = fs.gradient_descent(PLAIN, problem, steps[r], 400, alpha=0.2, record_every=10)
        np.testing.assert_allclose(runs.beta[r], alone.beta, atol=1e-10)
        np.testing.assert_array_equal(runs.t[r], alone.t)
    with pytest.raises(fs.IntegrationError, match=f"step {runs.stopped[3]} of 400"):
        fs.gradient_descent(PLAIN, problem, 3.0, 400, alpha=0.2)
    assert np.isnan(runs.beta[3, -1]).all()
    assert not runs[3].success
    assert np.isfinite(runs[3].beta).all()
    with pytest.raises(ValueError, match="2 of 5 runs diverged"):
        _ = runs.mean


def test_growth_of_many_runs_is_exact_far_below_the_range_of_floats(problem) -> None:
    runs = fs.gradient_descents(PLAIN, problem, [0.1, 0.11], 40_000, alpha="1e-1000", record_every=40_000)
    for r in range(2):
        alone = fs.gradient_descent(PLAIN, problem, runs.step[r], 40_000, alpha="1e-1000", record_every=40_000)
        np.testing.assert_allclose(runs.beta[r], alone.beta, atol=1e-9)
        assert runs[r].imbalance_drift < 1e-10
    assert np.abs(runs.beta[:, -1]).max() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "`runs` must be an integer >= 1; received 0"),
        ({"step": [0.1, 0.2], "runs": 3}, "`runs` must be left out or be the number of step sizes, 2"),
        ({"step": [0.1, -0.2]}, "`step` must be > 0; received -0.2"),
        ({"step": []}, "`step` must be a number or a vector"),
        ({"workers": 0}, "`workers` must be an integer >= 1"),
        ({"batchsize": 3}, "`batchsize` is not an option of gradient_descents"),
    ],
)
def test_bad_arguments_are_named(problem, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_descents(**{"net": PLAIN, "problem": problem, "step": 0.1, "n_steps": 5, "alpha": 0.1} | options)


def test_a_standard_error_needs_two_runs(problem) -> None:
    with pytest.raises(ValueError, match="at least 2 runs"):
        _ = fs.gradient_descents(PLAIN, problem, 0.1, 5, alpha=0.1).standard_error
