"""Standardised problems, and coefficients in the units of the table."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Bools
from flowsim.plain_numbers import reals
from flowsim.problem.checks import check_features
from flowsim.problem.labelled import is_frame, numbers
from flowsim.problem.losses import SQUARED
from flowsim.problem.scaling import Scaling, centred, standardised


class InUnits:
    """The units of the table of a :class:`flowsim.Problem`."""

    #: means and scales removed by :meth:`standardise`
    scaling: Scaling | None = None

    def standardise(self) -> Self:
        """The same data with columns of mean 0 and mean square 1, and for squares a target of mean 0.

        Of weighted squares these are weighted means: the minimiser is that of weighted squares with an intercept.
        Means and scales are kept: :meth:`transform` applies them to other tables, :meth:`unscale` and :meth:`intercept`
        convert coefficients back to the units of this one.

        Raises
        ------
        ValueError
            If a column is constant or varies by rounding alone, and for X that is not dense.
        """
        own: Any = self
        if not own.is_dense:
            raise ValueError("`X` must be dense to be standardised: centring fills a sparse X with entries.")
        X, y, weight = own.X, own.y, None
        if own.row_scale is not None:  # rows as they were given, those without weight left out
            seen = own.row_scale > 0
            root = own.row_scale[seen]
            X, y, weight = X[seen] / root[:, None], (y[seen].T / root).T, root**2
        X, mean, scale = standardised(X, own.feature_names, weight)
        target_mean = np.zeros(y.shape[1:])
        if own.loss_function is SQUARED:
            y, target_mean = centred(y, weight)
        if weight is None:
            weight = own.sample_weight
        else:
            X, y, weight = (_among(seen, part) for part in (X, y, weight))
        same: Any = object.__new__(type(self))
        truth = None if own.truth is None else (own.truth.T * scale).T
        same._read(X, y, own.loss_function, weight, own.feature_names, truth)
        if self.scaling is not None:  # scaled before: compose the two
            mean, scale = self.scaling.mean + self.scaling.scale * mean, self.scaling.scale * scale
            target_mean = self.scaling.target_mean + target_mean
        same.scaling = Scaling(mean, scale, target_mean)
        return same

    def unscale(self: Any, beta: ArrayLike) -> Array:
        """Coefficients (..., d), or (..., d, m), in the units the table had before :meth:`standardise`."""
        beta = reals("beta", beta)
        self._check_beta(beta, self.beta_shape)
        return beta if self.scaling is None else self.scaling.coefficients(beta, -self.y.ndim)

    def intercept(self: Any, beta: ArrayLike) -> Array:
        """The intercept of ``unscale(beta)``: a table is predicted by ``table @ unscale(beta) + intercept(beta)``."""
        beta = reals("beta", beta)
        self._check_beta(beta, self.beta_shape)
        if self.scaling is None:
            return np.zeros(beta.shape[: -self.y.ndim] + self.y.shape[1:])
        return self.scaling.intercept(beta, -self.y.ndim)

    def transform(self: Any, X: Any, y: Any = None) -> Any:
        """Another table in the units of this problem: features (n', d), or with y a problem of its own.

        Raises ValueError if a column is missing or not numeric.

        Parameters
        ----------
        X : array (n', d) or data frame
            In a frame the columns with this problem's names are used, in any order and among others.
        y : array (n',) or (n', m), or the name of a column of X, optional

        Returns
        -------
        array (n', d) or Problem
        """
        if is_frame(X):
            missing = [name for name in self.feature_names if name not in map(str, X.columns)]
            if missing:
                raise ValueError(f"`X` must have the columns of the problem; {missing[0]!r} is missing.")
            if isinstance(y, str):
                y = numbers(X[y], y, "`y`")
            by_name = {str(column): column for column in X.columns}
            X = np.column_stack([numbers(X[by_name[name]], name, "`X`") for name in self.feature_names])
        X = check_features(X)
        if X.shape[1] != self.d:
            raise ValueError(f"`X` must have {self.d} columns; received {X.shape[1]}.")
        features = X if self.scaling is None else self.scaling.features(X)
        if y is None:
            return features
        y = np.asarray(y, dtype=float)
        if self.scaling is not None:
            y = y - self.scaling.target_mean
        same = object.__new__(type(self))
        same._read(features, y, self.loss_function, None, self.feature_names)
        same.scaling = self.scaling
        return same


def _among(seen: Bools, part: Array) -> Array:
    """Rows among others, of zeros."""
    out = np.zeros((len(seen), *part.shape[1:]))
    out[seen] = part
    return out
