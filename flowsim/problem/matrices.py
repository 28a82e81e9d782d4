r"""Linear measurements of a matrix: sensing and completion, for networks ``beta = U V^T``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.plain_numbers import count, reals
from flowsim.problem.checks import as_float, check_target
from flowsim.problem.losses import SQUARED
from flowsim.problem.problems import Problem, binary_exponent


class MatrixSensing(Problem):
    r"""Linear measurements of a matrix.

    .. math:: L(\beta) = \frac{1}{2n} \sum_{k=1}^n \big( \langle A_k, \beta \rangle - y_k \big)^2, \qquad
              \nabla L(\beta) = \frac1n \sum_k \big( \langle A_k, \beta \rangle - y_k \big) A_k.

    Parameters
    ----------
    A : array (n, D, m)
        The measurement matrices.
    y : array (n,)

    Raises
    ------
    ValueError
        For a wrong shape or an entry that is not finite.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.MatrixSensing([[[1.0, 0.0], [0.0, 1.0]]], [2.0])
    >>> float(problem.loss([[1.0, 0.0], [0.0, 0.0]]))
    0.5
    """

    def __init__(self, A: ArrayLike, y: ArrayLike) -> None:
        self.A = as_float("A", A)
        if self.A.ndim != 3 or 0 in self.A.shape:
            raise ValueError(f"`A` must have shape (n, D, m); received {self.A.shape}.")
        self._declare(self.A.shape, y)

    def _declare(self, shape: tuple[int, ...], y: ArrayLike) -> None:
        self.n, self.d, self._m = (int(size) for size in shape)
        self.y = check_target(y, self.n)
        if self.y.ndim != 1:
            raise ValueError(f"`y` must have shape ({self.n},); received {self.y.shape}.")
        self.loss_function = SQUARED
        self.sample_weight = None

    @property
    def beta_shape(self) -> tuple[int, int]:
        """(D, m)."""
        return (self.d, self._m)

    @property
    def n_targets(self) -> int:
        """m, the number of columns of beta."""
        return self._m

    @property
    def binary_exponents(self) -> tuple[int | None, int | None]:
        """Binary exponents of the largest entries of all A_k and of y; None for zeros."""
        return binary_exponent(self.A), binary_exponent(self.y)

    @property
    def is_dense(self) -> bool:
        return True

    def predict(self, beta: ArrayLike) -> Array:
        """``<A_k, beta>``: (..., D, m) to (..., n)."""
        return np.einsum("kij,...ij->...k", self.A, self._checked(beta), optimize=True)

    def rmatvec(self, residual: ArrayLike) -> Array:
        """``sum_k r_k A_k``: (..., n) to (..., D, m)."""
        return np.einsum("kij,...k->...ij", self.A, np.asarray(residual, dtype=float), optimize=True)

    def hessian_product(self, beta: ArrayLike, direction: ArrayLike) -> Array:
        """``(1/n) sum_k <A_k, v> A_k``, the same at every beta."""
        return self.rmatvec(self.predict(direction)) / self.n

    def measurement_curvatures(self, eta_u2: float, eta_v2: float) -> tuple[Array, Array]:
        """Rates at which weight noise damps the rows of U and of V, (D,) and (m,).

        Raises ValueError if noise couples rows: ``sum_k A_k A_k^T`` and ``sum_k A_k^T A_k`` must be diagonal.
        """
        rows, columns = np.zeros(self.d), np.zeros(self.n_targets)
        if eta_u2 or eta_v2:
            left = np.einsum("kij,klj->il", self.A, self.A, optimize=True) / self.n
            right = np.einsum("kij,kil->jl", self.A, self.A, optimize=True) / self.n
            rows, columns = eta_v2 * np.diag(left), eta_u2 * np.diag(right)
            off = max(np.abs(each - np.diag(np.diag(each))).max() for each in (left, right))
            if off > 1e-12 * max(np.diag(left).max(), np.diag(right).max()):
                raise ValueError(
                    "`noise` needs measurements whose sums of A_k A_k^T and of A_k^T A_k are diagonal, as in "
                    "MatrixCompletion."
                )
        return rows, columns

    @property
    def curvature_model(self) -> Array:
        """Mean curvature of the loss along the entries of each row, (D,)."""
        return np.einsum("kij,kij->i", self.A, self.A) / (self.n * self.n_targets)

    @property
    def safe_size(self) -> float:
        total = float(np.abs(self.A).sum())
        spare = SQUARED.safe_prediction - float(np.abs(self.y).max())
        return min(spare / total, sys.float_info.max) if total > 0 else spare

    def with_target(self, y: ArrayLike) -> MatrixSensing:
        """The same measurements with other values."""
        return MatrixSensing(self.A, y)

    @property
    def _facts(self) -> dict[str, Any]:
        return {"measurements": self.n, "matrix": f"{self.d} x {self._m}"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, shape=({self.d}, {self.n_targets}))"

    def _checked(self, beta: ArrayLike) -> Array:
        beta = reals("beta", beta)
        self._check_beta(beta, self.beta_shape)
        return beta


class MatrixCompletion(MatrixSensing):
    r"""Some entries of a matrix.

    .. math:: L(\beta) = \frac{1}{2n} \sum_{k=1}^n (\beta_{i_k j_k} - y_k)^2.

    Parameters
    ----------
    entries : iterable of (i, j, value)
        n observed entries; repeated ones count repeatedly.
    shape : (int, int)
        (D, m).

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.MatrixCompletion([(0, 0, 1.0), (1, 1, 2.0)], (2, 2))
    >>> traj = fs.gradient_flow(fs.LinearNetwork(2), problem, 4.0, alpha="1e-1000", clock="accelerated")
    >>> abs(float(traj.beta[-1, 1, 1]) - 2.0) < 1e-6
    True
    """

    def __init__(self, entries: Iterable[Any], shape: tuple[int, int]) -> None:
        try:
            table = as_float("entries", [tuple(entry) for entry in entries])
        except TypeError:  # of what is no sequence
            table = np.zeros(0)
        if table.ndim != 2 or table.shape[1:] != (3,):
            raise ValueError("`entries` must hold triples (i, j, value).")
        if not isinstance(shape, Sequence) or len(shape) != 2:
            raise ValueError(f"`shape` must be (D, m), both >= 1; received {shape!r}.")
        D, m = (count("shape", size) for size in shape)
        places = table[:, :2]
        if (places != np.floor(places)).any():
            raise ValueError("`entries` must hold whole numbers i, j.")
        if (places < 0).any() or (places >= (D, m)).any():
            raise ValueError(f"`entries` must lie inside a matrix of shape {(D, m)}.")
        self.rows, self.columns = places.T.astype(int)
        self._declare((len(table), D, m), table[:, 2])

    @property
    def A(self) -> Array:  # type: ignore[override]
        """The measurement matrices, (n, D, m)."""
        out = np.zeros((self.n, self.d, self.n_targets))
        out[np.arange(self.n), self.rows, self.columns] = 1.0
        return out

    @property
    def binary_exponents(self) -> tuple[int | None, int | None]:
        """0, and the binary exponent of the largest value."""
        return 0, binary_exponent(self.y)

    @property
    def _counts(self) -> Array:
        out = np.zeros((self.d, self.n_targets))
        np.add.at(out, (self.rows, self.columns), 1.0)
        return out

    def predict(self, beta: ArrayLike) -> Array:
        """The observed entries: (..., D, m) to (..., n)."""
        return self._checked(beta)[..., self.rows, self.columns]

    def rmatvec(self, residual: ArrayLike) -> Array:
        """A matrix with values at the observed entries: (..., n) to (..., D, m)."""
        residual = np.asarray(residual, dtype=float)
        out = np.zeros((*residual.shape[:-1], self.d, self.n_targets))
        where: Any = (..., self.rows, self.columns)
        np.add.at(out, where, residual)
        return out

    def measurement_curvatures(self, eta_u2: float, eta_v2: float) -> tuple[Array, Array]:
        """Rates at which weight noise damps the rows of U and of V, (D,) and (m,)."""
        return eta_v2 * self._counts.sum(axis=1) / self.n, eta_u2 * self._counts.sum(axis=0) / self.n

    @property
    def curvature_model(self) -> Array:
        """Mean curvature of the loss along the entries of each row, (D,)."""
        return self._counts.mean(axis=1) / self.n

    @property
    def safe_size(self) -> float:
        return (SQUARED.safe_prediction - float(np.abs(self.y).max())) / self.n

    def with_target(self, y: ArrayLike) -> MatrixCompletion:
        """The same entries with other values."""
        return MatrixCompletion(np.column_stack([self.rows, self.columns, check_target(y, self.n)]), self.beta_shape)
