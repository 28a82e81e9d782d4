r"""Regularised solutions to compare flows and limits with.

All minimise over ``X beta = y`` (over the least-squares solutions if that has none) or penalise the loss
``L(beta) = ||X beta - y||^2 / (2n)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.limits.selection import start_memory
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Regression, require_squares

__all__ = ["MinL1", "RecoveryScores", "min_entropy", "min_l1", "min_l2", "recovery_scores", "weighted_lasso"]

Array = NDArray[np.float64]
Weights = float | ArrayLike | tuple[ArrayLike, ArrayLike]

#: Relative slack on the optimal value when the other optimal solutions are searched.
_FACE = 1e-9
_SWEEPS = 100_000


@dataclass(frozen=True, eq=False)
class MinL1:
    """A solution of least weighted l1 norm: a vertex, its value, and whether it is the only one."""

    beta: Array
    value: float
    unique: bool


def min_l1(problem: Regression, weights: Weights = 1.0) -> MinL1:
    r"""``min sum w_i^+ beta_i^+ + w_i^- beta_i^-`` subject to ``X beta = y``, by HiGHS.

    Parameters
    ----------
    problem : Regression
        With one target and finite entries at hand (no LinearOperator).
    weights : number, array (d,), or a pair of them (positive part, negative part)
        Positive; the growth thresholds for the end of :func:`flowsim.saddle_to_saddle`. inf forbids a sign.

    Raises
    ------
    ValueError
        For weights out of range, and if ``X beta = y`` has no solution.

    Notes
    -----
    If the solution is not unique, gradient flow from a vanishing start selects the one of least entropy
    (:mod:`flowsim.limits.selection`): the end of :func:`flowsim.saddle_to_saddle`, the limit of :func:`min_entropy`.
    """
    from scipy.optimize import linprog

    plus, minus = _pair("weights", weights, problem.d, strict=True)
    X = _matrix(problem)
    stacked, cost = _signed(X), np.concatenate([plus, minus])
    bounds = [(0, None if np.isfinite(c) else 0) for c in cost]
    cost = np.where(np.isfinite(cost), cost, 0.0)
    solved = linprog(cost, A_eq=stacked, b_eq=_target(problem), bounds=bounds, method="highs-ds")
    if solved.status != 0:
        raise ValueError(f"`problem` must have a solution of X beta = y with the signs allowed: {solved.message}")
    beta = solved.x[: problem.d] - solved.x[problem.d :]
    # Others exist if, at the same value, weight can be put outside the support of this vertex.
    outside = solved.x <= 1e-9 * max(float(solved.x.max(initial=0.0)), 1e-300)
    others = linprog(
        -outside.astype(float),
        A_ub=cost[None, :],
        b_ub=[solved.fun * (1 + _FACE)],
        A_eq=stacked,
        b_eq=_target(problem),
        bounds=bounds,
        method="highs-ds",
    )
    scale = max(float(np.abs(beta).max(initial=0.0)), 1e-300)
    unique = others.status == 0 and -others.fun <= 1e-5 * scale
    return MinL1(beta, float(solved.fun), bool(unique))


def min_l2(problem: Regression) -> Array:
    """The least-squares solution of least Euclidean norm, shape (d,)."""
    if problem.is_dense:
        return np.asarray(np.linalg.lstsq(problem.X, _target(problem), rcond=None)[0])
    from scipy.sparse.linalg import lsqr

    size = 50 * min(problem.n, problem.d)
    return np.asarray(lsqr(problem.X, _target(problem), atol=1e-15, btol=1e-15, iter_lim=size)[0])


def min_entropy(
    net: DiagonalNetwork,
    problem: Regression,
    alpha: float | str | Decimal | Fraction,
    start: dict[str, ArrayLike] | None = None,
) -> Array:
    r"""Where gradient flow of a quadratic network ends: the minimiser of its entropy among interpolants.

    For ``u*v`` the hyperbolic entropy

    .. math:: Q_\alpha(\beta) = \sum_i \int_0^{\beta_i} \mathrm{arcsinh}\Big(\frac{x}{2\sqrt{A_i B_i}}\Big)
              - \tfrac12 \ln\frac{A_i}{B_i} \, dx, \quad A_i, B_i = \tfrac{\alpha^2}{4} (u_i \pm v_i)^2,

    in general the one whose mirror map inverts ``beta_i(z) = sum_k mu_k c_k^2 exp(4 mu_k z)``.

    Parameters
    ----------
    net : DiagonalNetwork
        Quadratic formulas, without noise.
    problem : Regression
    alpha, start
        As in :func:`flowsim.gradient_flow`; any scale.

    Returns
    -------
    beta : array (d,)

    Raises
    ------
    ValueError
        For other networks.
    ArithmeticError
        If no interpolant has the signs that the start allows.

    References
    ----------
    Woodworth et al., *Kernel and rich regimes in overparametrized models*, arXiv 2002.09277, Theorem 1.
    """
    from flowsim.solvers.entropy import Exponentials, mirror_interpolation

    direction = net.direction(start, problem.d)
    memory = start_memory(net, direction, fresh=False)
    if memory is None or (net.noise is not None and np.any(net.noise.stds(net.weights))):
        raise ValueError("`net` must have quadratic formulas and no noise: its end minimises no entropy otherwise.")
    log_alpha = InitialScale.parse(alpha).log
    coefficients, rates = memory(np.arange(problem.d))
    with np.errstate(divide="ignore"):
        offset = np.log(np.abs(coefficients)) + 2.0 * log_alpha
    X = _dense(problem)
    fitted = X @ np.linalg.lstsq(X, _target(problem), rcond=None)[0]
    return mirror_interpolation(X, fitted, Exponentials(offset, rates))


def weighted_lasso(problem: Regression, penalties: Weights, tolerance: float = 1e-12) -> Array:
    r"""``min L(beta) + sum_i kappa_i^+ beta_i^+ + kappa_i^- beta_i^-``.

    Coordinate descent on the active set until the optimality conditions hold to `tolerance` times
    ``max |X^T y| / n``; then the support's own linear system, which gives the last digits.

    Raises
    ------
    ValueError
        For negative penalties.
    ArithmeticError
        If coordinate descent does not settle.
    """
    plus, minus = _pair("penalties", penalties, problem.d, strict=False)
    X, y, n = _dense(problem), _target(problem), problem.n
    beta = _coordinate_descent(np.asfortranarray(X), y, plus, minus, tolerance)
    support = np.flatnonzero(beta)
    if support.size:
        cost = np.where(beta[support] > 0, plus[support], -minus[support])
        Q, R = np.linalg.qr(X[:, support])
        if len(support) <= n and np.abs(np.diag(R)).min() > 1e-10 * np.abs(np.diag(R)).max():
            refined = np.linalg.solve(R, Q.T @ y - n * np.linalg.solve(R.T, cost))
            if (np.sign(refined) == np.sign(beta[support])).all():
                beta[support] = refined
    return beta


@dataclass(frozen=True)
class RecoveryScores:
    """How well a sparse truth is found.

    Attributes
    ----------
    precision, recall, f1 : float
        Of the support.
    exact_support : bool
    signs : float
        Share of the true support with the right sign.
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
        Entries of beta up to this share of its largest count as zero.

    Raises
    ------
    ValueError
        For shapes that differ, entries that are not finite, or a truth without support.
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


