"""Tables shipped with the package."""

from __future__ import annotations

from importlib import resources

import numpy as np

from flowsim.problem import Regression
from flowsim.problem.problems import Array

__all__ = ["diabetes", "standardise"]


def diabetes() -> Regression:
    """The diabetes table: 442 patients, 10 features, disease progression after one year.

    Columns are standardised so that ``(X**2).mean(0) == 1`` and ``X.mean(0) == 0``; y is centred.

    References
    ----------
    Efron, Hastie, Johnstone, Tibshirani, *Least angle regression*, Annals of Statistics 32 (2004).
    """
    source = resources.files("flowsim.datasets").joinpath("diabetes.csv")
    with source.open(encoding="utf-8") as lines:
        names = lines.readline().strip().split(",")
        table = np.loadtxt(lines, delimiter=",")
    return Regression(standardise(table[:, :-1], names[:-1]), table[:, -1] - table[:, -1].mean(), names[:-1])


def standardise(X: Array, names: list[str] | tuple[str, ...]) -> Array:
    """Centre each column and scale it to mean square 1.

    Raises
    ------
    ValueError
        If a column is constant.
    """
    X = X - X.mean(axis=0)
    scale = np.sqrt((X**2).mean(axis=0))
    # A constant column leaves rounding of the size of its mean behind, not exact zeros.
    constant = scale <= 1e-12 * np.maximum(np.abs(X).max(axis=0), 1.0) if len(X) > 1 else np.full(X.shape[1], True)
    if constant.any():
        raise ValueError(
            f"`X` must vary in every column to be standardised; {names[int(np.argmax(constant))]!r} is constant."
        )
    return X / scale
