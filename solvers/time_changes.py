r"""Integration in another variable than time: s with ``t = t(s)``, where

.. math:: \frac{dy}{ds} = \frac{dt}{ds} f(t, y).

Logarithmic time ``s = ln(1 + t / u)`` is for flows that are far faster at their start than later: a loss that falls as
1 / t from e^500 takes one step for many e-folds of t, not many steps for each. Time in a unit ``2^e`` is for horizons
at which products of two times, which SciPy's methods compare with zero, would leave the range of floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.problem import InitialValueProblem
from flowsim.solvers.scipy_methods import integrate
from flowsim.solvers.solution import Solution

#: Unit of logarithmic time, as a part of the time in which the fastest unknown changes by 1.
_UNIT = 1e-4
#: Horizons beyond 2 to plus or minus this power are measured in a unit of their size.
_ORDINARY = 300

Piece = Callable[[Array], Array]


class TimeChange(Protocol):
    """A variable s of which time is an increasing function."""

    is_linear: bool  #: whether a straight line in t is one in s

    def time(self, s: float) -> float: ...
    def speed(self, s: float) -> float: ...  # dt / ds
    def inverse(self, t: Any) -> Any: ...


@dataclass(frozen=True)
class LogTime:
    """``t = u (e^s - 1)``, up to an end."""

    unit: float
    end: float
    is_linear = False

    def time(self, s: float) -> float:
        return min(float(self.unit * np.expm1(s)), self.end)

    def speed(self, s: float) -> float:
        return self.time(s) + self.unit

    def inverse(self, t: Any) -> Any:
        return np.log1p(np.asarray(t) / self.unit)


@dataclass(frozen=True)
class BinaryUnit:
    """``t = 2^e s``."""

    exponent: int
    is_linear = True

    def time(self, s: float) -> float:
        return math.ldexp(s, self.exponent)

    def speed(self, s: float) -> float:
        return math.ldexp(1.0, self.exponent)

    def inverse(self, t: Any) -> Any:
        return np.ldexp(t, -self.exponent)


def integrate_in_log_time(problem: InitialValueProblem, t_end: float, **options: Any) -> Solution:
    """:func:`integrate` in s; times and continuous extension are those of t."""
    unit = _UNIT / float(np.abs(problem.rhs(0.0, problem.y0)).max())
    return _integrate_in(LogTime(unit, t_end), problem, t_end, **options)


def integrate_in_time(problem: InitialValueProblem, t_end: float, **options: Any) -> Solution:
    """:func:`integrate`, with a unit of time in which `t_end` is of order one where it is far from that."""
    exponent = math.frexp(t_end)[1] - 1
    if abs(exponent) <= _ORDINARY:
        return integrate(problem, t_end, **options)
    return _integrate_in(BinaryUnit(exponent), problem, t_end, **options)


def _integrate_in(
    change: TimeChange,
    problem: InitialValueProblem,
    t_end: float,
    *,
    progress: Callable[[float], None] | None = None,
    done: Callable[[float, float, Piece], bool] | None = None,
    **options: Any,
) -> Solution:
    time, found = change.time, None
    if done is not None:
        given = done

        def found(start: float, end: float, piece: Piece) -> bool:
            return given(time(start), time(end), partial(_piece, piece, change))

    solution = integrate(
        _in_variable(problem, change),
        float(change.inverse(t_end)),
        progress=progress and (lambda s: progress(time(s))),
        done=found,
        **options,
    )
    return replace(
        solution,
        t=np.array([time(s) for s in solution.t.tolist()]),
        pieces=[partial(_piece, piece, change) for piece in solution.pieces],
    )


def _piece(piece: Piece, change: TimeChange, t: Array) -> Array:
    return piece(change.inverse(t))


def _in_variable(problem: InitialValueProblem, change: TimeChange) -> InitialValueProblem:
    """The problem whose independent variable is s."""
    time, speed = change.time, change.speed
    jacobian, limit, check, rest = problem.jacobian, problem.step_limit, problem.check, problem.rest

    def at_rest(s: float, y: Array) -> Array | None:
        assert rest is not None
        slope = rest(time(s), y)
        return None if slope is None else slope * speed(s)

    return InitialValueProblem(
        rhs=lambda s, y: speed(s) * problem.rhs(time(s), y),
        y0=problem.y0,
        jacobian=None if jacobian is None else lambda s, y: speed(s) * jacobian(time(s), y),
        step_limit=None if limit is None else lambda s, y, slope: limit(time(s), y, slope / speed(s)) / speed(s),
        check=None if check is None else lambda s, y: check(time(s), y),
        rest=at_rest if rest is not None and change.is_linear else None,
        breaks=tuple(float(change.inverse(at)) for at in problem.breaks),
    )
