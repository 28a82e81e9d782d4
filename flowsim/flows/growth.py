"""Growth coordinates: quadratic networks in the dual of their exponentials (:mod:`flowsim.growth.exponential`)."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.flows.coordinates import SAFETY
from flowsim.flows.dual import ROUNDINGS, DualCoordinates
from flowsim.flows.reduced import EXPONENTIAL
from flowsim.growth.exponential import CAP, ExponentialMap
from flowsim.network import DiagonalNetwork, InitialScale, Start, quadratic_form
from flowsim.problem import Problem, Regression
from flowsim.problem.cancellation import CANCELS, COARSE, is_lost, is_small
from flowsim.solvers import SeparableFlow, SeparableSolution

_CAP_OF_EXPONENTIALS = 20.0
#: Coordinates up to which each may have an unknown of its own.
_MOST_UNKNOWNS = 1000
#: e-folds to which decay lets z grow from a small part of one: where beta is summed apart, z is known relative to them.
_FOLDS = 100.0
_EPS = float(np.finfo(float).eps)


def takes_loss(problem: Problem) -> bool:
    """Whether the native method supports the loss of a problem."""
    return problem.loss_function.kernel is not None and problem.d <= SeparableFlow.MOST_WITH_LOSS


class GrowthCoordinates(DualCoordinates):
    """The flow of a quadratic network.

    `net`: one for which :func:`flowsim.growth.exponential.admits_growth` is None; `direction` (k, d): the start is
    alpha times this; `native`: states are z (d,) and come from :meth:`integrate`.
    """

    has_fast_reading = True
    map: ExponentialMap
    rtol: float  #: of the coefficients, where they are summed apart

    def __init__(
        self,
        net: DiagonalNetwork,
        problem: Problem,
        scale: InitialScale,
        direction: Array | Start,
        *,
        native: bool = True,
    ) -> None:
        growth = ExponentialMap.of(net, problem, scale, direction)
        cap = cap_of(problem, growth)
        super().__init__(net, problem, growth if cap == CAP else replace(growth, cap=cap), native=native)

    def cancels(self, rtol: float) -> bool:
        """Whether beta, or the last digits that decide SciPy's steps, are lost to the rounding of exponents."""
        lost = not self.native or is_lost(self.visible_part, rtol, 1.0 + abs(float(self.map.offset.max())))
        return lost and self.visible_part < 1.0

    @cached_property
    def visible_part(self) -> float:
        # Of most starts all exponentials are far below the coefficients.
        most = float(self.map.log_coefficient.max())
        return 1.0 if most < _CAP_OF_EXPONENTIALS and is_small(self.problem, math.exp(most)) else super().visible_part

    def summed_apart(self, scale: InitialScale, direction: Array | Start, rtol: float = 0.0) -> GrowthCoordinates:
        """For SciPy's methods, which such rounding does not affect while the dual unknown is as small as the fit's."""
        w = scale.value * direction if isinstance(direction, np.ndarray) else direction.plain
        origin = np.zeros(self.problem.d)
        for formula, rows, here in self.net.parts(self.problem.d):
            own = w[np.ix_(rows, here)]
            origin[here] = np.einsum("ai,ab,bi->i", own, cast(Array, quadratic_form(formula)), own)
        apart = copy(self)
        apart.native, apart.map, apart.rtol = False, replace(self.map, origin=origin), rtol
        terms = self.map.log_coefficient.max(axis=-1)
        # Sums of rows would round the dual of a coordinate that starts far above others.
        if len(terms) <= _MOST_UNKNOWNS and is_lost(math.exp(-np.ptp(terms[np.isfinite(terms)])), rtol):
            fit = max(float(np.abs(origin).max()), self.problem.coefficient_size)
            apart.reduced = replace(self.reduced, sizes=np.maximum(1.0, np.exp(terms) / fit))
            apart.visible_part = 1.0
        return apart

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        absolute = super().tolerances(rtol, atol)[1]
        if self.map.origin is None:
            return 0.0, absolute
        return SAFETY * rtol / max(_FOLDS, float(np.abs(self.map.offset).max())), absolute

    def _check(self, t: float, y: Array) -> str | None:
        return self._cancelled(t, self._z(y), self.reduced.moved(y)) or super()._check(t, y)

    def _cancelled(self, t: float, z: Array, moved: Array) -> str | None:
        """Why rounding of z, a sum of terms up to `moved`, is seen in beta; None if it is not."""
        if self.map.origin is None:
            return None
        beta = np.append(self.map.value(z, t) + self.map.shift, self.map.origin)
        size = max(float(np.abs(beta).max()), self.problem.coefficient_size)
        return CANCELS if (self.map.slope(z, t) * moved).max() * _EPS > max(self.rtol, COARSE) * size else None

    @cached_property
    def fastest(self) -> float:
        """A bound on the rate of change of the logarithm of a weight."""
        return self.problem.largest_drive * self.map.rate

    def rounding(self, t: Array, y: Array) -> Array:
        own, modes = self.map, self.map.modes
        size = np.abs(own.offset) + np.abs(modes.rate * y[..., None]) + own.decayed(t)
        change = own.derivative(own.exponents(y, t), np.sign(modes.coefficient) * size)
        return np.asarray(ROUNDINGS * change.max(axis=1))

    def predictor_of(self, t: Array, z: Array, only: Index) -> Array | None:
        if not self.native or self.map.schedule is not None:
            return None
        return self.flow.beta(z, t, only)

    def predictor_at_times(self, solution: SeparableSolution, t: Array) -> tuple[Array, Index, Array] | None:
        return None if self.map.schedule is not None else solution.sums_at(t)

    def predictor_into(self, t: Array, y: Array) -> Array:
        return super().predictor(t, y) if self.map.schedule is not None else self.flow.beta(y, t, out=y)

    def predictor(self, t: Array, y: Array) -> Array:
        if self.map.schedule is not None or self.map.origin is not None:
            return super().predictor(t, y)
        # Compiled, and infinite where beta leaves the range of floats.
        return self.flow.beta(self._z(y), t)


def cap_of(problem: Problem, growth: ExponentialMap) -> float:
    """The exponent above which exp is continued linearly: lower where the loss is itself exponential.

    It exceeds the exponents of the start and of the data.
    """
    if problem.loss_function.safe_prediction > EXPONENTIAL:
        start = float(np.max(growth.offset, where=growth.modes.coefficient != 0, initial=0.0))
        features, target = problem.binary_exponents
        ratio = math.log(2.0) * max((target or 0) - (features or 0), 0) if isinstance(problem, Regression) else 0.0
        return max(CAP + ratio, start + _CAP_OF_EXPONENTIALS)
    sizes = problem.feature_variances
    return _CAP_OF_EXPONENTIALS + max(0.0, -0.5 * float(np.log(sizes[sizes > 0].min(initial=1.0))))
