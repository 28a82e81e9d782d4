"""Default durations and step sizes of descents: the first jump of the limit, and a tenth of the stable step."""

from __future__ import annotations

import numpy as np

from flowsim.descent.settings import check_momentum
from flowsim.network import DiagonalNetwork, InitialScale, LinearNetwork, quadratic_form
from flowsim.problem import Problem
from flowsim.symbolic.clock import acceleration

#: Number of entries beyond which the largest singular value of X is computed by Lanczos iterations.
_DENSE = 4_000_000


def first_move(net: DiagonalNetwork | LinearNetwork, problem: Problem, alpha: str | float) -> float:
    """Twice the time of the first jump of the limit, for thresholds of 1; 0 if there is none."""
    gradient = problem.gradient(np.zeros(problem.beta_shape))
    linear = isinstance(net, LinearNetwork)
    steepest = float(np.linalg.norm(gradient.reshape(problem.d, -1), 2) if linear else np.abs(gradient).max())
    return 2.0 / (acceleration(net, InitialScale.parse(alpha)) * steepest) if steepest > 0 else 0.0


def tenth_of_stable(net: DiagonalNetwork | LinearNetwork, problem: Problem, momentum: float = 0.0) -> float:
    """A tenth of the step at which descent on beta itself would diverge, over the size of the solution.

    Less for momentum, whose modified flow carries ``(1 + mu) / (1 - mu)^2`` times the step, and for formulas that
    curve more than ``u*v``.
    """
    check_momentum(momentum)
    if isinstance(net, LinearNetwork):
        steepest = float(np.linalg.norm(problem.gradient(np.zeros(problem.beta_shape))))
        top = _largest_singular_value(problem) ** 2 / problem.n
        return 0.1 / max(steepest, top) * (1 - momentum) ** 2 / (1 + momentum)
    forms = [quadratic_form(formula) for formula in net.distinct]
    curvature = max([1.0, *(2 * float(np.abs(np.linalg.eigvalsh(form)).max()) for form in forms if form is not None)])
    top = _largest_singular_value(problem) ** 2 / problem.n
    size = float(np.abs(problem.gradient(np.zeros(problem.d))).max()) / top
    return 0.1 / (top * max(size, 1.0)) * (1 - momentum) ** 2 / (1 + momentum) / curvature


def _largest_singular_value(problem: Problem) -> float:
    if isinstance(problem.X, np.ndarray) and problem.X.size <= _DENSE:
        return float(np.linalg.norm(problem.X, 2))
    from scipy.sparse.linalg import LinearOperator, eigsh

    gram = LinearOperator((problem.d, problem.d), matvec=lambda v: problem.rmatvec(problem.X @ v), dtype=float)
    return float(np.sqrt(eigsh(gram, k=1, return_eigenvectors=False, v0=np.ones(problem.d))[0]))
