"""The minimum of a convex loss by a method independent of flows and cones, as reference for their ends."""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array
from flowsim.certificates.certificate import UnresolvedError
from flowsim.problem import Problem
from flowsim.problem.margins import is_attained

_STEPS, _HALVINGS = 200, 60
#: Tolerance on the gradient at the minimum, relative to that at 0.
_STATIONARY = 1e-10
#: Size of a step, relative to the point, that is rounding.
_CONVERGED = 1e-13
#: Armijo's constant, the rounding of L that is allowed for, and a bound on it.
_DESCENT, _ROUNDING, _SAME = 1e-4, 4e-16, 1e-13
#: Singular values below this, relative to the largest, are 0.
_RANK = 1e-12


def minimiser(problem: Problem, X: Array) -> Array | None:
    """The minimiser of L by L-BFGS, then by Newton steps of least norm.

    None where the loss has no minimum.
    Raises UnresolvedError if rounding prevents convergence.

    Parameters
    ----------
    problem : Problem
        One target.
    X : array (n, d)
        Its features.
    """
    if not is_attained(problem):
        return None
    from scipy.optimize import minimize

    zero = np.zeros(problem.d)

    def steepest(b: Array) -> float:
        return float(np.abs(problem.gradient(b)).max())

    first = steepest(zero)
    # Newton's method alone oscillates where the curvature of a robust loss nearly vanishes.
    unit = float(np.abs(X).max()) or 1.0

    def scaled(b: Array) -> tuple[float, Array]:
        # Scaled so that a unit step changes predictions by about one; a trial step may overflow.
        with np.errstate(all="ignore"):
            value, slope = float(problem.loss(b / unit)), problem.gradient(b / unit) / unit
        return (value, slope) if np.isfinite(value) and np.isfinite(slope).all() else (np.inf, zero)

    beta = np.asarray(minimize(scaled, zero, jac=True, method="L-BFGS-B").x) / unit
    for _ in range(_STEPS):
        f = problem.predict(beta)
        slopes, root = problem.slopes(f), np.sqrt(problem.curvatures(f))
        _, values, rows = np.linalg.svd(root[:, None] * X, full_matrices=False)
        kept = values > _RANK * values.max()
        step = -((rows[kept] @ (X.T @ slopes)) / values[kept] ** 2) @ rows[kept]
        if float(np.abs(step).max()) <= _CONVERGED * float(np.abs(beta).max()):
            break
        now, slope, length = float(problem.loss(beta)), float(slopes @ X @ step) / problem.n, 1.0
        for _ in range(_HALVINGS):
            value = float(problem.loss(beta + length * step))
            if value <= now + _DESCENT * length * slope + _ROUNDING * abs(now):
                break
            # Where values of the loss differ by rounding alone, the gradient decides.
            if value <= now + _SAME * abs(now) and steepest(beta + length * step) < steepest(beta):
                break
            length /= 2
        else:
            break
        beta = beta + length * step
    stationary = steepest(beta) <= _STATIONARY * first
    if not (stationary and np.isfinite(beta).all()):
        raise UnresolvedError("the minimum of the loss is not found to rounding: the data are nearly separable")
    return beta
