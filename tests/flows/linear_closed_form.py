r"""References for flows of U V^T: its field and loss written out; the closed form on whitened data, balanced start.

With ``Sigma = c 1`` on the row space of X and ``U_1^T U_1 = V^T V``, ``P = Z Z^T`` obeys a Riccati equation,

.. math:: \dot P = F P + P F - c P^2, \qquad F = \begin{pmatrix} 0 & G_0 \\ G_0^\top & 0 \end{pmatrix},

.. math:: P(t) = e^{tF} Z_0 \Big( 1 + c\, Z_0^\top \int_0^t e^{2sF} ds\; Z_0 \Big)^{-1} Z_0^\top e^{tF}.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from flowsim.network.linear_algebra import LinearData
from flowsim.problem import Regression

Array = NDArray[np.float64]

_TOLERANCE = 1e-10


def whitened_balanced(problem: Regression, U: Array, V: Array, times: ArrayLike, *, alpha: float = 1.0) -> Array:
    """U V^T (T, D, m) at the given times from ``alpha * U``, ``alpha * V``.

    Raises
    ------
    ValueError
        If the non-zero singular values of X differ, or the start is not balanced in the row space of X.

    References
    ----------
    Fukumizu, "Effect of batch learning in multilayer neural networks" (1998), Theorem 1.
    """
    data = LinearData.of(problem)
    c = float(data.curvatures.mean())
    spread = float(np.ptp(data.curvatures))
    if spread > _TOLERANCE * c:
        raise ValueError(f"`problem` must be whitened; the eigenvalues of X^T X / n spread by {spread:g}.")
    U1, still = data.reduce(alpha * np.asarray(U, dtype=float))
    V = alpha * np.asarray(V, dtype=float)
    if np.linalg.norm(still) > _TOLERANCE * np.linalg.norm(U1):
        raise ValueError("`U` must lie in the row space of X; received a part outside it.")
    if np.linalg.norm(U1.T @ U1 - V.T @ V) > _TOLERANCE * np.linalg.norm(V.T @ V):
        raise ValueError("`U` and `V` must be balanced, U^T U = V^T V.")
    r = data.rank
    F = np.zeros((r + data.m,) * 2)
    F[:r, r:] = data.signal
    F[r:, :r] = data.signal.T
    rates, vectors = np.linalg.eigh(F)
    start = vectors.T @ np.concatenate([U1, V])
    times = np.atleast_1d(np.asarray(times, dtype=float))
    out = np.empty((len(times), data.D, data.m))
    for index, t in enumerate(times):
        Z = vectors @ (_root_factor(rates, start, c, t) if t > 0 else start)
        out[index] = data.directions @ (Z[:r] @ Z[r:].T)
    return out


def _root_factor(rates: Array, start: Array, c: float, t: float) -> Array:
    """Y with ``Y Y^T = P(t)`` in the eigenbasis of F.

    From the thin QR factorisation of ``(1; sqrt(c B) Z_0)``, ``B = (exp(2 t rates) - 1) / (2 rates)``: the matrix the
    closed form inverts, whose condition grows like exp(t), is never formed.
    """
    slow = np.abs(rates * t) < 1e-8
    safe = np.where(slow, 1.0, rates)
    growing = np.maximum(t * rates, 0.0)
    root_B = np.exp(growing) * np.sqrt(np.where(slow, t, -np.expm1(-2 * t * np.abs(safe)) / (2 * np.abs(safe))))
    weight = np.where(slow, 1 / np.sqrt(c * t), np.exp(t * rates) / (np.sqrt(c) * root_B))
    stacked = np.concatenate([np.eye(start.shape[1]), np.sqrt(c) * root_B[:, None] * start])
    order = np.argsort(-np.abs(stacked).max(axis=1), kind="stable")  # large rows first: rowwise stable
    orthonormal = np.empty_like(stacked)
    orthonormal[order] = scipy.linalg.qr(stacked[order], mode="economic", pivoting=True)[0]
    return weight[:, None] * orthonormal[start.shape[1] :]


def negative_gradient(
    U: Array, V: Array, X: Array, Y: Array, eta_u2: float = 0.0, eta_v2: float = 0.0
) -> tuple[Array, Array]:
    """``U' = X^T E V / n - eta_V^2 m Sigma U`` and ``V' = E^T X U / n - eta_U^2 tr(Sigma) V`` in all coordinates."""
    n = len(X)
    XU = X @ U
    E = Y - XU @ V.T
    dU = X.T @ (E @ V - eta_v2 * Y.shape[1] * XU) / n
    dV = (E.T @ XU - eta_u2 * np.sum(X**2) * V) / n
    return dU, dV


def expected_loss(U: Array, V: Array, X: Array, Y: Array, eta_u2: float, eta_v2: float) -> float:
    """``E L(U + xi, V + zeta)``, the last term constant in U and V included."""
    n, m = Y.shape
    XU = X @ U
    total = np.sum(X**2)
    return float(
        np.sum((Y - XU @ V.T) ** 2)
        + eta_v2 * m * np.sum(XU**2)
        + eta_u2 * total * np.sum(V**2)
        + eta_u2 * eta_v2 * m * U.shape[1] * total
    ) / (2 * n)
