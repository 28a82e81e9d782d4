from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

import flowsim as fs
from flowsim.network.linear_algebra import LinearData

RNG = np.random.default_rng(1)
X = RNG.standard_normal((7, 4))
Y = RNG.standard_normal(7)
FORMS = [X, scipy.sparse.csr_matrix(X), scipy.sparse.csc_array(X), aslinearoperator(X), X.tolist()]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_every_kind_of_X_gives_the_same_loss_gradient_and_variances(form: object) -> None:
    problem = fs.Regression(form, Y)
    beta = RNG.standard_normal(4)
    assert (problem.n, problem.d) == (7, 4)
    assert problem.loss(beta) == pytest.approx(np.sum((X @ beta - Y) ** 2) / 14, rel=1e-13)
    np.testing.assert_allclose(problem.gradient(beta), X.T @ (X @ beta - Y) / 7, rtol=1e-12)
    np.testing.assert_allclose(problem.feature_variances, np.diag(X.T @ X) / 7, rtol=1e-12)
    best = np.linalg.lstsq(X, Y, rcond=None)[0]
    assert problem.least_squares_loss == pytest.approx(np.sum((X @ best - Y) ** 2) / 14, rel=1e-9)


def test_independence_is_the_least_distance_of_a_feature_from_the_span_of_the_others() -> None:
    near = np.column_stack([X, X @ [1.0, -2.0, 0.5, 1.0] + 1e-6 * RNG.standard_normal(7)])
    distances = []
    for j in range(5):
        others = np.delete(near, j, axis=1)
        left = near[:, j] - others @ np.linalg.lstsq(others, near[:, j], rcond=None)[0]
        distances.append(np.linalg.norm(left) / np.linalg.norm(near[:, j]))
    assert fs.Regression(near, Y).independence == pytest.approx(min(distances), rel=1e-6)
    assert fs.Regression(X.T, Y[:4]).independence == 0.0
    assert not fs.Regression(np.column_stack([X, np.zeros(7)]), Y).independence > 0.0


@pytest.mark.parametrize("m", [1, 3])
def test_the_least_loss_of_more_features_than_rows_is_that_outside_their_range(m: int) -> None:
    wide = RNG.standard_normal((6, 4)) @ RNG.standard_normal((4, 30))
    y = RNG.standard_normal((6, m))
    outside = y - wide @ np.linalg.pinv(wide, rcond=1e-12) @ y
    problem = fs.Regression(wide, y[:, 0] if m == 1 else y)
    assert problem.least_squares_loss == pytest.approx(np.sum(outside**2) / 12, rel=1e-9)


def test_loss_and_prediction_run_over_leading_axes() -> None:
    betas = RNG.standard_normal((3, 2, 4))
    problem = fs.Regression(X, Y)
    np.testing.assert_allclose(problem.loss(betas)[1, 0], problem.loss(betas[1, 0]), rtol=1e-13)
    targets = RNG.standard_normal((7, 2))
    several = fs.Regression(X, targets)
    stacked = RNG.standard_normal((5, 4, 2))
    np.testing.assert_allclose(several.predict(stacked)[2], X @ stacked[2], rtol=1e-12)
    np.testing.assert_allclose(several.loss(stacked)[2], np.sum((X @ stacked[2] - targets) ** 2) / 14, rtol=1e-12)
    np.testing.assert_allclose(several.gradient(stacked[0]), X.T @ (X @ stacked[0] - targets) / 7, rtol=1e-12)


def test_the_gradient_is_the_derivative_of_the_loss() -> None:
    problem, beta, step = fs.Regression(X, Y), RNG.standard_normal(4), 1e-6
    slopes = [(problem.loss(beta + step * e) - problem.loss(beta - step * e)) / (2 * step) for e in np.eye(4)]
    np.testing.assert_allclose(problem.gradient(beta), slopes, rtol=1e-7)


def test_the_caller_may_change_the_arrays_afterwards() -> None:
    mine = X.copy()
    problem = fs.Regression(mine, Y)
    mine[:] = 0
    assert problem.X[0, 0] == X[0, 0]


