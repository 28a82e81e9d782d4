"""Data frames, units and the way back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import flowsim as fs
from flowsim.problem.scaling import standardised

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.standard_normal((20, 3)) * [1.0, 100.0, 1e-3] + [5.0, 1e4, 0.0], columns=["a", "b", "goal"])


def test_a_frame_gives_names_and_target() -> None:
    for problem in (
        fs.Regression(FRAME, "goal"),
        fs.Regression(FRAME[["a", "b"]], FRAME["goal"]),
        fs.Regression(FRAME[["a", "b"]], FRAME["goal"].sample(frac=1.0, random_state=1)),  # aligned by its labels
        fs.Problem(FRAME, "goal", loss="log-cosh"),
    ):
        assert problem.feature_names == ("a", "b")
        np.testing.assert_array_equal(problem.X, FRAME[["a", "b"]])
        np.testing.assert_array_equal(problem.y, FRAME["goal"])
    two = fs.Regression(FRAME, ["goal", "b"])
    assert two.feature_names == ("a",) and two.y.shape == (20, 2)
    numbered = fs.Regression(FRAME.set_axis(range(3), axis=1), 2)
    assert numbered.feature_names == ("0", "1") and numbered.y.tolist() == FRAME["goal"].tolist()
    assert fs.Regression(FRAME.astype({"a": "Float64"}), "goal").d == 2
    assert fs.Regression(FRAME.assign(a=FRAME["a"] > 5), "goal").X[:, 0].tolist() == (FRAME["a"] > 5).tolist()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (FRAME, "nothing", "`y` must be a column of `X`, one of 'a', 'b', 'goal'; received 'nothing'"),
        (FRAME.to_numpy(), "goal", "only where `X` is a data frame"),
        (
            FRAME.assign(a=["x"] * 9 + ["y"] * 11),
            "goal",
            "column 'a' must hold numbers; received 'x' in row 0.*get_dummies",
        ),
        (FRAME.assign(a=[1.0, 2.0, "?", *range(17)]), "goal", r"'a' must hold numbers; received '\?' in row 2"),
        (FRAME.assign(a=["1", "1_000", *map(str, range(18))]), "goal", r"must hold numbers; received '1_000' in row 1"),
        (FRAME.assign(a=[np.nan, *range(19)]), "goal", "column 'a' must be finite; row 0 holds no value"),
        (FRAME.assign(a=[pd.NA, *range(19)]), "goal", "column 'a' must be finite; row 0 holds no value"),
        (FRAME[["a"]], FRAME["goal"].iloc[:19], "their indices differ"),
        (FRAME[["a"]], FRAME["goal"].set_axis(range(5, 25)), "their indices differ"),
        (FRAME[["goal"]], "goal", "no column besides the target"),
        (FRAME.set_axis(["a", "a", "goal"], axis=1), "goal", "different name for every column"),
    ],
)
def test_what_is_wrong_with_a_frame_is_said_by_name(X: object, y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.Regression(X, y)


def test_coefficients_come_back_in_the_units_of_the_table() -> None:
    problem = fs.Regression(FRAME, "goal").standardise()
    np.testing.assert_allclose((problem.X**2).mean(axis=0), 1.0)
    end = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem).end
    design = np.column_stack([np.ones(20), FRAME[["a", "b"]]])
    exact = np.linalg.lstsq(design, FRAME["goal"], rcond=None)[0]
    np.testing.assert_allclose(problem.unscale(end), exact[1:], rtol=1e-8)
    np.testing.assert_allclose(problem.intercept(end), exact[0], rtol=1e-8)
    stacked = np.stack([end, 2 * end])
    np.testing.assert_allclose(problem.unscale(stacked)[0], exact[1:], rtol=1e-8)
    np.testing.assert_allclose(problem.intercept(stacked)[0], exact[0], rtol=1e-8)
    twice = fs.Regression(FRAME * 3.0, "goal").standardise().standardise()
    np.testing.assert_allclose(twice.unscale(3 * end), exact[1:], rtol=1e-8)


def test_several_targets_come_back_too() -> None:
    frame = FRAME.assign(other=FRAME["a"] * 2 + RNG.standard_normal(20))
    problem = fs.Regression(frame, ["goal", "other"]).standardise()
    beta = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    design = np.column_stack([np.ones(20), FRAME[["a", "b"]]])
    exact = np.linalg.lstsq(design, frame[["goal", "other"]], rcond=None)[0]
    np.testing.assert_allclose(problem.unscale(beta), exact[1:], rtol=1e-8)
    np.testing.assert_allclose(problem.intercept(beta), exact[0], rtol=1e-8)


def test_other_tables_are_taken_into_the_units_of_the_problem() -> None:
    problem = fs.Regression(FRAME, "goal").standardise()
    np.testing.assert_allclose(problem.transform(FRAME[["goal", "b", "a"]]), problem.X)
    np.testing.assert_allclose(problem.transform(FRAME[["a", "b"]].to_numpy()), problem.X)
    test = problem.transform(FRAME.iloc[:7], "goal")
    np.testing.assert_allclose(test.y, problem.y[:7])
    assert float(test.loss([0.0, 0.0])) == pytest.approx((problem.y[:7] ** 2).mean() / 2)
    with pytest.raises(ValueError, match="'b' is missing"):
        problem.transform(FRAME[["a"]])
    with pytest.raises(ValueError, match="must have 2 columns"):
        problem.transform(np.ones((3, 3)))
    plain = fs.Regression(FRAME, "goal")
    np.testing.assert_array_equal(plain.transform(FRAME), plain.X)
    np.testing.assert_array_equal(plain.unscale([1.0, 2.0]), [1.0, 2.0])
    assert plain.intercept([1.0, 2.0]) == 0.0


def test_labels_keep_their_values_and_the_truth_its_meaning() -> None:
    made = fs.datasets.sparse_regression(30, 5, 2, seed=0)
    scaled = made.standardise()
    np.testing.assert_allclose(scaled.unscale(scaled.truth), made.truth)
    labels = fs.Problem(made.X, np.sign(made.y), loss="logistic").standardise()
    assert set(labels.y) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="must be dense"):
        fs.Regression(scipy.sparse.csr_array(made.X), made.y).standardise()


@pytest.mark.parametrize("targets", [(), (2,)], ids=["vector", "matrix"])
def test_weighted_squares_are_standardised_by_weighted_means(targets: tuple[int, ...]) -> None:
    """Least squares with an intercept in the units of the table, whatever a row without weight holds."""
    rng = np.random.default_rng(3)
    X, y, w = rng.normal([100.0, 5.0], [10.0, 2.0], (12, 2)), rng.standard_normal((12, *targets)) + 7, rng.random(12)
    w[4], X[4], y[4] = 0.0, 1e6, -1e6
    problem = fs.Regression(X, y, sample_weight=w).standardise()
    beta = np.linalg.lstsq(problem.X, problem.y)[0]
    root, design = np.sqrt(w), np.column_stack([np.ones(12), X])
    exact = np.linalg.lstsq((design.T * root).T, (y.T * root).T)[0]
    np.testing.assert_allclose(problem.unscale(beta), exact[1:], rtol=1e-9)
    np.testing.assert_allclose(problem.intercept(beta), exact[0], rtol=1e-9)
    assert problem.transform(X, y).loss(beta) == pytest.approx(((design @ exact - y) ** 2).sum() / 24)
    assert problem.loss(beta) == pytest.approx((w * ((design @ exact - y) ** 2).T).sum() / 24)


@pytest.mark.parametrize("n", [97, 443, 1001])
@pytest.mark.parametrize("constant", [0.1, 1234.567, 98765.4321, 1e9 + 0.1, 1e-300, 1e300])
def test_a_constant_column_is_constant_whatever_its_mean_rounds_to(n: int, constant: float) -> None:
    a = RNG.standard_normal(n)
    for column, what in (
        (np.full(n, constant), "'b' is constant"),
        (np.where(a > 0, constant, np.nextafter(constant, np.inf)), "'b' varies by no more than the rounding"),
    ):
        with pytest.raises(ValueError, match=what):
            fs.Regression(np.column_stack([a, column]), a, ["a", "b"]).standardise()


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-13, 1.0, 1e200, 1e300])
def test_columns_of_every_scale_are_standardised_alike(scale: float) -> None:
    a = RNG.standard_normal((50, 2))
    X, mean, rms = standardised(scale * a, ["a", "b"])
    np.testing.assert_allclose(X, (a - a.mean(axis=0)) / a.std(axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(rms / scale, a.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(mean / scale, a.mean(axis=0), rtol=1e-11, atol=1e-14)


def test_a_small_spread_around_a_large_mean_keeps_its_digits() -> None:
    steps = np.arange(10.0)
    X, _, rms = standardised((1e9 + steps * 2.0**-10)[:, None], ["a"])
    np.testing.assert_allclose(X[:, 0], (steps - 4.5) / steps.std(), rtol=1e-14)
    np.testing.assert_allclose(rms, steps.std() * 2.0**-10, rtol=1e-14)
