"""Tables shipped with the package."""

from __future__ import annotations

from importlib import resources

import numpy as np

from flowsim.problem import Regression
from flowsim.problem.problems import Array
from flowsim.problem.scaling import standardised


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
    return Regression(table[:, :-1], table[:, -1], names[:-1]).standardise()


def standardise(X: Array, names: list[str] | tuple[str, ...]) -> Array:
    """Centre each column and scale it to mean square 1; :meth:`flowsim.Problem.standardise` also keeps the scaling.

    Raises ValueError if a column is constant or varies by rounding alone.
    """
    return standardised(X, names)[0]
