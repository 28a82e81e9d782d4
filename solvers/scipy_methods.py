"""SciPy's integrators behind one loop, which keeps time, budgets, checks and counters.

``scipy.integrate.solve_ivp`` is not used: its LSODA has returned success with NaN states, and it offers no
way to limit the next step, to check the state, or to stop with a reason.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.problem import InitialValueProblem
from flowsim.solvers.solution import Solution, Status

SCIPY_METHODS = ("LSODA", "BDF", "Radau", "DOP853")
_TAKES_JACOBIAN = ("LSODA", "BDF", "Radau")
#: Steps between two tests of whether the solution is at rest.
_REST_EVERY = 8

#: SciPy warns below this relative tolerance, where rounding begins.
SMALLEST_RTOL = 1e-13
#: SciPy's choice of a first step squares rates over tolerances; above this ratio the step is this part of a tolerance.
_LARGEST_RATE, _FIRST_SHARE = 1e50, 1e-2
#: Steps in succession that change nothing by this share of a tolerance: an iteration that converges to rounding, and is
#: taken to diverge, halves the step without end.
_IDLE_STEPS, _NO_MOVE = 1000, 1e-30
#: Message of SciPy's factorisation of an iteration matrix with entries that are not finite.
_REFUSED_MATRIX = "infs or NaNs"


def integrate(
    problem: InitialValueProblem,
    t_end: float,
    *,
    method: str = "LSODA",
    rtol: float = 1e-6,
    atol: float | Array = 1e-9,
    max_steps: int = 200_000,
    progress: Callable[[float], None] | None = None,
    done: Callable[[float, float, Callable[[Array], Array]], bool] | None = None,
) -> Solution:
    """Integrate over [0, t_end].

    Parameters
    ----------
    problem : InitialValueProblem
    t_end : float
        > 0, finite.
    method : {"LSODA", "BDF", "Radau", "DOP853"}
    rtol, atol : float
        SciPy's local tolerances, ``atol + rtol * |y|``.
    max_steps : int
        Budget of accepted steps.
    progress : callable, optional
        Called with the time reached after every step.
    done : callable (start, end, piece) -> bool, optional
        Called after every step with its continuous extension; True completes the integration there.

    Returns
    -------
    Solution
        Never raises for a failed integration: the status says how it ended.
    """
    if method not in SCIPY_METHODS:
        raise ValueError(f"`method` must be one of {', '.join(SCIPY_METHODS)}; received {method!r}.")
    began = time.perf_counter()
    times: list[float] = [0.0]
    states: list[Array] = [problem.y0.copy()]
    options = {"rtol": max(rtol, SMALLEST_RTOL), "atol": atol, **_jacobian_for(problem, method, times, states)}
    ends = [*(at for at in problem.breaks if 0.0 < at < t_end), t_end]
    pieces: list[Callable[[Array], Array]] = []
    status, message, idle = Status.COMPLETED, "", 0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # Overflow in a rejected stage is harmless; accepted states are checked.
        warnings.simplefilter("ignore")
        steppers = [stepper := _stepper(problem, method, 0.0, problem.y0, ends.pop(0), options)]
        while stepper.status == "running":
            if len(times) > max_steps:
                status = Status.STEP_BUDGET
                break
            if problem.step_limit is not None and method != "LSODA":
                state = states[-1]
                stepper.max_step = problem.step_limit(times[-1], state, problem.rhs(times[-1], state))
            status = _step(stepper, times[-1])
            if status is not Status.COMPLETED:
                break
            times.append(float(stepper.t))
            states.append(np.array(stepper.y))
            moved = np.abs(states[-1] - states[-2]) > _NO_MOVE * (rtol * np.abs(states[-1]) + atol)
            idle = 0 if moved.any() else idle + 1
            if idle > _IDLE_STEPS:
                status = Status.STEP_FLOOR
                break
            pieces.append(stepper.dense_output())
            if progress is not None:
                progress(times[-1])
            if problem.check is not None and (found := problem.check(times[-1], states[-1])) is not None:
                status, message = Status.STOPPED, found
                break
            if done is not None and done(times[-2], times[-1], pieces[-1]):
                break
            if problem.rest is not None and len(times) % _REST_EVERY == 0 and times[-1] < t_end:
                slope = problem.rest(times[-1], states[-1])
                if slope is not None:
                    message = f"came to rest after {len(times) - 1} steps"
                    _go_straight(times, states, pieces, slope, t_end)
                    if done is not None:
                        done(times[-2], t_end, pieces[-1])
                    break
            if stepper.status == "finished" and ends:
                steppers.append(stepper := _stepper(problem, method, times[-1], states[-1], ends.pop(0), options))
    return Solution(
        t=np.array(times),
        y=np.array(states),
        pieces=pieces,
        status=status,
        message=message or status.value,
        stats={
            "steps": len(times) - 1,
            "rejected": None,  # not reported by SciPy
            **{name: sum(int(getattr(each, name)) for each in steppers) for name in ("nfev", "njev", "nlu")},
            "seconds": time.perf_counter() - began,
        },
    )


def _stepper(
    problem: InitialValueProblem, method: str, start: float, y: Array, end: float, options: dict[str, Any]
) -> Any:
    """SciPy's stepper from a time to the end or the next jump of the right-hand side, which it does not see."""
    import scipy.integrate

    last = math.nextafter(end, start) if end in problem.breaks else end

    def rhs(t: float, y: Array) -> Array:
        return problem.rhs(min(t, last), np.ascontiguousarray(y))

    first = _first_step(rhs(start, y), options["rtol"] * np.abs(y) + options["atol"], end - start)
    return getattr(scipy.integrate, method)(rhs, start, y, end, **options, **first)


