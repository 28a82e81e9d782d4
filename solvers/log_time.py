r"""Flows that are far faster at their start than later, in logarithmic time.

.. math:: s = \ln(1 + t / u), \qquad \frac{dy}{ds} = (t + u)\, f(t, y).

A loss that falls as 1 / t from e^500 takes one step for many e-folds of t, not many steps for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.problem import InitialValueProblem
from flowsim.solvers.scipy_methods import integrate
from flowsim.solvers.solution import Solution

#: u, as a part of the time in which the fastest unknown changes by 1.
_UNIT = 1e-4


def integrate_in_log_time(
    problem: InitialValueProblem,
    t_end: float,
    *,
    progress: Callable[[float], None] | None = None,
    done: Callable[[float, float, Callable[[Array], Array]], bool] | None = None,
    **options: Any,
) -> Solution:
    """:func:`integrate` in s; times and continuous extension are those of t."""
    unit = _UNIT / float(np.abs(problem.rhs(0.0, problem.y0)).max())

    jacobian, limit, check = problem.jacobian, problem.step_limit, problem.check

    def time(s: float) -> float:
        return min(float(unit * np.expm1(s)), t_end)

    def speed(s: float) -> float:
        """dt / ds."""
        return time(s) + unit

    def piece_of(piece: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda t: piece(np.log1p(np.asarray(t) / unit))

    inner = InitialValueProblem(
        rhs=lambda s, y: speed(s) * problem.rhs(time(s), y),
        y0=problem.y0,
        jacobian=None if jacobian is None else lambda s, y: speed(s) * jacobian(time(s), y),
        step_limit=None if limit is None else lambda s, y, slope: limit(time(s), y, slope / speed(s)) / speed(s),
        check=None if check is None else lambda s, y: check(time(s), y),
        breaks=tuple(float(np.log1p(at / unit)) for at in problem.breaks),
    )
    found = integrate(
        inner,
        float(np.log1p(t_end / unit)),
        progress=progress and (lambda s: progress(time(s))),
        done=done and (lambda start, end, piece: done(time(start), time(end), piece_of(piece))),
        **options,
    )
    return replace(found, t=np.array([time(s) for s in found.t]), pieces=[piece_of(piece) for piece in found.pieces])
