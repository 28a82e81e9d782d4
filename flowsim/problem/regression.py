"""The data and the loss."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Regression"]

Array = NDArray[np.float64]

#: Columns of the identity pushed through a LinearOperator at once when its column norms are needed.
_OPERATOR_BLOCK = 256
#: Squares of predictions up to this, summed over any data that fits into memory, stay in the range of floats.
_SAFE_PREDICTION = 1e140


class Regression:
    r"""Linear regression, the data of every flow.

    .. math:: L(\beta) = \frac{1}{2n} \lVert X\beta - y \rVert^2, \qquad
              g(\beta) = \nabla L(\beta) = \frac{1}{n} X^\top (X\beta - y).

    Parameters
    ----------
    X : array (n, d), scipy.sparse matrix or array, or scipy.sparse.linalg.LinearOperator
        Features, one row an observation. Finite. Sparse input stays sparse.
    y : array (n,) or (n, m)
        One target, or m targets. Finite.
    feature_names : sequence of d str, optional
        Defaults to ``x0, x1, ...``.

    Raises
    ------
    ValueError
        For a wrong shape, no rows or columns, complex or non-numeric entries, NaN or infinity.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0])
    >>> problem.n, problem.d, float(problem.loss([1.0, 0.5]))
    (2, 2, 0.0)
    """

    def __init__(self, X: Any, y: ArrayLike, feature_names: Sequence[str] | None = None) -> None:
        self.X = _check_features(X)
        self.n, self.d = (int(size) for size in self.X.shape)
        self.y = _check_target(y, self.n)
        if feature_names is not None:
            self.feature_names = _check_names(feature_names, self.d)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the d features; a million default ones are made only if somebody asks."""
        return tuple(f"x{i}" for i in range(self.d))

    @property
    def n_targets(self) -> int:
        """m, the number of columns of y (1 for a vector)."""
        return 1 if self.y.ndim == 1 else int(self.y.shape[1])

    @property
    def is_dense(self) -> bool:
        return isinstance(self.X, np.ndarray)

    def predict(self, beta: ArrayLike) -> Array:
        """``X beta``: (..., d) to (..., n), or (..., d, m) to (..., n, m) with several targets."""
        beta = np.asarray(beta, dtype=float)
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
        """``1/(2n) ||X beta - y||^2`` over any leading axes of beta."""
        residual = self.predict(beta) - self.y
        axes = (-1,) if self.y.ndim == 1 else (-2, -1)
        return np.sum(residual**2, axis=axes) / (2 * self.n)

    def gradient(self, beta: ArrayLike) -> Array:
        """``X^T (X beta - y) / n``, the shape of one beta."""
        return self.rmatvec(self.predict(beta) - self.y) / self.n

    def rmatvec(self, residual: ArrayLike) -> Array:
        """``X^T r`` for r of shape (n,) or (n, m)."""
        return np.asarray(self.X.T @ np.asarray(residual, dtype=float))

    @cached_property
    def feature_variances(self) -> Array:
        """``sigma_i^2 = (X^T X / n)_ii``, shape (d,)."""
        if isinstance(self.X, np.ndarray):
            return np.einsum("ni,ni->i", self.X, self.X) / self.n
        if hasattr(self.X, "multiply"):
            return np.asarray(self.X.multiply(self.X).sum(axis=0)).ravel() / self.n
        squares = np.empty(self.d)
        for first in range(0, self.d, _OPERATOR_BLOCK):
            last = min(first + _OPERATOR_BLOCK, self.d)
            block = np.zeros((self.d, last - first))
            block[np.arange(first, last), np.arange(last - first)] = 1.0
            squares[first:last] = np.sum(np.asarray(self.X @ block) ** 2, axis=0)
        return squares / self.n

    @cached_property
    def column_norms(self) -> Array:
        """``||X_i||``, shape (d,)."""
        return np.sqrt(self.n * self.feature_variances)

    @cached_property
    def safe_size(self) -> float:
        """The loss is a float wherever no entry of beta is larger than this, negative where there is no such size."""
        spare = _SAFE_PREDICTION - float(np.abs(self.y).max())
        total = float(self.column_norms.sum())
        return min(spare / total, sys.float_info.max) if total > 0 else spare

    @cached_property
    def least_squares_loss(self) -> float:
        """``min_beta L(beta)``."""
        if isinstance(self.X, np.ndarray):
            solution = np.linalg.lstsq(self.X, self.y, rcond=None)[0]
            return float(self.loss(solution))
        from scipy.sparse.linalg import lsmr

        columns = self.y.reshape(self.n, -1).T
        return float(
            sum(lsmr(self.X, column, atol=1e-14, btol=1e-14, maxiter=20 * min(self.n, self.d))[3] ** 2
                for column in columns) / (2 * self.n)
        )  # fmt: skip

    def __repr__(self) -> str:
        targets = "" if self.y.ndim == 1 else f", {self.n_targets} targets"
        return f"Regression(n={self.n}, d={self.d}{targets})"

    def _check_beta(self, beta: Array, shape: tuple[int, ...]) -> None:
        if beta.shape[-len(shape) :] != shape:
            raise ValueError(f"`beta` must end in shape {shape}; received {beta.shape}.")


def _check_features(X: Any) -> Any:
    if hasattr(X, "matvec") and hasattr(X, "shape"):
        if np.issubdtype(np.dtype(X.dtype or float), np.complexfloating):
            raise ValueError("`X` must be real; received a complex LinearOperator.")
    elif hasattr(X, "tocsr"):
        X = X.tocsr()
        if X.dtype.kind not in "fiub":
            raise ValueError(f"`X` must be real numbers; received entries of type {X.dtype}.")
        X = X.astype(float)
        _check_finite("X", X.data)
    else:
        X = _as_float("X", X)
    if len(X.shape) != 2:
        raise ValueError(f"`X` must have two dimensions (n, d); received shape {tuple(X.shape)}.")
    if min(X.shape) < 1:
        raise ValueError(f"`X` must have at least one row and one column; received shape {tuple(X.shape)}.")
    return X


def _check_target(y: ArrayLike, n: int) -> Array:
    y = _as_float("y", y)
    if y.ndim not in (1, 2) or y.shape[0] != n or y.size == 0:
        raise ValueError(f"`y` must have shape ({n},) or ({n}, m) to match `X`; received {y.shape}.")
    return y


def _check_names(names: Sequence[str], d: int) -> tuple[str, ...]:
    names = tuple(str(name) for name in names)
    if len(names) != d:
        raise ValueError(f"`feature_names` must hold {d} names, one for each column of `X`; received {len(names)}.")
    return names


def _as_float(name: str, value: Any) -> Array:
    try:
        raw = np.asarray(value)
        if raw.dtype.kind == "c":
            raise ValueError("complex numbers")
        # A copy in C order: the caller may change theirs, and kernels want contiguous rows.
        array = np.array(raw, dtype=float, order="C")
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers; received {error}.") from None
    _check_finite(name, array)
    return array


def _check_finite(name: str, array: Array) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` must be finite; received {int(bad.sum())} NaN or infinite entries, the first at index {index}."
        )
