"""Validation of the arguments of a problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array

#: Columns of the identity to which a LinearOperator is applied at once for its column norms.
_OPERATOR_BLOCK = 256


def check_features(X: Any) -> Any:
    if hasattr(X, "matvec") and hasattr(X, "shape"):
        if np.issubdtype(np.dtype(X.dtype or float), np.complexfloating):
            raise ValueError("`X` must be real; received a complex LinearOperator.")
    elif hasattr(X, "tocsr"):
        X = X.tocsr()
        if X.dtype.kind not in "fiub":
            raise ValueError(f"`X` must be real numbers; received entries of type {X.dtype}.")
        X = X.astype(float)
        if not np.isfinite(X.data).all():
            rows = X.tocoo()
            first = int(np.flatnonzero(~np.isfinite(rows.data))[0])
            raise ValueError(
                f"`X` must be finite; received {rows.data[first]} at ({rows.row[first]}, {rows.col[first]})."
            )
        X.sum_duplicates()
    else:
        X = as_float("X", X)
    if len(X.shape) != 2:
        raise ValueError(f"`X` must have two dimensions (n, d); received shape {tuple(X.shape)}.")
    if min(X.shape) < 1:
        raise ValueError(f"`X` must have at least one row and one column; received shape {tuple(X.shape)}.")
    return X


def check_target(y: ArrayLike, n: int) -> Array:
    y = as_float("y", y)
    if y.ndim not in (1, 2) or y.shape[0] != n or y.size == 0:
        raise ValueError(f"`y` must have shape ({n},) or ({n}, m) to match `X`; received {y.shape}.")
    return y


def check_truth(truth: ArrayLike, d: int) -> Array:
    truth = as_float("truth", truth)
    if truth.ndim not in (1, 2) or len(truth) != d:
        raise ValueError(f"`truth` must have shape ({d},) or ({d}, m); received {truth.shape}.")
    return truth


def check_names(names: Sequence[str], d: int) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"`feature_names` must be a list of names; received the text {names!r}.")
    names = tuple(str(name) for name in names)
    if len(names) != d:
        raise ValueError(f"`feature_names` must hold {d} names, one for each column of `X`; received {len(names)}.")
    if len(set(names)) < d:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`feature_names` must differ; received {twice!r} twice.")
    return names


def as_float(name: str, value: Any) -> Array:
    try:
        if value is None:
            raise ValueError("None")
        raw = np.asarray(value)
        if raw.dtype.kind in "cMm":
            raise ValueError("complex numbers" if raw.dtype.kind == "c" else "dates")
        if np.ma.is_masked(value):
            raise ValueError("masked entries: drop such rows, or fill them")
        # A copy in C order: the caller may change the original, and kernels need contiguous rows.
        array = np.array(raw, dtype=float, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers; received {error}.") from None
    check_finite(name, array)
    return array


def check_finite(name: str, array: Array) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` must be finite; received {int(bad.sum())} NaN or infinite entries, the first at index {index}."
        )


def check_weight(weight: ArrayLike | None, n: int) -> Array | None:
    """Sample weights (n,), or None where all are 1."""
    if weight is None:
        return None
    array = as_float("sample_weight", weight)
    if array.shape != (n,):
        raise ValueError(f"`sample_weight` must have shape ({n},) to match `X`; received {array.shape}.")
    if (array < 0).any() or not array.any():
        raise ValueError("`sample_weight` must be >= 0 and not zero everywhere.")
    return None if (array == 1.0).all() else array


def scaled_rows(X: Any, factor: Array) -> Any:
    """``diag(factor) X``."""
    if isinstance(X, np.ndarray):
        return X * factor[:, None]
    if hasattr(X, "tocsr"):
        return X.multiply(factor[:, None]).tocsr()
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import aslinearoperator

    return aslinearoperator(diags_array(factor)) @ X


def sums_of_squares(X: Any) -> Array:
    """``(X^T X)_ii``, shape (d,)."""
    if isinstance(X, np.ndarray):
        return np.asarray(np.einsum("ni,ni->i", X, X))
    if hasattr(X, "multiply"):
        return np.asarray(X.multiply(X).sum(axis=0)).ravel()
    d, many = X.shape[1], _OPERATOR_BLOCK
    units = (np.eye(d, min(many, d - first), -first) for first in range(0, d, many))
    return np.concatenate([np.sum(np.asarray(X @ unit) ** 2, axis=0) for unit in units])
