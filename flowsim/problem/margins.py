"""Separable data: the directions of largest margin, and whether a loss has a minimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.arrays import Array, Bools
from flowsim.problem.entries import dense
from flowsim.problem.problems import Problem

#: What counts as zero: a margin relative to the size of the data, the optimum of a linear programme, 0 or of order 1.
_NO_MARGIN, _NOTHING = 1e-9, 1e-7


@dataclass(frozen=True, eq=False)
class MaxMargin:
    """The direction of largest margin in a norm.

    Attributes
    ----------
    direction : array (d,)
        Of norm 1.
    margin : float
        ``min_i y_i x_i . direction`` over the rows of positive weight, > 0.
    norm : {"l1", "l2"}
    """

    direction: Array
    margin: float
    norm: str


def max_margin_l1(problem: Problem) -> MaxMargin:
    r"""``max min_i y_i x_i^T b`` over ``||b||_1 <= 1``: HiGHS on ``min ||b||_1`` subject to ``y_i x_i^T b >= 1``.

    Parameters
    ----------
    problem : Problem
        One target of labels -1 and +1.

    Raises
    ------
    ValueError
        If no direction separates the data.
    """
    import scipy.sparse
    from scipy.optimize import linprog

    A, _ = _signed_rows(problem)
    norms = _column_sizes(A)
    if isinstance(A, np.ndarray):
        both: Any = np.hstack([A / norms, -A / norms])
    else:
        scaled = A @ scipy.sparse.diags_array(1.0 / norms)
        both = scipy.sparse.hstack([scaled, -scaled], format="csc")
    found = linprog(np.tile(norms.max() / norms, 2), A_ub=-both, b_ub=-np.ones(A.shape[0]), method="highs")
    if found.status != 0:
        raise ValueError("`problem` must be separable: no direction has a positive margin on all of its rows.")
    b = (found.x[: problem.d] - found.x[problem.d :]) * (norms.max() / norms)
    return _of(A, b / np.abs(b).sum(), "l1")


def max_margin_l2(problem: Problem) -> MaxMargin:
    r"""``max min_i y_i x_i^T b`` over ``||b||_2 <= 1``: least distance programming by non-negative least squares.

    Parameters
    ----------
    problem : Problem
        One target of labels -1 and +1; dense or sparse X.

    Raises
    ------
    ValueError
        If no direction separates the data.

    References
    ----------
    Lawson & Hanson, *Solving Least Squares Problems*, Chapter 23 (problem LDP).
    """
    from scipy.optimize import nnls

    A, size = _signed_rows(problem)
    full = (A if isinstance(A, np.ndarray) else A.toarray()) / size
    system = np.vstack([full.T, np.ones(len(full))])
    target = np.append(np.zeros(problem.d), 1.0)
    u, _ = nnls(system, target, maxiter=30 * len(full))
    rest = system @ u - target
    if not -rest[-1] > _NO_MARGIN:
        raise ValueError("`problem` must be separable: no direction has a positive margin on all of its rows.")
    b = rest[:-1] / -rest[-1]
    return _of(A, b / np.linalg.norm(b), "l2")


def is_separable(problem: Problem) -> bool:
    """Whether some direction (with several targets, one for each) has a positive margin on all rows."""
    if problem.n_targets > 1:
        return all(is_separable(problem.with_target(column)) for column in problem.y.T)
    try:
        return max_margin_l1(problem).margin > 0
    except ValueError as error:
        if "separable" in str(error):
            return False
        raise


def is_attained(problem: Problem) -> bool:
    r"""Whether L has a minimum: no direction decreases some terms without end and increases none.

    With ``s_i`` the side on which the slope of term i tends to 0, one linear programme (HiGHS) seeks a d with
    ``s_i x_i . d >= 0``, not all 0, and ``x_i . d = 0`` on the rows without such a side.
    """
    side = problem.loss_function.flat(problem.y)
    flat = (side != 0) & (problem.entry_weights > 0)
    held = (side == 0) & (problem.entry_weights > 0)
    if not flat.any():
        return True
    if problem.y.ndim > 1:
        return all(is_attained(problem.with_target(column)) for column in problem.y.T)
    from scipy.optimize import linprog

    X = dense(problem)
    columns = np.abs(X).max(axis=0)
    used = columns > 0
    rows = side[flat, None] * X[np.ix_(flat, used)] / columns[used]
    fixed = X[np.ix_(held, used)] / columns[used]
    found = linprog(
        -rows.sum(axis=0),
        A_ub=np.vstack([-rows, rows]),
        b_ub=np.repeat([0.0, 1.0], len(rows)),
        A_eq=fixed if held.any() else None,
        b_eq=np.zeros(len(fixed)) if held.any() else None,
        bounds=(None, None),
        method="highs",
    )
    return bool(found.status == 0 and -found.fun <= _NOTHING)


def weighted_rows(problem: Problem) -> Bools:
    """The rows that the loss contains, (n,): a row of weight 0 has no margin to keep."""
    return np.ones(problem.n, dtype=bool) if problem.sample_weight is None else problem.sample_weight > 0


def _signed_rows(problem: Problem) -> tuple[Any, float]:
    """``y_i x_i`` of the rows of positive weight, and the largest norm of one."""
    y = problem.y.reshape(problem.n, -1)
    if y.shape[1] != 1 or not np.isin(y, (-1.0, 1.0)).all():
        raise ValueError("`problem` must have one target of labels -1 and +1 for a margin.")
    if problem.is_dense:
        A: Any = (problem.X * y)[weighted_rows(problem)]
        return A, float(np.sqrt((A**2).sum(axis=1).max())) or 1.0
    if hasattr(problem.X, "tocsr"):
        A = problem.X.multiply(y).tocsr()[weighted_rows(problem)]
        return A, float(np.sqrt(A.multiply(A).sum(axis=1).max())) or 1.0
    raise ValueError("`problem` must hold the entries of X; received a LinearOperator.")


def _column_sizes(A: Any) -> Array:
    sizes = np.asarray(np.abs(A).max(axis=0).toarray() if not isinstance(A, np.ndarray) else np.abs(A).max(axis=0))
    return np.where(sizes.ravel() > 0, sizes.ravel(), 1.0)


def _of(A: Any, direction: Array, norm: str) -> MaxMargin:
    return MaxMargin(direction, float((A @ direction).min()), norm)
