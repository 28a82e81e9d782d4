"""The lowest homogeneous part of a formula of order L >= 3, and what follows it, at weights of any scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.growth.formula_origin import Gradient, significant
from flowsim.network import Formula
from flowsim.symbolic.series import Series, taylor_series

#: Relative size of the terms neglected by the leading part; of the last terms of the series where it is used, and to
#: which it must agree with the formula.
_NEGLECTED, _TRUNCATED, _AGREES = 1e-17, 1e-16, 1e-13
_SMALL, _SMALLER, _TRIES = 0.1, 4.0, 40


@dataclass(frozen=True, eq=False)
class ScaledSeries:
    """The Taylor series of ``phi - phi(0)``."""

    order: int  #: L, its lowest degree
    series: Series
    #: ln of the sizes of weights below which higher degrees are below rounding, and below which the series is exact to
    #: rounding
    log_negligible: float = math.inf
    log_small: float = math.inf

    @cached_property
    def _leading(self) -> Series:
        return self.series.part(self.series.degree == self.order)

    @cached_property
    def _slopes(self) -> tuple[Series, Array]:
        """The monomials of all derivatives, and their coefficients (k, E) in each."""
        own = [self.series.derivative(a) for a in range(self.series.exponents.shape[1])]
        exponents, row = np.unique(np.concatenate([each.exponents for each in own]), axis=0, return_inverse=True)
        coefficient = np.zeros((len(own), len(exponents)))
        coefficient[np.repeat(np.arange(len(own)), [len(each.exponents) for each in own]), row.ravel()] = (
            np.concatenate([each.coefficient for each in own])
        )
        return Series(exponents, np.ones(len(exponents))), coefficient

    def value(self, x: Array, log_scale: float) -> float:
        """``(phi(exp(log_scale) x) - phi(0)) exp(-L log_scale)`` at x (k,)."""
        factor = _factors(self.series.degree - self.order, log_scale)
        return float(self.series.coefficient * factor @ self.series.terms(x[:, None])[:, 0])

    def gradient(self, x: Array, log_scale: float) -> Array:
        """``grad phi(exp(log_scale) x) exp((1 - L) log_scale)`` at columns x (k, P); -inf leaves the leading part."""
        monomials, coefficient = self._slopes
        found: Array = coefficient * _factors(monomials.degree - self.order + 1, log_scale) @ monomials.terms(x)
        return found

    def slope_terms(self, x: Array) -> Array:
        """Sums of the moduli of the terms of the leading part's gradient, at x (k,)."""
        own = [self._leading.derivative(a) for a in range(len(x))]
        return np.array([np.abs(part.coefficient) @ part.terms(np.abs(x)[:, None])[:, 0] for part in own])

    def hessian(self, x: Array) -> Array:
        """Hessian of the leading part at x (k,)."""
        own = [self._leading.derivative(a) for a in range(len(x))]
        return np.array([[part.derivative(b)(x[:, None])[0] for b in range(len(x))] for part in own])


def _factors(more: Integers, log_scale: float) -> Array:
    """Sizes of terms by how much their degree exceeds the lowest."""
    if log_scale == -math.inf:
        return (more == 0).astype(float)
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(more * log_scale))


@cache
def scaled_series(formula: Formula) -> ScaledSeries:
    """The series of a formula that has one at the origin."""
    series = taylor_series(formula, np.eye(len(formula.weights)))
    series = series.part((series.degree > 0) & (series.coefficient != 0))
    series = series.part(significant(series))
    order = int(series.degree.min())
    found = ScaledSeries(order, series)
    degree, size = series.degree, np.abs(series.coefficient) * series.degree
    sums = {int(m): float(size[degree == m].sum()) for m in np.unique(degree)}
    first, last = min(sums), max(sums)
    if last > first:
        ratios = {m: math.log(sums[first] / total) / (m - first) for m, total in sums.items() if m > first}
        negligible = min(ratio + math.log(_NEGLECTED) / (m - first) for m, ratio in ratios.items())
        small = min(math.log(_SMALL) + min(ratios.values()), ratios[last] + math.log(_TRUNCATED) / (last - first))
    else:
        negligible, small = math.inf, math.inf
    small = _log_exact_size(found, formula, small if math.isfinite(small) else 0.0)
    if last == first and small == 0.0:
        return found  # a homogeneous polynomial, and the formula agrees
    return ScaledSeries(order, series, min(negligible, small), max(small, min(negligible, small)))


def _log_exact_size(taylor: ScaledSeries, formula: Formula, log_small: float) -> float:
    """Logarithm of the largest size of weights up to which series and formula agree."""
    gradient, k = Gradient(formula), len(formula.weights)
    samples = np.random.default_rng(0).uniform(-1.0, 1.0, (k, 8))
    for _ in range(_TRIES):
        with np.errstate(all="ignore"):
            exact = gradient(math.exp(log_small) * samples) * math.exp((1 - taylor.order) * log_small)
        series = taylor.gradient(samples, log_small)
        if np.abs(exact - series).max() <= _AGREES * np.abs(exact).max():
            break
        log_small -= math.log(_SMALLER)
    return log_small