def _first_step(rate: Array, tolerance: Array, length: float) -> dict[str, float]:
    """The option ``first_step`` where SciPy's own choice would overflow."""
    fastest = float(np.max(np.abs(rate) / tolerance, initial=0.0))
    return {"first_step": min(_FIRST_SHARE / fastest, length)} if _LARGEST_RATE < fastest < np.inf else {}


def _step(stepper: Any, reached: float) -> Status:
    """Take one step; COMPLETED if it succeeded."""
    try:
        refusal = stepper.step()
    except ValueError as error:
        if _REFUSED_MATRIX not in str(error):
            raise
        return Status.NON_FINITE
    if stepper.status == "failed":
        return Status.STEP_FLOOR if refusal and "step size" in refusal else Status.REFUSED
    if not np.isfinite(stepper.y).all():
        return Status.NON_FINITE
    return Status.COMPLETED if stepper.t > reached else Status.STEP_FLOOR


def _jacobian_for(
    problem: InitialValueProblem, method: str, times: list[float], states: list[Array]
) -> dict[str, Callable[[float, Array], Array]]:
    """The option ``jac`` of an integrator that takes a Jacobian, given the states so far."""
    if method not in _TAKES_JACOBIAN or problem.jacobian is None:
        return {}
    jacobian = problem.jacobian
    if method == "BDF":
        # BDF evaluates it at its prediction, and keeps it. Where that overshot an exponential the matrix is so large
        # that every later Newton correction is nearly zero and passes for converged.
        return {"jac": lambda t, y: jacobian(times[-1], states[-1])}
    return {"jac": lambda t, y: jacobian(t, np.ascontiguousarray(y))}


def _go_straight(
    times: list[float], states: list[Array], pieces: list[Callable[[Array], Array]], slope: Array, t_end: float
) -> None:
    """Append one linear piece that reaches the end."""
    pieces.append(partial(_straight, times[-1], states[-1], slope))
    states.append(pieces[-1](np.array([t_end]))[:, 0])
    times.append(t_end)


def _straight(start: float, state: Array, slope: Array, times: Array) -> Array:
    """The straight line through a state, at times (K,), shape (N, K)."""
    return state[:, None] + slope[:, None] * (np.asarray(times) - start)