def _coordinate_descent(X: Array, y: Array, plus: Array, minus: Array, tolerance: float) -> Array:
    from flowsim.studies._descent import sweep

    n, d = X.shape
    beta, residual = np.zeros(d), y.copy()
    squares = (X**2).sum(axis=0) / n
    slack = tolerance * float(np.abs(X.T @ y).max(initial=0.0)) / n
    everyone = np.flatnonzero(squares > 0)
    done = 0
    while done < _SWEEPS:
        sweep(X, residual, beta, squares, plus, minus, everyone)
        active = np.flatnonzero(beta)
        for _ in range(200):
            done += 1
            if sweep(X, residual, beta, squares, plus, minus, active) <= slack:
                break
        residual = y - X @ beta
        force = X.T @ residual / n
        excess = np.where(
            beta > 0,
            np.abs(force - plus),
            np.where(beta < 0, np.abs(force + minus), np.maximum(np.maximum(force - plus, -force - minus), 0.0)),
        )
        if excess[everyone].max(initial=0.0) <= slack:
            return beta
    raise ArithmeticError(f"coordinate descent misses its optimality conditions by {excess.max():.1e}")


def _pair(name: str, value: Any, d: int, strict: bool) -> tuple[Array, Array]:
    sides = value if isinstance(value, tuple) else (value, value)
    if len(sides) != 2:
        raise ValueError(f"`{name}` must be one value or a pair; received {len(sides)} values.")
    out = []
    for side in sides:
        array = np.asarray(side, dtype=float)
        if array.shape not in ((), (d,)):
            raise ValueError(f"`{name}` must be numbers or arrays of shape ({d},); received shape {array.shape}.")
        bad = ~(array > 0) if strict else ~(array >= 0)
        if bad.any():
            bound = "> 0" if strict else ">= 0"
            raise ValueError(f"`{name}` must be {bound}; received {np.atleast_1d(array)[np.atleast_1d(bad)][0]}.")
        out.append(np.array(np.broadcast_to(array, (d,))))
    return out[0], out[1]


def _target(problem: Regression) -> Array:
    require_squares(problem, "a reference that interpolates or fits by least squares")
    if problem.y.ndim == 1:
        return problem.y
    if problem.n_targets == 1:
        return problem.y[:, 0]
    raise ValueError(f"`problem` must have one target; received {problem.n_targets}.")


def _matrix(problem: Regression) -> Any:
    if problem.is_dense or hasattr(problem.X, "tocsc"):
        return problem.X
    raise ValueError("`problem` must hold the entries of X; received a LinearOperator.")


def _dense(problem: Regression) -> Array:
    X = _matrix(problem)
    return X if problem.is_dense else np.asarray(X.toarray())


def _signed(X: Any) -> Any:
    if isinstance(X, np.ndarray):
        return np.hstack([X, -X])
    import scipy.sparse

    return scipy.sparse.hstack([X, -X], format="csc")
