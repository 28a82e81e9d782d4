"""Losses other than squares in the limit process: the minimiser on a cone, or the direction of escape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.problem import Problem

if TYPE_CHECKING:
    from flowsim.solvers.cone_newton import ConeMinimiser

Key = tuple[int, int]


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
    hits: NDArray[np.int64]
    direction: Array
    margin: float


def cone_minimiser(problem: Problem, column: Callable[[Key], Array]) -> ConeMinimiser[Key]:
    """The constrained minimiser of ``n L``."""
    from flowsim.solvers.cone_newton import ConeMinimiser, RowwiseFunction

    loss, y, weight = problem.loss_function, problem.y, problem.entry_weights
    lower, upper = loss.recession(y)
    flat = np.where(weight > 0, np.where(upper == 0, 1.0, np.where(lower == 0, -1.0, 0.0)), 0.0)

    def value(f: Array) -> float:
        with np.errstate(over="ignore"):
            return float(np.sum(weight * loss.value(f, y)))

    return ConeMinimiser(problem.n, column, RowwiseFunction(value, problem.slopes, problem.curvatures, flat))
