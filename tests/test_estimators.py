"""Estimators as scikit-learn expects them, and as the flows they stand for."""

from __future__ import annotations

import contextlib
import unittest
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import flowsim as fs


@pytest.mark.parametrize("estimator", [fs.FlowRegressor(), fs.SaddleRegressor()], ids=["flow", "saddle"])
def test_the_checks_of_scikit_learn_pass(estimator: fs.FlowRegressor) -> None:
    for one, check in estimator_checks_generator(estimator, legacy=True, expected_failed_checks=None):
        with warnings.catch_warnings(), contextlib.suppress(unittest.SkipTest):
            warnings.simplefilter("ignore")
            check(one)


def test_a_misspelt_parameter_is_answered_with_the_right_one() -> None:
    with pytest.raises(TypeError, match="did you mean `alpha`"):
        fs.FlowRegressor(alhpa=1e-3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean `n_jumps`"):
        fs.SaddleRegressor(njumps=2)  # type: ignore[call-arg]


def test_at_rest_both_end_at_least_squares_in_the_units_of_the_table() -> None:
    X, y = load_diabetes(return_X_y=True, scaled=False)
    design = np.column_stack([np.ones(len(X)), X])
    exact = np.linalg.lstsq(design, y, rcond=None)[0]
    for estimator in (fs.SaddleRegressor(), fs.FlowRegressor(alpha="1e-30", rtol=1e-9)):
        fitted = estimator.fit(X, y)
        scale = np.abs(X).max(axis=0)
        np.testing.assert_allclose(fitted.coef_ * scale, exact[1:] * scale, rtol=1e-6, atol=1e-5 * np.abs(y).max())
        np.testing.assert_allclose(fitted.predict(X), design @ exact, rtol=1e-6)


def test_the_saddle_regressor_takes_features_one_by_one_and_may_stop() -> None:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    for jumps in (0, 1, 2):
        fitted = fs.SaddleRegressor(n_jumps=jumps).fit(X, y)
        assert np.count_nonzero(fitted.coef_) == jumps and fitted.n_iter_ == jumps
    assert list(fitted.feature_names_in_) == list(X.columns)
    for wrong in (-1, 1.5, "2", True):
        with pytest.raises(ValueError, match="`n_jumps` must be an integer >= 0"):
            fs.SaddleRegressor(n_jumps=wrong).fit(X, y)


def test_early_stopping_keeps_the_noise_out() -> None:
    problem = fs.datasets.sparse_regression(60, 80, 3, noise=1.0, seed=0)
    fresh = fs.datasets.sparse_regression(60, 80, 3, noise=1.0, seed=0)
    X = np.random.default_rng(1).standard_normal((500, 80))
    y = X @ fresh.truth
    for estimator in (fs.FlowRegressor(alpha=1e-6), fs.SaddleRegressor()):
        estimator.set_params(validation_fraction=0.3, random_state=0)
        late = estimator.fit(problem.X, problem.y).score(X, y)
        early = estimator.set_params(early_stopping=True).fit(problem.X, problem.y).score(X, y)
        assert early > late + 0.05


def test_units_do_not_matter_and_constant_columns_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4))
    y = X[:, 0] - 2 * X[:, 2] + 0.1 * rng.standard_normal(40)
    plain = fs.FlowRegressor().fit(X, y)
    units = np.array([1e-6, 1e3, 7.0, 1e8])
    other = fs.FlowRegressor().fit(np.column_stack([X * units + 5.0, np.full(40, 1234.567)]), 1e5 * y + 3.0)
    np.testing.assert_allclose(other.coef_[:4] * units, 1e5 * plain.coef_, rtol=1e-4, atol=1e-2)
    assert other.coef_[4] == 0.0


def test_they_work_in_pipelines_and_searches() -> None:
    frame = pd.DataFrame(load_diabetes().data, columns=load_diabetes().feature_names)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), fs.SaddleRegressor()), {"saddleregressor__n_jumps": [1, 4, None]}, cv=3
    )
    search.fit(frame, load_diabetes().target)
    assert search.best_score_ > 0.4


@pytest.mark.parametrize("early_stopping", [False, True])
def test_at_time_zero_the_coefficients_are_those_of_the_start(early_stopping: bool) -> None:
    rng = np.random.default_rng(0)
    X = StandardScaler().fit_transform(rng.standard_normal((30, 2)))
    y = X.sum(axis=1) if early_stopping else X[:, 0]
    y = y / np.abs(y - y.mean()).max()
    # Depth 3 from alpha: every coefficient is alpha^3. That of the truth: held-out rows choose the start.
    alpha = float(np.linalg.lstsq(X, y)[0][1]) ** (1 / 3) if early_stopping else 0.5
    fitted = fs.FlowRegressor(depth=3, alpha=alpha, t_end=1.0 if early_stopping else 0, early_stopping=early_stopping)
    fitted.random_state = 0
    np.testing.assert_allclose(fitted.fit(X, y).coef_, alpha**3, rtol=1e-9)
    if not early_stopping:
        assert fitted.t_ == 0.0


def test_masked_entries_and_coefficients_beyond_floats_are_refused() -> None:
    X = np.random.default_rng(0).standard_normal((9, 2))
    y = X[:, 0]
    for given in ((np.ma.masked_greater(X, 1.0), y), (X, np.ma.masked_greater(y, 0.5))):
        with pytest.raises(ValueError, match="must not have masked entries"):
            fs.FlowRegressor().fit(*given)
    with pytest.raises(ValueError, match="beyond the range of floats"):
        fs.SaddleRegressor().fit(1e-310 * X, y)
