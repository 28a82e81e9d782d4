r"""Sharpness: the largest eigenvalue of the Hessian of the loss in the weights.

.. math:: H_{(a,i),(b,j)} = \partial_a\phi_i \, \Sigma_{ij} \, \partial_b\phi_j
          + \delta_{ij} \, g_i \, \partial_a\partial_b\phi_i, \qquad \Sigma = X^\top X / n.

Descent with step h is linearly stable at a minimum only if the sharpness there is at most 2/h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from flowsim.arrays import Array
from flowsim.hints import hinting
from flowsim.network import DiagonalNetwork, GivenWeights, LinearNetwork
from flowsim.plain_numbers import reals
from flowsim.problem import Problem, matrix_targets

#: Number of weights up to which the Hessian is formed; above, Lanczos's method uses products with it.
_DENSE = 200
_TOLERANCE = 1e-10


@hinting
def sharpness(net: DiagonalNetwork | LinearNetwork, problem: Problem, weights: GivenWeights) -> Array:
    """The largest Hessian eigenvalue of the training loss (without the noise term) at given weights.

    Parameters
    ----------
    net, problem
    weights : mapping name -> array (d,) or (T, d)
        As in ``traj.weights``; for a LinearNetwork U (D, h) or (T, D, h) and V likewise.

    Returns
    -------
    array () or (T,)

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0]], [4.0])
    >>> round(float(fs.sharpness(fs.DiagonalNetwork("u*v"), problem, {"u": [2.0], "v": [2.0]})), 9)
    8.0
    """
    if not isinstance(weights, Mapping) or not set(net.weights) <= set(weights):
        got = ", ".join(map(str, weights)) if isinstance(weights, Mapping) else type(weights).__name__
        raise ValueError(f"`weights` must map {', '.join(net.weights)} to arrays; received {got}.")
    rows = [reals(f"weights[{name!r}]", weights[name]) for name in net.weights]
    single = rows[0].ndim == (1 if isinstance(net, DiagonalNetwork) else 2)
    if single:
        rows = [row[None] for row in rows]
    for name, row in zip(net.weights, rows, strict=True):
        if not np.isfinite(row).all():
            raise ValueError(f"`weights[{name!r}]` must be finite; received NaN or infinity.")
    out = np.empty(len(rows[0]))
    vector: Array | None = None
    for index in range(len(out)):
        state = [np.ascontiguousarray(row[index]) for row in rows]
        if isinstance(net, LinearNetwork):
            product, size = _linear_product(problem, *state), state[0].size + state[1].size
        else:
            product, size = _diagonal_product(net, problem, np.array(state)), len(state) * problem.d
        out[index], vector = _top(product, size, vector)
    return np.asarray(out[0]) if single else out


def largest_stable_step(net: DiagonalNetwork | LinearNetwork, problem: Problem, weights: GivenWeights) -> Array:
    """``2 / sharpness``: a minimum at these weights is unstable for descent with a larger step."""
    return 2.0 / sharpness(net, problem, weights)


def _top(product: Callable[[Array], Array], size: int, vector: Array | None) -> tuple[float, Array]:
    """The largest eigenvalue of a symmetric operator, and its eigenvector, from which the next search starts."""
    if size <= _DENSE:
        return _top_of_matrix(product(np.eye(size)))
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    # Plus a fixed vector: the last eigenvector alone may be an exact eigenvector that is no longer the leading one.
    start = np.random.default_rng(0).standard_normal(size) / np.sqrt(size)
    if vector is not None:
        start = vector + 0.1 * start
    operator = LinearOperator((size, size), matvec=lambda v: product(v.reshape(-1, 1)).ravel(), dtype=float)
    try:
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=_TOLERANCE, ncv=min(size - 1, 40))
    except ArpackNoConvergence:
        return _top_of_matrix(product(np.eye(size)))
    return float(values[0]), vectors[:, 0]


def _top_of_matrix(matrix: Array) -> tuple[float, Array]:
    from scipy.linalg import eigh

    last = len(matrix) - 1
    values, vectors = eigh((matrix + matrix.T) / 2, subset_by_index=[last, last])
    return float(values[0]), vectors[:, 0]


def _diagonal_product(net: DiagonalNetwork, problem: Problem, w: Array) -> Callable[[Array], Array]:
    """``v -> H v`` for columns v (k d, c)."""
    from flowsim.symbolic import kernels

    K = kernels(net)
    k, d = w.shape
    kind = net.kinds(d)
    beta, slope, curve = np.empty(d), np.empty((k, d)), np.empty((k, k, d))
    K.value(w, kind, beta)
    K.gradient(w, kind, slope)
    K.hessian(w, kind, curve)
    f = np.asarray(problem.X @ beta).reshape(problem.y.shape)
    g = problem.rmatvec(problem.slopes(f).reshape(problem.n)) / problem.n
    curvature = problem.curvatures(f).reshape(problem.n, 1)

    def product(v: Array) -> Array:
        columns = v.reshape(k, d, -1)
        moved = np.asarray(problem.X @ (slope[:, :, None] * columns).sum(axis=0))
        change = problem.rmatvec(curvature * moved) / problem.n
        out = slope[:, :, None] * change + g[:, None] * np.einsum("abi,bic->aic", curve, columns)
        return out.reshape(k * d, -1)

    return product


def _linear_product(problem: Problem, U: Array, V: Array) -> Callable[[Array], Array]:
    D, h = U.shape
    m = len(V)
    problem = matrix_targets(problem)
    beta = U @ V.T
    negative = -problem.gradient(beta)

    def one(v: Array) -> Array:
        P, Q = v[: D * h].reshape(D, h), v[D * h :].reshape(m, h)
        change = problem.hessian_product(beta, P @ V.T + U @ Q.T)
        return np.concatenate([(change @ V - negative @ Q).ravel(), (change.T @ U - negative.T @ P).ravel()])

    def product(v: Array) -> Array:
        return np.stack([one(column) for column in v.T], axis=1)

    return product
