"""A formula near its origin: Taylor series, eigenvectors of the Hessian, and the ranges in which they are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from flowsim.arrays import Array, Bools, Integers
from flowsim.network import DiagonalNetwork, Formula, quadratic_form
from flowsim.symbolic.series import ZERO, Series, SingularError, taylor_series

#: Relative size of the terms neglected by the closed form at the end of its range.
_NEGLECTED = 1e-17
#: The Taylor polynomial replaces the formula where its last terms are below this part of the first.
_TRUNCATED, _AGREES = 1e-15, 1e-13
#: ... and weights are below this part of the scale on which the formula is no longer quadratic.
_SMALL = 0.1


@dataclass(frozen=True, eq=False)
class Origin:
    """Series, eigenvectors and ranges of a formula at its origin."""

    order: int  #: lowest degree of ``phi - phi(0)``; 0 where phi has no Taylor series there
    rate: Array  #: (k,), mu, eigenvalues of the Hessian
    basis: Array  #: (k, k), their eigenvectors, orthogonal, of squared lengths `metric` (k,): ``theta = basis c``
    metric: Array
    higher: Series  #: ``phi`` beyond its quadratic part, in c
    drive: tuple[Series, ...]  #: ``c_k' - mu_k c_k`` as series in c
    #: sizes of c below which the drive is below rounding, and below which its series is exact to rounding
    linear: float
    small: float

    def components(self, theta: Array) -> Array:
        """c of weights (k,) or (k, P): exactly 0 where only the rounding of a cancellation is left."""
        c: Array = self.basis.T @ theta
        c[np.abs(c) <= ZERO * (np.abs(self.basis).T @ np.abs(theta))] = 0.0
        return (c.T / self.metric).T

    def value(self, c: Array) -> Array:
        """``phi - phi(0)`` at columns c (k, P)."""
        return 0.5 * (self.rate * self.metric) @ c**2 + self.higher(c)


@cache
def kernels_of(formula: Formula) -> Any:
    from flowsim.symbolic import kernels

    return kernels(DiagonalNetwork(formula.text))


class Gradient:
    """``grad phi`` at columns (k, P); copies and pickles look the compiled kernel up anew."""

    def __init__(self, formula: Formula) -> None:
        self.formula, self._kernel = formula, kernels_of(formula).gradient

    def __call__(self, theta: Array) -> Array:
        theta = np.ascontiguousarray(theta)
        out = np.empty_like(theta)
        self._kernel(theta, np.zeros(theta.shape[1], np.int64), out)
        return out

    def __reduce__(self) -> Any:
        return Gradient, (self.formula,)


def value_at(formula: Formula, theta: Array) -> float:
    """phi at weights (k,)."""
    out = np.empty(1)
    kernels_of(formula).value(np.ascontiguousarray(theta[:, None]), np.zeros(1, np.int64), out)
    return float(out[0])


@cache
def origin_of(formula: Formula) -> Origin:
    """Series, eigenvectors and ranges of a formula at its origin."""
    k = len(formula.weights)
    empty = Series(np.zeros((0, k), np.int64), np.zeros(0))
    form = quadratic_form(formula)
    if form is not None:
        rate, basis = eigenvectors(2.0 * form)
        return Origin(2, rate, basis, (basis**2).sum(axis=0), empty, (empty,) * k, math.inf, math.inf)
    nothing = Origin(0, np.zeros(k), np.eye(k), np.ones(k), empty, (), 0.0, 0.0)
    try:
        plain = taylor_series(formula, np.eye(k))
    except SingularError:
        return nothing
    present = (plain.coefficient != 0) & (plain.degree > 0)
    order = int(plain.degree[present].min(initial=10**9)) if present.any() else 0
    if order != 2:
        return replace(nothing, order=order)
    hessian = np.zeros((k, k))
    for powers, value in zip(plain.exponents, plain.coefficient, strict=True):
        if powers.sum() == 2:
            a, b = np.repeat(np.arange(k), powers)
            hessian[a, b] += value
            hessian[b, a] += value
    rate, basis = eigenvectors(hessian)
    metric = (basis**2).sum(axis=0)
    series = taylor_series(formula, basis)
    series = series.part((series.degree > 2) & significant(series))
    drive = []
    for mode in range(k):
        own = series.derivative(mode)
        drive.append(Series(own.exponents, own.coefficient / metric[mode]))
    linear, small = _ranges(series, np.abs(rate[rate != 0]))
    found = Origin(2, rate, basis, metric, series, tuple(drive), linear, small)
    return replace(found, small=_exact_size(found, formula)) if math.isfinite(small) else found


def significant(series: Series) -> Bools:
    """Monomials that are significant beside the others of their degree."""
    degree, size = series.degree, np.abs(series.coefficient)
    largest = np.zeros(int(degree.max()) + 1)
    np.maximum.at(largest, degree, size)
    return size > ZERO * largest[degree]


def eigenvectors(hessian: Array) -> tuple[Array, Array]:
    """Eigenvalues and orthogonal, not normalised, eigenvectors, block by block: uncoupled weights keep exact zeros."""
    k = len(hessian)
    rate, basis = np.zeros(k), np.zeros((k, k))
    coupled = np.linalg.matrix_power(np.eye(k) + (hessian != 0), k) > 0
    for block in np.unique(coupled.argmax(axis=1)):
        own = np.flatnonzero(coupled[block])
        part = hessian[np.ix_(own, own)]
        if len(own) == 2 and part[0, 0] == part[1, 1]:
            # u + v and u - v without square roots: a start with u = ±v cancels exactly.
            rate[own] = part[0, 0] + part[0, 1] * np.array([1.0, -1.0])
            basis[np.ix_(own, own)] = [[1.0, 1.0], [1.0, -1.0]]
            continue
        values, basis[np.ix_(own, own)] = np.linalg.eigh(part)
        values[np.abs(values) <= ZERO * np.abs(values).max()] = 0.0
        rate[own] = values
    return rate, basis


def _ranges(series: Series, rate: Array) -> tuple[float, float]:
    """Sizes of c below which higher orders are below rounding, and below which the series is exact."""
    degree, size = series.degree, np.abs(series.coefficient) * series.degree
    if not len(degree):
        return math.inf, math.inf
    sums = {int(m): float(size[degree == m].sum()) for m in np.unique(degree)}
    slowest = float(rate.min())
    linear = min((_NEGLECTED * slowest / total) ** (1.0 / (m - 2)) for m, total in sums.items())
    first, last = min(sums), max(sums)
    scale = min((slowest / total) ** (1.0 / (m - 2)) for m, total in sums.items())
    small = _SMALL * scale
    if last > first:
        small = min(small, (_TRUNCATED * sums[first] / sums[last]) ** (1.0 / (last - first)))
    return linear, max(small, linear)


def _exact_size(origin: Origin, formula: Formula) -> float:
    """The largest size of components up to which series and formula agree."""
    gradient, k = Gradient(formula), len(formula.weights)
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1.0, 1.0, (k, 8))
    size = origin.small
    while size > origin.linear:
        c = size * samples
        exact = origin.basis.T @ gradient(origin.basis @ c) / origin.metric[:, None]
        series = origin.rate[:, None] * c + np.array([part(c) for part in origin.drive])
        if np.abs(exact - series).max() <= _AGREES * np.abs(exact).max():
            return size
        size /= 4
    return origin.linear


def created_components(origin: Origin, c: Array, sign: float) -> tuple[Integers, Array]:
    """Degrees e and factors C (k,) of the components ``C alpha^e`` of a start ``alpha c``, with growing ones created.

    A component that the start lacks is created by higher orders: ``c_k' = mu_k c_k + a c^e`` leaves it, once the
    driving has decayed, with the amplitude ``-a C^e / lambda``, ``lambda = sum_j e_j mu_j - mu_k``.
    """
    degree, value = np.ones(len(c), dtype=np.int64), c.copy()
    for k in np.flatnonzero((c == 0) & (sign * origin.rate > 0)):
        series = origin.drive[k]
        inside = ~((series.exponents > 0) & (c == 0)).any(axis=1)
        exponents, coefficient = series.exponents[inside], series.coefficient[inside]
        mismatch = exponents @ origin.rate - origin.rate[k]
        decays = sign * mismatch < 0
        for own in np.unique(exponents[decays].sum(axis=1)):
            chosen = decays & (exponents.sum(axis=1) == own)
            terms = -coefficient[chosen] * np.prod(c ** exponents[chosen], axis=1) / mismatch[chosen]
            if abs(terms.sum()) > ZERO * np.abs(terms).sum():
                degree[k], value[k] = own, terms.sum()
                break
    return degree, value
