r"""Decay over long times: the dual measured from the line along which it moves at rest.

Under noise or weight decay, with modes that move as ``a z - b t``, beta tends to the minimiser

.. math:: \min_\beta \tfrac{1}{2n} \|X\beta - y\|^2 + \sum_i v_i^\pm |\beta_i|, \qquad
          v_i^\pm = \min_{k: \pm a_{ik} > 0} b_{ik} / |a_{ik}|,

where z moves as ``f t``, ``f = X^\top r / n`` with r the residual, which balances the decay. In
``z - f t`` the flow has the same form, with targets y - r and decays ``b - a f >= 0``, exactly zero for the modes of
active coordinates: at rest all unknowns are constant, at any horizon.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.growth import GrowthCoordinates
from flowsim.problem import Regression
from flowsim.problem.entries import dense

#: Changes of the active set after which columns are exchanged one at a time.
_CHANGES = 20
#: Relative difference below which rates are equal.
_EQUAL = 1e-13


def measured_from_rest(growth: GrowthCoordinates, problem: Regression) -> GrowthCoordinates:
    """The flow in the dual measured from its line at rest; `growth` is native, with constant decay rates."""
    own, X = growth.map, dense(problem)
    rate = own.modes.rate
    with np.errstate(divide="ignore", invalid="ignore"):
        shrinkage = np.where(own.modes.coefficient != 0, own.decay / np.abs(rate), np.inf)
    least = (np.where(side, shrinkage, np.inf).min(axis=1) for side in (rate > 0, rate < 0))
    plus, minus = (np.broadcast_to(each, problem.d) for each in least)
    y = problem.y - problem.predict(np.broadcast_to(own.shift, problem.d)) if own.shift.any() else problem.y
    residual = _residual(X, y, plus, minus)
    decay = own.decay - rate * (X.T @ residual / problem.n)[:, None]
    decay[np.abs(decay) <= _EQUAL * own.decay] = 0.0
    moved = copy(growth)
    moved.problem = problem.with_target(problem.y - residual)
    moved.map = replace(own, decay=decay)
    return moved


def _residual(X: Array, y: Array, plus: Array, minus: Array) -> Array:
    """``y - X beta`` at the minimum, by iterating on its signs from those of ``X^T y`` until they are consistent."""
    n = len(y)
    f = X.T @ y / n
    signs = (f > plus).astype(float) - (f < -minus)
    for _ in range(_CHANGES):
        active = signs.nonzero()[0]
        if len(active) > n:
            break
        part, side = X[:, active], signs[active]
        penalty = np.where(side > 0, plus[active], -minus[active])
        try:
            beta = np.linalg.solve(part.T @ part, part.T @ y - n * penalty)
        except np.linalg.LinAlgError:
            break
        residual = y - part @ beta
        f = X.T @ residual / n
        if np.abs(f[active] - penalty).max(initial=0.0) > _EQUAL * np.abs(y).max() * np.abs(X).max():
            break
        now = (f > plus).astype(float) - (f < -minus)
        now[active] = np.where(side * beta > 0, side, 0.0)
        if (now == signs).all():
            return residual
        signs = now
    return _one_by_one(X, y, plus, minus)


def _one_by_one(X: Array, y: Array, plus: Array, minus: Array) -> Array:
    """The same for dependent columns, or where that iteration does not converge."""
    from flowsim.solvers.active_set import ConeRegression

    cone: ConeRegression[tuple[int, int]] = ConeRegression(y, lambda key: key[1] * X[:, key[0]])
    allowed = X.any(axis=0)
    cone.solve(
        ((int(i), side), len(y) * float(cost[i]))
        for side, cost in ((1, plus), (-1, minus))
        for i in np.flatnonzero(allowed & np.isfinite(cost))
    )
    return cone.residual
