"""Problems: data with a loss, and linear regression."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, log_abs
from flowsim.card import bars, card
from flowsim.hints import hinting
from flowsim.plain_numbers import reals
from flowsim.problem.checks import (
    check_features,
    check_names,
    check_target,
    check_truth,
    check_weight,
    scaled_rows,
    sums_of_squares,
)
from flowsim.problem.convexity import check_on_targets
from flowsim.problem.in_units import InUnits
from flowsim.problem.kept import kept
from flowsim.problem.labelled import unlabelled
from flowsim.problem.losses import SQUARED, Loss, as_loss


def binary_exponent(values: Array) -> int | None:
    """Binary exponent of the largest entry; None if all are zero."""
    top = float(max(values.max(initial=0.0), -values.min(initial=0.0)))
    return math.frexp(top)[1] if top > 0 else None


class Problem(InUnits):
    r"""Empirical risk of linear predictions.

    .. math:: L(\beta) = \frac1n \sum_{i=1}^n w_i \, \ell(f_i, y_i), \quad f = X\beta, \qquad
              g(\beta) = \nabla L(\beta) = \frac{1}{n} X^\top \big(w \circ \ell'(f, y)\big).

    With several targets the losses of a row are added.

    Parameters
    ----------
    X : array (n, d), data frame, scipy.sparse matrix or array, or scipy.sparse.linalg.LinearOperator
        Features, one row per observation. Finite. Sparse input stays sparse; a data frame gives its columns' names.
    y : array (n,) or (n, m), or the name of a column of X, or a list of such names
        One target, or m targets. Finite; labels -1 and +1 for the logistic and exponential loss, counts for "poisson".
    loss : str or Loss
        "squared", ``(f - y)^2 / 2``; "logistic", ``ln(1 + exp(-y f))``; "exponential", ``exp(-y f)``; "log-cosh",
        ``ln cosh(f - y)``; "pseudo-huber", ``sqrt(1 + (f - y)^2) - 1``; "poisson", ``exp(f) - y f``; or a
        custom :class:`flowsim.losses.Loss`. With squares this is a :class:`flowsim.Regression`.
    sample_weight : array (n,), optional
        The weights ``w_i >= 0``, 1 by default. Weighted squares are a Regression whose rows and targets are multiplied
        by ``sqrt(w_i)``.
    feature_names : sequence of d str, optional
        Defaults to ``x0, x1, ...``.
    truth : array (d,) or (d, m), optional
        The true coefficients of synthetic data: kept for comparisons, not used.

    Raises
    ------
    ValueError
        For a wrong shape, no rows or columns, complex or non-numeric entries, NaN or infinity; for targets that the
        loss does not support, and for a loss that is not convex at a target.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Problem([[1.0, 0.0], [0.0, 2.0]], [1.0, -1.0], loss="logistic")
    >>> round(float(problem.loss([0.0, 0.0])), 6), problem.gradient([0.0, 0.0])
    (0.693147, array([-0.25,  0.5 ]))
    """

    #: ``sqrt(w_i)``, by which rows of X and y of weighted squares are multiplied; None without weights
    row_scale: Array | None = None

    def __new__(cls, X: Any = None, y: Any = None, loss: str | Loss = "squared", **more: Any) -> Problem:
        """With squares, an instance of Regression."""
        # Without data: unpickling creates an instance of the original class.
        chosen = Regression if cls is Problem and X is not None and as_loss(loss) is SQUARED else cls
        return object.__new__(chosen)

    @hinting
    def __init__(
        self,
        X: Any,
        y: ArrayLike,
        loss: str | Loss = "squared",
        *,
        sample_weight: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
        truth: ArrayLike | None = None,
    ) -> None:
        self._read(X, y, as_loss(loss), sample_weight, feature_names, truth)

    def _read(
        self,
        X: Any,
        y: ArrayLike,
        kind: Loss,
        weight: ArrayLike | None,
        names: Sequence[str] | None,
        truth: ArrayLike | None = None,
    ) -> None:
        X, y, names = unlabelled(X, y, names)
        self.X = check_features(X)
        self.n, self.d = (int(size) for size in self.X.shape)
        self.y = check_target(y, self.n)
        self.loss_function = kind
        self.sample_weight = check_weight(weight, self.n)
        if names is not None:
            self.feature_names = check_names(names, self.d)
        self.truth = None if truth is None else check_truth(truth, self.d)
        if kind is not SQUARED:
            check_on_targets(kind, self.y)
        elif self.sample_weight is not None:
            root = self.row_scale = np.sqrt(self.sample_weight)
            self.X, self.y = scaled_rows(self.X, root), self._over_targets(root) * self.y
            self.sample_weight = None

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the d features; default names are generated on demand."""
        return tuple(f"x{i}" for i in range(self.d))

    @property
    def beta_shape(self) -> tuple[int, ...]:
        """Of the coefficients: (d,), or (d, m) where y is a matrix."""
        return (self.d, *self.y.shape[1:])

    @property
    def n_targets(self) -> int:
        """m, the number of columns of y (1 for a vector)."""
        return 1 if self.y.ndim == 1 else int(self.y.shape[1])

    @property
    def is_dense(self) -> bool:
        return isinstance(self.X, np.ndarray)

    @property
    def entry_weights(self) -> Array:
        """``w_i`` for every entry of y, in its shape."""
        if self.sample_weight is None:
            return np.ones(self.y.shape)
        return np.ascontiguousarray(np.broadcast_to(self._over_targets(self.sample_weight), self.y.shape))

    def with_target(self, y: ArrayLike) -> Problem:
        """The same features, loss and sample weights with another target, in the units of ``problem.y``."""
        same = object.__new__(type(self))
        same._read(self.X, y, self.loss_function, self.sample_weight, self.__dict__.get("feature_names"))
        same.row_scale = self.row_scale
        return same

    def predict(self, beta: ArrayLike) -> Array:
        """``X beta``: (..., d) to (..., n), or (..., d, m) to (..., n, m) with several targets."""
        beta = reals("beta", beta)
        if self.y.ndim == 1:
            self._check_beta(beta, (self.d,))
            if beta.ndim == 1:
                return np.asarray(self.X @ beta)
            flat = beta.reshape(-1, self.d)
            return np.asarray(self.X @ flat.T).T.reshape(*beta.shape[:-1], self.n)
        self._check_beta(beta, (self.d, self.n_targets))
        if beta.ndim == 2:
            return np.asarray(self.X @ beta)
        stacked = np.moveaxis(beta, -2, 0).reshape(self.d, -1)
        out = np.asarray(self.X @ stacked).reshape(self.n, *beta.shape[:-2], self.n_targets)
        return np.moveaxis(out, 0, -2)

    def loss(self, beta: ArrayLike) -> Array:
        """``L(beta)`` over any leading axes of beta."""
        with np.errstate(over="ignore"):
            values = self.loss_function.value(self.predict(beta), self.y)
            return np.sum(self._weighted(values), axis=self._axes) / self.n

    def log_loss(self, beta: ArrayLike) -> Array:
        """``ln L(beta)``, finite far below the range of floats; -inf where L is 0, NaN where L is negative."""
        f = self.predict(beta)
        if not (self.loss_function.infimum(self.y) >= 0).all():
            # Terms of both signs: their logarithms cannot be summed.
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                values = self.loss_function.value(f, self.y)
                return np.log(np.sum(self._weighted(values), axis=self._axes) / self.n)
        logs = self.loss_function.log(f, self.y)
        if self.sample_weight is not None:
            logs = logs + log_abs(self.entry_weights)
        largest = np.max(logs, axis=self._axes, keepdims=True)
        shift = np.where(np.isfinite(largest), largest, 0.0)
        with np.errstate(divide="ignore", under="ignore"):
            total = np.log(np.sum(np.exp(logs - shift), axis=self._axes))
        return total + np.squeeze(shift, axis=self._axes) - np.log(self.n)

    def slopes(self, f: ArrayLike) -> Array:
        """``w loss'(f, y)`` at predictions f of shape (..., n) or (..., n, m)."""
        with np.errstate(over="ignore"):
            return self._weighted(self.loss_function.slope(np.asarray(f, dtype=float), self.y))

    def curvatures(self, f: ArrayLike) -> Array:
        """``w loss''(f, y)``, as :meth:`slopes`."""
        with np.errstate(over="ignore"):
            return self._weighted(self.loss_function.curvature(np.asarray(f, dtype=float), self.y))

    def gradient(self, beta: ArrayLike) -> Array:
        """``X^T (w loss'(X beta, y)) / n``, the shape of one beta."""
        return self.rmatvec(self.slopes(self.predict(beta))) / self.n

    def gradients(self, beta: Array) -> Array:
        """The gradient at each of beta (T, d), for a single target."""
        return self.rmatvec(self.slopes(self.predict(beta)).T).T / self.n

    def hessian_product(self, beta: ArrayLike, direction: ArrayLike) -> Array:
        """``X^T (w loss''(X beta, y) X v) / n``, the shape of one beta."""
        return self.rmatvec(self.curvatures(self.predict(beta)) * self.predict(direction)) / self.n

    def rmatvec(self, residual: ArrayLike) -> Array:
        """``X^T r`` for r of shape (n,) or (n, m)."""
        return np.asarray(self.X.T @ np.asarray(residual, dtype=float))

    @property
    def feature_variances(self) -> Array:
        """``sigma_i^2 = (X^T X / n)_ii``, shape (d,); of X as it is now, an operator's as they were at first."""
        if self.is_dense or hasattr(self.X, "tocsr"):
            return sums_of_squares(self.X) / self.n
        return np.asarray(kept(self, "variances", lambda: sums_of_squares(self.X) / self.n))

    @property
    def column_norms(self) -> Array:
        """``||X_i||``, shape (d,)."""
        return np.sqrt(self.n * self.feature_variances)

    @property
    def largest_drive(self) -> float:
        """``max_i ||X_i|| ||y|| / n``, which no entry of ``X^T y / n`` exceeds."""
        return float(self.column_norms.max() * np.linalg.norm(self.y)) / self.n

    @property
    def binary_exponents(self) -> tuple[int | None, int | None]:
        """Binary exponents of the largest entries of X and y; None for zeros, and for an operator."""
        entries = self.X if self.is_dense else getattr(self.X, "data", None)
        return binary_exponent(entries) if isinstance(entries, np.ndarray) else None, binary_exponent(self.y)

    @property
    def coefficient_size(self) -> float:
        """The largest coefficient of the fits of single features, an estimate of the size of the solution."""
        slopes = self.slopes(np.zeros(self.y.shape))
        force = np.abs(self.rmatvec(slopes) / self.n).reshape(self.d, -1).max(axis=1)
        variances = self.feature_variances
        rounding = float(np.finfo(float).eps) * float(np.abs(slopes).max()) * np.sqrt(variances)
        seen = (variances > 0) & (force > rounding)
        return float((force[seen] / variances[seen]).max(initial=0.0))

    @property
    def safe_size(self) -> float:
        """A bound on the entries of beta below which the loss does not overflow; negative if there is none."""
        spare = self.loss_function.safe_prediction - float(np.abs(self.y).max())
        entries = self.X if self.is_dense else getattr(self.X, "data", None)
        squares = self.n * self.feature_variances.sum() if entries is None else np.vdot(entries, entries)
        total = math.sqrt(self.d * float(squares))  # the norms of all columns add up to this at most
        return min(spare / total, sys.float_info.max) if total > 0 else spare

    def __repr__(self) -> str:
        targets = "" if self.y.ndim == 1 else f", {self.n_targets} targets"
        loss = "" if isinstance(self, Regression) else f", loss={self.loss_function.name!r}"
        return f"{type(self).__name__}(n={self.n}, d={self.d}{targets}{loss})"

    def _repr_html_(self) -> str:
        zero = np.zeros(self.beta_shape)
        facts = self._facts | {"loss at 0": float(self.loss(zero))}
        size = np.abs(self.gradient(zero)).reshape(self.d, -1).max(axis=1)
        figure = bars(size, "gradient of each feature or row")
        return card(type(self).__name__, facts, figure, "|gradient at 0|, largest first")

    @property
    def _facts(self) -> dict[str, Any]:
        kind = "dense" if self.is_dense else "sparse" if hasattr(self.X, "tocsr") else "operator"
        return {
            "observations": self.n,
            "features": f"{self.d}, {kind}",
            "targets": self.n_targets if self.y.ndim > 1 else None,
            "names": ", ".join(self.feature_names[:6]) + (", ..." if self.d > 6 else ""),
            "loss": self.loss_function.name,
        }

    @property
    def _axes(self) -> tuple[int, ...]:
        return (-1,) if self.y.ndim == 1 else (-2, -1)

    def _over_targets(self, of_rows: Array) -> Array:
        return of_rows if self.y.ndim == 1 else of_rows[:, None]

    def _weighted(self, values: Array) -> Array:
        return values if self.sample_weight is None else values * self._over_targets(self.sample_weight)

    def _check_beta(self, beta: Array, shape: tuple[int, ...]) -> None:
        if beta.shape[-len(shape) :] != shape:
            raise ValueError(f"`beta` must end in shape {shape}; received {beta.shape}.")


class Regression(Problem):
    r"""Linear regression: a problem with the squared loss.

    .. math:: L(\beta) = \frac{1}{2n} \lVert X\beta - y \rVert^2, \qquad
              g(\beta) = \nabla L(\beta) = \frac{1}{n} X^\top (X\beta - y).

    Parameters
    ----------
    X, y, feature_names, sample_weight, truth
        As for :class:`flowsim.Problem`.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0])
    >>> problem.n, problem.d, float(problem.loss([1.0, 0.5]))
    (2, 2, 0.0)
    """

    @hinting
    def __init__(
        self,
        X: Any,
        y: ArrayLike,
        *third: Sequence[str] | str | Loss | None,
        feature_names: Sequence[str] | None = None,
        loss: str | Loss = "squared",
        sample_weight: ArrayLike | None = None,
        truth: ArrayLike | None = None,
    ) -> None:
        if len(third) > 1:
            raise TypeError(f"Regression takes at most 3 positional arguments; received {2 + len(third)}.")
        # `Problem(X, y, "squared")` calls this too, with the loss as third argument.
        for value in third:
            if isinstance(value, str | Loss):
                loss = value
            elif value is not None:
                feature_names = value
        if as_loss(loss) is not SQUARED:
            raise ValueError(f"`loss` of a Regression is 'squared'; received {loss!r}: use fs.Problem.")
        self._read(X, y, SQUARED, sample_weight, feature_names, truth)

    def loss(self, beta: ArrayLike) -> Array:
        """``1/(2n) ||X beta - y||^2`` over any leading axes of beta."""
        residual = self.predict(beta) - self.y
        return np.sum(residual**2, axis=self._axes) / (2 * self.n)

    def gradient(self, beta: ArrayLike) -> Array:
        """``X^T (X beta - y) / n``, the shape of one beta."""
        return self.rmatvec(self.predict(beta) - self.y) / self.n

    @property
    def independence(self) -> float:
        """The least distance of a feature from the span of all others, relative to its norm; 0 for more than n."""
        return 0.0 if self.d > self.n or not self.is_dense else float(kept(self, "independence", self._independence))

    def _independence(self) -> float:
        R = np.linalg.qr(self.X, mode="r")
        with np.errstate(all="ignore"):
            try:
                return float((1.0 / (self.column_norms * np.linalg.norm(np.linalg.inv(R), axis=1))).min())
            except np.linalg.LinAlgError:
                return 0.0

    @property
    def least_squares_loss(self) -> float:
        """``min_beta L(beta)``."""
        return float(kept(self, "least loss", self._least_squares_loss))

    def _least_squares_loss(self) -> float:
        if isinstance(self.X, np.ndarray):
            # A wide X by its triangular factor, of the same range and singular values.
            X = self.X if self.d <= self.n else np.asarray(np.linalg.qr(self.X.T, mode="r")).T
            solution = np.linalg.lstsq(X, self.y, rcond=max(self.X.shape) * np.finfo(float).eps)[0]
            return float(np.sum((X @ solution - self.y) ** 2)) / (2 * self.n)
        from scipy.sparse.linalg import lsmr

        columns = self.y.reshape(self.n, -1).T
        norms = (lsmr(self.X, each, atol=1e-14, btol=1e-14, maxiter=20 * min(self.n, self.d))[3] for each in columns)
        return float(sum(norm**2 for norm in norms) / (2 * self.n))
