"""Flows and limit paths as scikit-learn estimators.

Both standardise features and target, so that `alpha` and times have the same meaning for every table,
and return coefficients in the units of the data. Needs scikit-learn: ``pip install 'flowsim[learn]'``.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from flowsim.arrays import Array, Bools
from flowsim.extras import need
from flowsim.flows import gradient_flow
from flowsim.hints import hinting
from flowsim.limits import SaddlePath, saddle_to_saddle
from flowsim.network import DiagonalNetwork
from flowsim.plain_numbers import count
from flowsim.problem import Regression
from flowsim.problem.scaling import centred, standardised
from flowsim.results import Trajectory

need("sklearn", "flowsim.estimators")

from sklearn.base import BaseEstimator, RegressorMixin  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

#: Number of times at which early stopping evaluates the held-out rows, evenly spaced in arc length.
_LOOKS = 200


class _Linear(RegressorMixin, BaseEstimator):
    """The base class: units, held-out rows, predictions."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to X (n, d) and y (n,)."""
        for name, given in (("X", X), ("y", y)):
            if np.ma.is_masked(given):  # scikit-learn takes the numbers under the mask
                raise ValueError(f"`{name}` must not have masked entries: drop such rows, or fill them.")
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        y = np.asarray(y, dtype=float)
        varies = _varies(X)
        self.coef_ = np.zeros(X.shape[1])
        self.intercept_ = float(centred(y)[1])
        self.n_iter_ = 0
        if not varies.any() or y.max() == y.min():
            return self
        features, mean, scale = standardised(X[:, varies], [str(i) for i in np.flatnonzero(varies)])
        target, target_mean = centred(y)
        size = float(np.abs(target).max())
        beta = self._coefficients(features, target / size)
        with np.errstate(over="ignore"):
            self.coef_[varies] = size * beta / scale
        if not np.isfinite(self.coef_).all():
            raise ValueError(
                f"coefficients in the units of the data are beyond the range of floats: columns of `X` vary "
                f"by as little as {scale.min():.3g}. Scale them."
            )
        self.intercept_ = float(target_mean - mean @ self.coef_[varies])
        return self

    def predict(self, X: Any) -> Array:
        """``X coef_ + intercept_``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_ + self.intercept_)

    def _coefficients(self, X: Array, y: Array) -> Array:
        raise NotImplementedError

    def _network(self: Any) -> DiagonalNetwork:
        if self.depth is not None:
            return DiagonalNetwork(depth=self.depth)
        return DiagonalNetwork(self.formula)

    def _held_out(self: Any, X: Array, y: Array) -> tuple[Regression, Regression]:
        """Training and validation rows."""
        parts = train_test_split(X, y, test_size=self.validation_fraction, random_state=self.random_state)
        return Regression(parts[0], parts[2]), Regression(parts[1], parts[3])


class FlowRegressor(_Linear):
    """Linear regression by the gradient flow of a network, to rest or to a time chosen on held-out rows.

    Parameters
    ----------
    formula : str
        One coordinate of the network.
    depth : int, optional
        Product of this many weights, instead of `formula`.
    alpha : float or str
        Scale of initialisation: the smaller, the sparser.
    t_end : float, optional
        Length of the run in time, with the target scaled to largest entry 1. Default: until the flow is at rest.
    early_stopping : bool
        Choose the time of best prediction on held-out rows, then fit all rows up to that time.
    validation_fraction : float
        Fraction of the rows held out for early stopping.
    random_state : int, RandomState or None
        Seed of the choice of these rows.
    rtol : float
        Relative accuracy of the weights.

    Attributes
    ----------
    coef_ : array (d,)
    intercept_ : float
    t_ : float
        The time at which the flow was stopped.
    trajectory_ : Trajectory
        The flow on standardised data.
    n_iter_ : int
        Steps of the integrator.
    """

    @hinting
    def __init__(
        self,
        formula: str = "u*v",
        *,
        depth: int | None = None,
        alpha: float | str = 1e-3,
        t_end: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        rtol: float = 1e-6,
    ) -> None:
        self.formula = formula
        self.depth = depth
        self.alpha = alpha
        self.t_end = t_end
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.rtol = rtol

    def _coefficients(self, X: Array, y: Array) -> Array:
        whole = Regression(X, y)
        t_end = self._best_time(X, y) if self.early_stopping else self.t_end
        stays = t_end == 0  # at the start
        self.trajectory_ = self._flow(whole, self.t_end or None if stays else t_end)
        last = 0 if stays else -1
        self.t_ = float(self.trajectory_.t[last])
        self.n_iter_ = int(self.trajectory_.stats.get("steps", 0))
        return self.trajectory_.beta[last]

    def _flow(self, problem: Regression, t_end: float | None) -> Trajectory:
        return gradient_flow(self._network(), problem, t_end, alpha=self.alpha, rtol=self.rtol)

    def _best_time(self, X: Array, y: Array) -> float:
        learned, judged = self._held_out(X, y)
        flow = self._flow(learned, self.t_end)
        states = flow.at(np.linspace(0.0, flow.arclength[-1], _LOOKS), clock="arclength")
        return float(states.t[int(np.argmin(judged.loss(states.beta)))])


class SaddleRegressor(_Linear):
    """Linear regression by the limit of vanishing initialisation: a plateau of the saddle-to-saddle process.

    Parameters
    ----------
    formula, depth
        As for :class:`FlowRegressor`.
    n_jumps : int, optional
        Stop on the plateau after this many jumps. Default: the end of the path, or the choice of early stopping.
    early_stopping, validation_fraction, random_state
        As for :class:`FlowRegressor`, for the choice of the plateau.

    Attributes
    ----------
    coef_ : array (d,)
    intercept_ : float
    path_ : SaddlePath
        The path on standardised data.
    n_jumps_ : int
        Number of jumps.
    n_iter_ : int
        The same.
    """

    @hinting
    def __init__(
        self,
        formula: str = "u*v",
        *,
        depth: int | None = None,
        n_jumps: int | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.formula = formula
        self.depth = depth
        self.n_jumps = n_jumps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _coefficients(self, X: Array, y: Array) -> Array:
        if self.n_jumps is not None:
            count("n_jumps", self.n_jumps, 0)
        self.path_: SaddlePath = saddle_to_saddle(self._network(), Regression(X, y))
        last = len(self.path_.jump_times)
        if self.early_stopping:
            learned, judged = self._held_out(X, y)
            path = saddle_to_saddle(self._network(), learned)
            best = int(np.argmin(judged.loss(path.saddles)))
            # Times are comparable between the two paths, numbers of jumps are not.
            edges = path.edges()
            time = (edges[best] + edges[best + 1]) / 2
            last = int(np.searchsorted(self.path_.jump_times, time, side="right"))
        if self.n_jumps is not None:
            last = min(last, self.n_jumps)
        self.n_jumps_ = self.n_iter_ = last
        return np.asarray(self.path_.saddles[last])


def _varies(X: Array) -> Bools:
    """Columns that vary by more than rounding."""
    largest, smallest = X.max(axis=0), X.min(axis=0)
    size = np.maximum(np.abs(largest), np.abs(smallest))
    return np.asarray(largest / 2 - smallest / 2 > 8 * np.spacing(size))
