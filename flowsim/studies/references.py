r"""Regularised reference solutions for flows and limits.

All minimise over ``X beta = y`` (over the least-squares solutions if that has none) or penalise the loss
``L(beta) = ||X beta - y||^2 / (2n)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Bools, Index
from flowsim.card import one_line
from flowsim.plain_numbers import side_pair
from flowsim.problem import Regression, require_squares

Weights = float | ArrayLike | tuple[ArrayLike, ArrayLike]

#: Relative slack on the optimal value in the search for other optimal solutions.
_FACE = 1e-9
#: Distance of a target from the range of X, relative to its norm, beyond which it has no interpolant.
_RESIDUAL = 1e-8
#: Entries of a vertex above this, relative to the largest, form its support; and the tolerance outside of it.
_ZERO = 1e-9
#: Columns added to the active set at once.
_TOGETHER = 32
#: A penalty whose Lasso has the support of the interpolant of least norm, relative to the data's unit.
_VANISHING = 1e-11


@dataclass(frozen=True, eq=False)
class MinL1:
    """A solution of least weighted l1 norm: a vertex, its value, and whether it is the only one."""

    beta: Array
    value: float
    unique: bool

    __repr__ = one_line


def min_l1(problem: Regression, weights: Weights = 1.0) -> MinL1:
    r"""``min sum w_i^+ beta_i^+ + w_i^- beta_i^-`` subject to ``X beta = y``, by HiGHS.

    Parameters
    ----------
    problem : Regression
        With one target; X must not be a LinearOperator.
    weights : number, array (d,), or a pair of them (positive part, negative part)
        Positive; the growth thresholds for the end of :func:`flowsim.saddle_to_saddle`. inf forbids a sign.

    Raises
    ------
    ValueError
        For weights out of range, and if ``X beta = y`` has no solution.

    Notes
    -----
    If the solution is not unique, gradient flow from a vanishing start selects the one of least entropy
    (:mod:`flowsim.limits.selection`): the end of :func:`flowsim.saddle_to_saddle`, the limit of
    :func:`flowsim.studies.min_entropy`.
    """
    from scipy.optimize import linprog

    plus, minus = _sides("weights", weights, problem.d, "> 0")
    A, f, size = _constraints(problem)
    if size == 0.0:
        return MinL1(np.zeros(problem.d), 0.0, True)
    allowed = np.isfinite(np.concatenate([plus, minus]))
    cost = np.where(allowed, np.concatenate([plus, minus]), 0.0)
    unit = float(cost.max()) or 1.0
    programme = {
        "A_eq": _signed(A),
        "b_eq": f,
        "bounds": [(0, None if free else 0) for free in allowed],
        "method": "highs-ds",
    }
    solved = linprog(cost / unit, **programme)
    if solved.status != 0:
        raise ValueError(f"`problem` must have a solution of X beta = y with the signs allowed: {solved.message}")
    x = _vertex(A, f, solved.x, cost, allowed)
    beta = x[: problem.d] - x[problem.d :]
    # Others exist if coefficients outside the support of this vertex can be non-zero at the same value.
    outside = x <= _ZERO * max(float(x.max(initial=0.0)), 1e-300)
    others = linprog(-outside.astype(float), A_ub=cost[None, :] / unit, b_ub=[solved.fun * (1 + _FACE)], **programme)
    unique = others.status == 0 and -others.fun <= 1e-5 * float(np.abs(beta).max(initial=0.0))
    return MinL1(size * beta, size * float(cost @ x), bool(unique))


def _constraints(problem: Regression) -> tuple[Any, Array, float]:
    """A, f and a size with ``X beta = y`` as ``A beta = size f``, for a solver of absolute tolerances.

    For dense X the rows of A are an orthonormal basis of its row space: f, and the residual of the constraints, are
    then in the units of beta however nearly collinear the columns are.

    Raises ValueError if y does not lie in the range of dense X.
    """
    X, y = _matrix(problem), target_vector(problem)
    p, q = (exponent or 0 for exponent in problem.binary_exponents)
    y = np.ldexp(y, -q)
    if not isinstance(X, np.ndarray):
        return X * 2.0**-p, y, math.ldexp(1.0, q - p) if y.any() else 0.0
    left, sizes, rows = np.linalg.svd(np.ldexp(X, -p), full_matrices=False)
    rank = int((sizes > max(X.shape) * np.finfo(float).eps * sizes.max(initial=0.0)).sum())
    seen = left[:, :rank].T @ y
    rest = float(np.linalg.norm(y - left[:, :rank] @ seen))
    if rest > _RESIDUAL * float(np.linalg.norm(y)):
        raise ValueError(f"`problem` must have a solution of X beta = y; the least residual is {rest:.1e} of y.")
    f = seen / sizes[:rank]
    size = float(np.abs(f).max(initial=0.0))
    return rows[:rank], f / size if size > 0 else f, math.ldexp(size, q - p)


def _vertex(A: Any, f: Array, x: Array, cost: Array, allowed: Bools) -> Array:
    """A vertex refined to rounding, by the linear system on its support.

    HiGHS satisfies the constraints to 1e-7, and so may omit one of nearly collinear columns: then the support is that
    of the Lasso at a vanishing penalty.
    """
    if not isinstance(A, np.ndarray):
        return x
    best = _on_support(A, f, np.flatnonzero(x > _ZERO * x.max(initial=0.0)), x)
    if _miss(A, f, best) > _ZERO:
        costs = np.where(allowed, _VANISHING * cost / cost.max(), np.inf)
        lasso = weighted_lasso(Regression(A, f), (costs[: A.shape[1]], costs[A.shape[1] :]))
        best = _on_support(A, f, np.flatnonzero(np.concatenate([lasso, -lasso]) > 0), best)
    return best


def _on_support(A: Array, f: Array, support: Index, otherwise: Array) -> Array:
    d = A.shape[1]
    out = np.zeros_like(otherwise)
    out[support] = np.linalg.lstsq(np.where(support < d, 1.0, -1.0) * A[:, support % d], f, rcond=None)[0]
    return out if (out[support] > 0).all() and _miss(A, f, out) <= _miss(A, f, otherwise) else otherwise


def _miss(A: Array, f: Array, x: Array) -> float:
    return float(np.abs(A @ (x[: A.shape[1]] - x[A.shape[1] :]) - f).max(initial=0.0))


def min_l2(problem: Regression) -> Array:
    """The least-squares solution of least Euclidean norm, shape (d,)."""
    if problem.is_dense:
        return np.asarray(np.linalg.lstsq(problem.X, target_vector(problem), rcond=None)[0])
    from scipy.sparse.linalg import lsqr

    size = 50 * min(problem.n, problem.d)
    return np.asarray(lsqr(problem.X, target_vector(problem), atol=1e-15, btol=1e-15, iter_lim=size)[0])


def weighted_lasso(problem: Regression, penalties: Weights) -> Array:
    r"""``min L(beta) + sum_i kappa_i^+ beta_i^+ + kappa_i^- beta_i^-``, one minimiser if there are several.

    Parameters
    ----------
    problem : Regression
        With one target; X must not be a LinearOperator.
    penalties : number, array (d,), or a pair of them (positive part, negative part)
        >= 0; inf forbids a sign.

    Raises
    ------
    ValueError
        For negative penalties.
    ArithmeticError
        If the active set does not converge.

    Notes
    -----
    An active-set method on an orthonormal factor of the active columns (Lawson and Hanson's, with costs): the
    optimality conditions hold to rounding, also for nearly collinear features.
    """
    from flowsim.solvers.active_set import ConeRegression

    plus, minus = _sides("penalties", penalties, problem.d, ">= 0")
    X, y = entries(problem), target_vector(problem)
    n, norms = problem.n, problem.column_norms
    cone: ConeRegression[tuple[int, float]] = ConeRegression(y, lambda key: key[1] * X[:, key[0]])
    inside = np.zeros((2, problem.d), dtype=bool)
    while True:
        force = X.T @ cone.residual
        excess = np.stack([force - n * plus, -force - n * minus])
        excess[inside | ~(excess > 0)] = -np.inf
        # The columns of largest violation, per norm, are added; with many features only a few are tested.
        steepest = excess / np.where(norms > 0, norms, 1.0)
        worst = np.argpartition(-steepest.ravel(), min(_TOGETHER, steepest.size) - 1)[:_TOGETHER]
        sides, coordinates = np.unravel_index(worst[np.isfinite(steepest.ravel()[worst])], steepest.shape)
        if len(sides):
            noise = cone.noise(X[:, coordinates], norms[coordinates], excess[sides, coordinates])
            real = excess[sides, coordinates] > noise
            sides, coordinates = sides[real], coordinates[real]
        if not len(sides):
            break
        inside[sides, coordinates] = True
        cone.solve(
            ((int(i), 1.0 if side == 0 else -1.0), n * float((plus, minus)[side][i]))
            for side, i in zip(sides.tolist(), coordinates.tolist(), strict=True)
        )
    beta = np.zeros(problem.d)
    for (i, sign), value in zip(cone.members, cone.b.tolist(), strict=True):
        beta[i] += sign * value
    return beta


@dataclass(frozen=True)
class RecoveryScores:
    """Quality of the recovery of a sparse truth.

    Attributes
    ----------
    precision, recall, f1 : float
        Scores of the support.
    exact_support : bool
    signs : float
        Fraction of the true support with the right sign.
    relative_error : float
        ``|beta - truth| / |truth|``.
    """

    precision: float
    recall: float
    f1: float
    exact_support: bool
    signs: float
    relative_error: float


def recovery_scores(beta: ArrayLike, truth: ArrayLike, threshold: float = 1e-6) -> RecoveryScores:
    """Compare a solution with a sparse truth.

    Parameters
    ----------
    beta, truth : array (d,)
    threshold : float
        Entries of beta up to this, relative to its largest, count as zero.

    Raises
    ------
    ValueError
        For different shapes, entries that are not finite, or a truth of zeros.
    """
    beta, truth = np.asarray(beta, dtype=float), np.asarray(truth, dtype=float)
    if beta.shape != truth.shape or beta.ndim != 1:
        raise ValueError(f"`beta` and `truth` must be vectors of one length; received {beta.shape} and {truth.shape}.")
    if not (np.isfinite(beta).all() and np.isfinite(truth).all()):
        raise ValueError("`beta` and `truth` must be finite; received NaN or infinity.")
    true = truth != 0
    if not true.any():
        raise ValueError("`truth` must have at least one entry that is not 0; received none.")
    found = np.abs(beta) > threshold * np.abs(beta).max()
    both = float((found & true).sum())
    precision = both / found.sum() if found.any() else 0.0
    recall = both / true.sum()
    return RecoveryScores(
        precision=float(precision),
        recall=float(recall),
        f1=float(2 * both / (found.sum() + true.sum())),
        exact_support=bool((found == true).all()),
        signs=float((np.sign(beta) * found == np.sign(truth))[true].mean()),
        relative_error=float(np.linalg.norm(beta - truth) / np.linalg.norm(truth)),
    )


def _sides(name: str, value: Any, d: int, bound: str) -> tuple[Array, Array]:
    return side_pair(name, value if isinstance(value, tuple) else (value, value), d, bound)


def target_vector(problem: Regression) -> Array:
    """y of one target, (n,)."""
    require_squares(problem, "a reference that interpolates or fits by least squares")
    if problem.n_targets > 1:
        raise ValueError(f"`problem` must have one target; received {problem.n_targets}.")
    return problem.y.ravel()


def _matrix(problem: Regression) -> Any:
    if problem.is_dense or hasattr(problem.X, "tocsc"):
        return problem.X
    raise ValueError("`problem` must hold the entries of X; received a LinearOperator.")


def entries(problem: Regression) -> Array:
    """X as a dense array; no LinearOperator."""
    X = _matrix(problem)
    return X if problem.is_dense else np.asarray(X.toarray())


def _signed(X: Any) -> Any:
    if isinstance(X, np.ndarray):
        return np.hstack([X, -X])
    import scipy.sparse

    return scipy.sparse.hstack([X, -X], format="csc")
