"""Losses other than squares in the limit process: the minimiser on a cone, or the direction of escape."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.errors import IntegrationError
from flowsim.problem import Problem
from flowsim.problem.entries import dense

if TYPE_CHECKING:
    from flowsim.solvers.cone_newton import ConeMinimiser

Key = tuple[int, int]
#: Threshold for a linear programme whose optimum is 0 or of order 1.
_NOTHING = 1e-7


@dataclass(frozen=True, eq=False)
class Escape:
    r"""The time from which the loss has no minimum on the cone of the active coordinates: beta grows without bound.

    On separable data the path ends here: the gradient vanishes along the escape, so the duals freeze.

    Attributes
    ----------
    time : float
        Accelerated time.
    hits : array
        The coordinates that reach their thresholds then.
    direction : array (d,)
        The direction of largest margin among the active coordinates, ``||direction||_1 = 1``.
    margin : float
        ``min_i y_i x_i . direction``; 0 if only some of the rows can recede.
    """

    time: float
    hits: Integers
    direction: Array
    margin: float


def cone_minimiser(problem: Problem, column: Callable[[Key], Array]) -> ConeMinimiser[Key]:
    """The constrained minimiser of ``n L``."""
    from flowsim.solvers.cone_newton import ConeMinimiser, RowwiseFunction

    loss, y, weight = problem.loss_function, problem.y, problem.entry_weights
    flat = np.where(weight > 0, loss.flat(y), np.nan)

    def value(f: Array) -> float:
        with np.errstate(over="ignore"):
            return float(np.sum(weight * loss.value(f, y)))

    return ConeMinimiser(problem.n, column, RowwiseFunction(value, problem.slopes, problem.curvatures, flat))


def falls_for_ever(problem: Problem) -> bool:
    r"""Whether L is unbounded below: :math:`\sum_i w_i \, r_i(x_i \cdot d) < 0` for a d, r_i the recession function.

    With slopes l_i at -inf and u_i at +inf, ``r_i(f) = max(l_i f, u_i f)``: a linear programme (HiGHS) in a box of d.
    """
    y, weight = problem.y.reshape(problem.n, -1), problem.entry_weights.reshape(problem.n, -1)
    lower, upper = problem.loss_function.recession(y)
    if ((lower <= 0) & (upper >= 0)).all():
        return False
    from scipy.optimize import linprog

    X = dense(problem)
    X = X / (np.abs(X).max() or 1.0)
    d, n = problem.d, problem.n
    for low, up, w in zip(lower.T, upper.T, weight.T, strict=True):
        # min w.e over |d_j| <= 1 and e_i >= l_i x_i.d, u_i x_i.d; an infinite slope bounds x_i.d itself.
        rows = [np.where(np.isinf(s), np.sign(s), s)[:, None] * X for s in (low, up)]
        falls = np.vstack(
            [np.hstack([r, np.diag(-1.0 * np.isfinite(s))]) for r, s in zip(rows, (low, up), strict=True)]
        )
        found = linprog(
            np.append(np.zeros(d), w * (np.isfinite(low) | np.isfinite(up))),
            A_ub=falls,
            b_ub=np.zeros(2 * n),
            bounds=[(-1.0, 1.0)] * d + [(None, None)] * n,
            method="highs",
        )
        finite = np.where(np.isfinite(low), np.abs(low), 0.0) + np.where(np.isfinite(up), np.abs(up), 0.0)
        if found.status == 0 and found.fun < -_NOTHING * float(w @ finite):
            return True
    return False


@contextlib.contextmanager
def saying_what_is_unbounded(problem: Problem) -> Iterator[None]:
    """A limit process that fails because there is no minimum says so."""
    try:
        yield
    except IntegrationError as error:
        if falls_for_ever(problem):
            error.args = (f"{error} The loss of `problem` is unbounded below: there is no minimum to lead to.",)
        raise
