"""The limit process on public tables: jump times are knots of LARS, paths on integers those of rational arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import lars_path

import flowsim as fs

#: Tables that come with these packages.
SCIKIT = ("diabetes", "iris", "wine", "breast_cancer", "digits", "linnerud")
STATSMODELS = ("longley", "stackloss", "scotland", "statecrime", "ccard", "copper", "cpunish", "spector", "committee")
UV = fs.DiagonalNetwork("u*v")


def numbers(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and a numeric target."""
    if name in SCIKIT:
        table = getattr(datasets, f"load_{name}")()
        X, y = np.asarray(table.data, dtype=float), np.asarray(table.target, dtype=float)
        return (X, y) if y.ndim == 1 else (X, y[:, 0])
    loaded = getattr(pytest.importorskip("statsmodels.api").datasets, name).load_pandas()
    return np.asarray(loaded.exog, dtype=float), np.asarray(loaded.endog, dtype=float)


def standardised(name: str) -> fs.Regression:
    X, y = numbers(name)
    X = X[:, X.std(axis=0) > 0]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return fs.Regression(X, y - y.mean())


@pytest.mark.parametrize("name", SCIKIT + STATSMODELS)
def test_jump_times_are_knots_of_lars_up_to_the_first_drop(name: str) -> None:
    problem = standardised(name)
    path = fs.saddle_to_saddle(UV, problem)
    alphas = lars_path(problem.X, problem.y, method="lasso", alpha_min=0)[0]
    # Knots that only add; at the first drop LARS keeps a coefficient that the limit process lets go.
    first = [event.time for event in path.events if event.kind == "deactivated"]
    count = int((path.jump_times < min(first, default=np.inf)).sum())
    count = min(count, len(alphas) - 1)
    assert count >= 2
    np.testing.assert_allclose(path.jump_times[:count], 1 / alphas[:count], rtol=1e-9)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SCIKIT + STATSMODELS)
def test_whole_paths_on_rounded_tables_are_those_of_rational_arithmetic(name: str) -> None:
    """Three digits a column: dependent columns are dependent exactly, and ties are ties."""
    problem = standardised(name)
    keep = slice(None) if problem.d <= 16 else slice(0, 16)
    X = np.round(100 * problem.X[:40, keep])
    y = np.round(1000 * problem.y[:40] / np.abs(problem.y).max())
    rounded = fs.Regression(X[:, X.any(axis=0)], y)
    path, exact = fs.saddle_to_saddle(UV, rounded), fs.saddle_to_saddle(UV, rounded, exact=True)
    np.testing.assert_allclose(path.jump_times, exact.jump_times, rtol=1e-9)
    size = np.abs(exact.saddles).max()
    np.testing.assert_allclose(path.saddles, exact.saddles, rtol=0, atol=1e-9 * size)
