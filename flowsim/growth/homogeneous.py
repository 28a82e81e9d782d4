"""The lowest homogeneous part of a formula of order L >= 3, and what follows it, at weights of any scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from flowsim.arrays import Array
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
    def _slopes(self) -> tuple[Series, ...]:
        return tuple(self.series.derivative(a) for a in range(self.series.exponents.shape[1]))

    def value(self, x: Array, log_scale: float) -> float:
        """``(phi(exp(log_scale) x) - phi(0)) exp(-L log_scale)`` at x (k,)."""
        return float(self._scaled(self.series, self.order, log_scale)(x[:, None])[0])

    def gradient(self, x: Array, log_scale: float) -> Array:
        """``grad phi(exp(log_scale) x) exp((1 - L) log_scale)`` at columns x (k, P); -inf leaves the leading part."""
        return np.array([self._scaled(slope, self.order - 1, log_scale)(x) for slope in self._slopes])

    def slope_terms(self, x: Array) -> Array:
        """Sums of the moduli of the terms of the leading part's gradient, at x (k,)."""
        own = [self._scaled(slope, self.order - 1, -math.inf) for slope in self._slopes]
        return np.array([Series(part.exponents, np.abs(part.coefficient))(np.abs(x)[:, None])[0] for part in own])

    def hessian(self, x: Array) -> Array:
        """Hessian of the leading part at x (k,)."""
        own = [self._scaled(slope, self.order - 1, -math.inf) for slope in self._slopes]
        return np.array([[part.derivative(b)(x[:, None])[0] for b in range(len(x))] for part in own])

    @staticmethod
    def _scaled(series: Series, lowest: int, log_scale: float) -> Series:
        more = series.degree - lowest
        if log_scale == -math.inf:
            return series.part(more == 0)
        with np.errstate(under="ignore"):
            factor = np.exp(more * log_scale)
        return Series(series.exponents, series.coefficient * factor)


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
