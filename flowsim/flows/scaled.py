r"""Flows of data of any scale, integrated in powers of two near one.

Homogeneous formulas (``theta -> beta`` of degree L) have two exact symmetries. With ``X = 2^p X'``,
``theta = 2^k theta'`` and ``y = 2^{p + L k} y'``

.. math:: \beta = 2^{L k} \beta', \qquad g = 2^{2p + L k} g', \qquad t = 2^{-2p - 2 k (L - 1)} t',

so a flow of X', y' from ``alpha' = 2^-k alpha`` under noise ``eta' = 2^-k eta`` and decay ``lambda' t' = lambda t`` is
equivalent. ``k = 0`` is a symmetry of every formula. Losses other than squares have neither, but sample weights times
2^w are a change of the unit of time, ``t = 2^-w t'``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.flows.coordinates import Coordinates, Observed
from flowsim.growth.exponential import admits_growth
from flowsim.network import Decay, DiagonalNetwork, InitialScale, Start
from flowsim.network.decay import jumps
from flowsim.network.formula import Node
from flowsim.problem import Problem, Regression
from flowsim.problem.entries import scaled
from flowsim.problem.problems import binary_exponent
from flowsim.solvers import SeparableSolution

#: Exponents of X, and of coefficients, that are left as they are for quadratic formulas, whose flows do not depend on
#: units: squares of all that they compute are floats. All other flows are integrated in units of their data, so that no
#: decision depends on the user's.
_ORDINARY = 64


@dataclass(frozen=True)
class Exponents:
    """Exponents of the powers of two taken out: p of X, k of the weights, whose formula has degree `degree`, w of L."""

    p: int = 0
    k: int = 0
    degree: int = 2
    w: int = 0

    @property
    def beta(self) -> int:
        """Of the coefficients."""
        return self.degree * self.k

    @property
    def time(self) -> int:
        """Of the unit of time."""
        return -2 * self.p - 2 * self.k * (self.degree - 1) - self.w

    def problem(self, problem: Problem) -> Problem:
        """The scaled problem X', y'.

        Raises ValueError if the scaled target leaves the range of floats.
        """
        if self.w:
            assert problem.sample_weight is not None
            X, loss, weight = problem.X, problem.loss_function, np.ldexp(problem.sample_weight, -self.w)
            return Problem(X, problem.y, loss, sample_weight=weight)
        if not (self.p or self.k):
            return problem
        y = np.ldexp(problem.y, -self.p - self.beta)
        if not np.isfinite(y).all() or (y == 0).sum() > (problem.y == 0).sum():
            raise ValueError("`problem` has targets whose ratio to X leaves the range of floats.")
        return Regression(scaled(problem.X, -self.p), y, problem.feature_names)

    def network(self, net: DiagonalNetwork) -> DiagonalNetwork:
        """The scaled network: its noise is in the unit of the weights, its decay is a rate."""
        noise, decay = net.noise, net.weight_decay
        if self.k and noise is not None:
            noise = replace(noise, std=tuple(np.ldexp(net.stds, -self.k)))
        if self.time:
            schedule = _SlowedDecay(decay, self.time) if isinstance(decay, Decay) else None
            decay = schedule or math.ldexp(decay, self.time)  # type: ignore[arg-type]
        return net if noise is net.noise and decay is net.weight_decay else net.variant(noise, decay)

    def scale(self, scale: InitialScale) -> InitialScale:
        """The scale left."""
        return InitialScale(scale.text, scale.log - self.k * math.log(2.0)) if self.k else scale

    def start(self, start: Start) -> Start:
        """The same of weights given by their logarithms."""
        log = self.k * math.log(2.0)
        return Start(tuple((sign, logs - log) for sign, logs in start.parts)) if self.k else start


@dataclass(frozen=True)
class _SlowedDecay:
    """A schedule of weight decay in a unit of time of ``2^unit``."""

    inner: Decay
    unit: int

    @property
    def times(self) -> tuple[float, ...]:
        """Those at which it jumps."""
        return tuple(math.ldexp(t, -self.unit) for t in jumps(self.inner))

    def rate(self, t: float) -> float:
        """``lambda'(t')``."""
        return math.ldexp(self.inner.rate(math.ldexp(t, self.unit)), self.unit)

    def integral(self, t: float) -> float:
        """K, which is dimensionless."""
        return self.inner.integral(math.ldexp(t, self.unit))


def exponents_for(net: DiagonalNetwork, problem: Problem, free: bool, native: bool) -> Exponents:
    """The exponents for a problem; zero for quadratic formulas and data of ordinary size.

    `free`: weights may be scaled; those of products of more than two by the native method alone.
    """
    if not isinstance(problem, Regression):
        w = None if problem.sample_weight is None else binary_exponent(problem.sample_weight)
        return Exponents() if w is None or abs(w) <= _ORDINARY else Exponents(w=w)
    p, q = problem.binary_exponents
    if p is None:
        return Exponents()
    quadratic, k, degree = admits_growth(net) is None, 0, 0
    if free and q is not None and not (quadratic and abs(q - p) <= _ORDINARY):
        degree = 2 if quadratic else _degree(net, native)
    if q is not None and degree:
        # Only the projection of y onto the features moves coefficients.
        seen = binary_exponent(np.ldexp(problem.rmatvec(np.ldexp(problem.y, -q)), -p) / problem.n)
        k = 0 if seen is None else round((seen + q - p) / degree)
    return Exponents(0 if quadratic and abs(p) <= _ORDINARY else p, k, degree or 2)


def _degree(net: DiagonalNetwork, native: bool) -> int:
    """The common degree of homogeneous formulas with log or curve coordinates; 0 if there is none."""
    noisy = net.is_noisy
    degrees = {math.nan if noisy or not native else _degree_of(formula.tree) for formula in net.distinct}
    return int(max(degrees)) if len(degrees) == 1 and max(degrees) % 1 == 0 else 0


def _degree_of(node: Node) -> float:
    """The degree of a homogeneous formula, by its terms; NaN if they differ."""
    kind, *parts = node
    if kind in ("num", "pi", "var"):
        return float(kind == "var")
    first, *others = (_degree_of(part) for part in parts if isinstance(part, tuple))
    if kind in ("*", "/"):
        return first + others[0] if kind == "*" else first - others[0]
    if kind == "**":
        return first * float(parts[1])
    return first if kind != "call" and others in ([], [first]) else math.nan


class ScaledCoordinates:
    """Coordinates of the scaled flow, read in the original units; times stay those of the scaled flow."""

    def __init__(self, inner: Coordinates, exponents: Exponents) -> None:
        self.inner, self.exponents = inner, exponents
        self.name, self.invariants, self.log_unit = inner.name, inner.invariants, inner.log_unit

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "exponents"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def beta_exponent(self) -> int:
        return self.exponents.beta

    def velocity(self, t: Array, y: Array) -> Array:
        return np.ldexp(self.inner.velocity(t, y), self.exponents.beta)

    def predictor(self, t: Array, y: Array) -> Array:
        return np.ldexp(self.inner.predictor(t, y), self.exponents.beta)

    def predictor_into(self, t: Array, y: Array) -> Array:
        beta = self.inner.predictor_into(t, y)
        return np.ldexp(beta, self.exponents.beta, out=beta)

    def predictor_of(self, t: Array, z: Array, only: Index) -> Array | None:
        beta = self.inner.predictor_of(t, z, only)
        return None if beta is None else np.ldexp(beta, self.exponents.beta)

    def rounding(self, t: Array, y: Array) -> Array:
        return np.ldexp(self.inner.rounding(t, y), self.exponents.beta)

    def predictor_at_times(self, solution: SeparableSolution, t: Array) -> tuple[Array, Index, Array] | None:
        found = self.inner.predictor_at_times(solution, t)
        return None if found is None else (np.ldexp(found[0], self.exponents.beta), *found[1:])

    def observe(self, t: Array, y: Array) -> Observed:
        # All conserved quantities here are of degree two.
        seen, k = self.inner.observe(t, y), self.exponents.k
        log = k * math.log(2.0)
        return Observed(
            weights={name: np.ldexp(values, k) for name, values in seen.weights.items()},
            log_abs_weights={name: values + log for name, values in seen.log_abs_weights.items()},
            imbalance=np.ldexp(seen.imbalance, 2 * k),
            log_imbalance=seen.log_imbalance + 2 * log,
        )

    def departure(self, t: Array, y: Array, seen: Callable[[], Observed]) -> Array:
        return self.inner.departure(t, y, lambda: self.inner.observe(t, y))