BAD = np.array([[1.0, np.nan], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BAD, [1, 2]), r"`X` must be finite; received 1 NaN or infinite entries, the first at index \(0, 1\)"),
        ((scipy.sparse.csr_matrix(BAD), [1, 2]), r"`X` must be finite; received nan at \(0, 1\)"),
        (
            (np.ma.masked_greater(np.eye(2), 0.5), [1, 2]),
            "`X` must be an array of real numbers; received masked entries",
        ),
        ((np.eye(2), np.ma.array([1.0, 2.0], mask=[False, True])), "`y` must be .* received masked entries"),
        ((np.array([["2020"], ["2021"]], "M8[D]"), [1, 2]), "`X` must be an array of real numbers; received dates"),
        ((np.eye(2), [1, np.inf]), r"`y` must be finite.*\(1,\)"),
        ((np.eye(2), [1, 2, 3]), r"`y` must have shape \(2,\) or \(2, m\).*received \(3,\)"),
        ((np.ones(3), [1, 2, 3]), r"`X` must have two dimensions"),
        ((np.ones((0, 3)), []), "at least one row"),
        ((np.ones((2, 0)), [1, 2]), "at least one row and one column"),
        ((np.eye(2) * 1j, [1, 2]), "`X` must be an array of real numbers"),
        (([["a", "b"]], [1]), "`X` must be an array of real numbers"),
        (([[1, 2], [3]], [1, 2]), "`X` must be an array of real numbers"),
        ((np.eye(2), [1, 2], ["only one"]), "`feature_names` must hold 2 names.*received 1"),
    ],
)
def test_bad_data_is_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.Regression(*arguments)


@pytest.mark.parametrize("size", [1e-250, 1e-3, 1.0, 1e100, 1e140, 1e153])
def test_no_loss_overflows_below_the_safe_size(size: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6, 4)) * [size, 1.0, 1e-3, 0.0]
    for y in (np.zeros(6), rng.standard_normal(6), np.full(6, 1e130), np.full(6, 1e160)):
        problem = fs.Regression(X, y)
        if problem.safe_size >= 0:
            assert np.isfinite(problem.loss(problem.safe_size * np.sign(X[0]))) and y[0] < 1e140
        else:
            assert y[0] > 1e140
    assert fs.Regression(X, np.ones(6)).safe_size > 1e-20  # and it is of use
    assert fs.Regression(0 * X, np.full(6, 1e160)).safe_size < 0


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("shape", [(7, 4), (120, 40)])
@pytest.mark.parametrize("what", ["flow", "descent", "limit"])
def test_runs_are_those_of_data_changed_in_place(shape: tuple[int, int], is_sparse: bool, what: str) -> None:
    """Variances enter the noise of a flow, each entry's damping is eta^2 sigma_i^2; exponents its units."""
    rng = np.random.default_rng(0)
    features, target = rng.standard_normal(shape), rng.standard_normal(shape[0])
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
    run = {
        "flow": lambda data: fs.gradient_flow(net, data, 3.0, alpha=0.1).beta[-1],
        "descent": lambda data: fs.gradient_descent(net, data, 1e-3, 60, alpha=0.1, seed=0).beta[-1],
        "limit": lambda data: fs.saddle_to_saddle(net, data).saddles[-1],
    }[what]
    problem = fs.Regression(scipy.sparse.csr_array(features) if is_sparse else features, target)
    run(problem)
    entries = problem.X.data if is_sparse else problem.X
    for change in (lambda: entries.__imul__(2.0), lambda: problem.y.__imul__(-3.0), lambda: rng.shuffle(entries)):
        change()
        np.testing.assert_allclose(problem.feature_variances, np.mean(_dense(problem) ** 2, axis=0), rtol=1e-12)
        fresh = run(fs.Regression(problem.X.copy(), problem.y.copy()))
        np.testing.assert_allclose(run(problem), fresh, rtol=1e-12, atol=1e-14)


def _dense(problem: fs.Problem) -> np.ndarray:
    return problem.X if isinstance(problem.X, np.ndarray) else problem.X.toarray()


def test_what_is_kept_of_data_changed_in_place_is_computed_again():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((300, 20)), rng.standard_normal(300)
    problem = fs.Regression(X, y)
    scale = 2.0**90

    def read(data: fs.Regression) -> list[float]:
        linear = LinearData.of(data)
        own = [data.independence, data.least_squares_loss, data.coefficient_size, data.safe_size, data.largest_drive]
        return [*own, *data.binary_exponents, linear.least_loss, linear.total_curvature]

    first = read(problem)
    assert LinearData.of(problem) is LinearData.of(problem)
    problem.X[:] *= scale
    problem.X[:, 0] += problem.X[:, 1]
    problem.y[0] += 1.0
    assert read(problem) == read(fs.Regression(problem.X, problem.y)) != first
    measured = fs.MatrixSensing([[[1.0, 0.0], [0.0, 1.0]]], [2.0])
    size = measured.safe_size
    measured.A *= 4.0
    assert measured.safe_size == size / 4


@pytest.mark.parametrize("loss", ["squared", "log-cosh"])
def test_targets_set_to_nan_are_told(loss: str) -> None:
    problem = fs.Problem(X, Y, loss=loss)
    problem.y[0] = np.nan
    with pytest.raises(ValueError, match="`y` must be finite; received 1 NaN"):
        fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem)


def test_entries_given_twice_to_a_sparse_matrix_are_added():
    given = scipy.sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    problem = fs.Regression(given, [1.0, 1.0])
    np.testing.assert_array_equal(problem.feature_variances, [4.5, 8.0])
    assert given.nnz == 3
