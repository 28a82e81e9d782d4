"""The solution of a step, a compiled function that the loop, and maps that it calls, call by its address.

So linear algebra is compiled once, and at the same time as the loop, on two cores.
"""

from __future__ import annotations

from functools import cache

from numba import int64, types

from flowsim.solvers.compilation import bare, compiled
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.implicit_rest import drop_rounding, to_rest
from flowsim.solvers.multistep.iteration_matrix import STEP, filtered, renew
from flowsim.solvers.multistep.quasi_steady import distances, project
from flowsim.solvers.multistep.step import Equation, evaluate_flow, extend_flow, solve_step
from flowsim.solvers.multistep.workspace import Active, Formula, Scales, Sizes, Trial, Workspace
from flowsim.solvers.simd import EIGHT, at_address, call, constant, load, magnitude, store, view, wider, widest


@bare()
def _follow(ws, equation):
    """Update the inactive coordinates by the step's equation; returns the largest change from the guess."""
    extend_flow(ws)
    trial, gain, active, stride = view(Trial, ws), view(Scales, ws).gain, view(Active, ws), view(Sizes, ws).padded
    most, first, second = constant(0.0), equation.first, equation.second
    for i in range(active.n, active.padded):
        one = (
            trial.known[i]
            + first * (trial.f[i] - trial.f_predicted[i])
            - second * (trial.df[i] - trial.df_predicted[i])
        )
        most = wider(constant(gain[i] * abs(one - trial.guess[i])), most)
        trial.guess[i] = one
    for b in range(active.padded, stride, EIGHT):
        solved = load(trial.known, b) + first * (load(trial.f, b) - load(trial.f_predicted, b))
        solved = solved - second * (load(trial.df, b) - load(trial.df_predicted, b))
        most = wider(load(gain, b) * magnitude(solved - load(trial.guess, b)), most)
        store(trial.guess, b, solved)
    return widest(most)


@bare()
def _solve(ws, equation, counts, has_matrix):
    """Solve the step's equations: (solved, the step's stiffness, has a matrix)."""
    sizes = view(Sizes, ws)
    if sizes.graded == 0:
        solved, stiff, has_matrix = solve_step(ws, equation, counts, has_matrix)
        return solved and _follow(ws, equation) <= c.FAR, stiff, has_matrix
    numbers = at_address(sizes.graded_numbers, 0, 1.0)
    numbers[0], numbers[1], numbers[2], numbers[3] = equation
    evaluations = call(sizes.graded, (STEP, ws.buffer, ws.table, view(Trial, ws).guess))
    counts[c.EVALUATED] += abs(evaluations)
    counts[c.MATRICES] += abs(evaluations)
    return evaluations > 0, numbers[4], True


@bare()
def _to_quasi_steady(ws, theta, allowed, counts):
    """Project stiff modes onto their quasi-steady state; returns whether the matrix is still valid."""
    own, by_others = distances(ws, theta)
    if own <= c.NEAR * allowed and by_others > c.STALE * c.REST * allowed:
        counts[c.MATRICES] += 1
        if not renew(ws, theta):
            return False
    project(ws, theta, c.REST * allowed)
    return True


@compiled(
    explicit=True,
    declared=(int64, int64, types.CPointer(types.float64), types.CPointer(int64), types.CPointer(int64)),
    no_cpython_wrapper=True,
    no_cfunc_wrapper=False,
)
def newton(task, has_matrix, buffer, table, counts):
    """One of the tasks START to DROP_ROUNDING on a workspace; returns 1, for SOLVE plus 2 with a matrix, 0 for failure.

    The equation, or what describes the rest, is read from the workspace, and the stiffness of the step written there.
    """
    ws = Workspace(buffer, table)
    numbers = view(Formula, ws).equation
    if task == c.SOLVE:
        equation = Equation(numbers[0], numbers[1], numbers[2], c.SOLVED * numbers[3])
        solved, stiff, found = _solve(ws, equation, counts, has_matrix != 0)
        numbers[4] = stiff
        return int(solved) + 2 * int(found)
    if task == c.FILTER:
        filtered(ws, view(Trial, ws).residual)
    elif task == c.PROJECT:
        return int(_to_quasi_steady(ws, numbers[2], numbers[3], counts))
    elif task == c.TO_REST:
        return int(to_rest(ws, numbers[0], numbers[1], numbers[2]))
    elif task == c.DROP_ROUNDING:
        drop_rounding(ws)
    elif task == c.EXTEND:
        extend_flow(ws)
    else:
        return int(evaluate_flow(ws, counts))
    return 1


@bare()
def call_newton(ws, task, has_matrix, counts):
    """Call :func:`newton` by its address."""
    return call(view(Sizes, ws).newton, (task, int64(has_matrix), ws.buffer, ws.table, counts))


@bare()
def call_to_rest(ws, close, fastest, left):
    """:func:`flowsim.solvers.multistep.implicit_rest.to_rest` in :func:`newton`."""
    numbers = view(Formula, ws).equation
    numbers[0], numbers[1], numbers[2] = close, fastest, left
    return call_newton(ws, c.TO_REST, 0, ws.table) > 0


@cache
def address() -> int:
    """The address of :func:`newton`, a C function."""
    newton.compile(newton.declared)
    found = newton.overloads[newton.declared]
    return int(found.library.get_pointer_to_function(found.fndesc.llvm_cfunc_wrapper_name))
