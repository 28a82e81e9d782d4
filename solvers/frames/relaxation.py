r"""How G answers to a forcing of itself: ``x + mu K x``, ``K x = rows * (x P_2 + P_1 x) * columns``.

``P_1 = Z_1 Z_1^T`` and ``P_2 = Z_2 Z_2^T`` of the state at the start of a step, P_1 taken as
``W W^T + nu (1 - .)`` with p columns W. The inverse is a preconditioner and a filter of the error estimate.
With constant columns the operator separates in the eigenvectors of P_2 (Woodbury's formula in each), with constant
rows in those of P_1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.compilation import compiled

__all__ = ["Relaxation"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The operator at one state.

    Attributes
    ----------
    rows, columns : array (R,), (p,)
        Curvatures.
    basis : array (R, p)
        Orthonormal columns: ``P_1 = basis @ inner @ basis.T + nu`` on their complement.
    inner, outer : array (p, p)
        ``outer = P_2``.
    nu : float
    """

    rows: Array
    columns: Array
    basis: Array
    inner: Array
    outer: Array
    nu: float

    def factor(self, mus: NDArray[Any]) -> tuple[Any, ...]:
        """What :meth:`solve` needs for times mu (K,)."""
        mus = mus.astype(complex)
        if np.ptp(self.columns) == 0.0:
            values, vectors = np.linalg.eigh(self.outer)
            small, left = np.linalg.eigh(self.inner - self.nu * np.eye(len(self.inner)))
            W = self.basis @ left
            rates = self.columns[0] * self.rows
            diagonal = 1.0 + mus[:, None, None] * rates * (np.maximum(values, 0.0)[None, :, None] + self.nu)
            return True, vectors, W, _woodbury(mus, rates, diagonal, W, small), diagonal, rates, mus
        weight = self.rows[0] * self.columns
        values, vectors = np.linalg.eigh(self.inner)
        shifts = np.append(np.maximum(values, 0.0), self.nu)
        p = len(weight)
        square = self.outer[None] + shifts[:, None, None] * np.eye(p)
        inverse = np.linalg.inv(np.eye(p) + mus[:, None, None, None] * (square * weight)[None])
        return False, self.basis @ vectors, inverse

    @staticmethod
    def solve(factors: tuple[Any, ...], residual: NDArray[Any]) -> Complex:
        """``(1 + mu_k K)^{-1} residual_k`` for residuals (K, R, p)."""
        residual = np.ascontiguousarray(residual.astype(complex))
        if factors[0]:
            _, vectors, W, inverse, diagonal, rates, mus = factors
            turned = residual @ vectors
            return _solve_rows(turned, W, inverse, diagonal, rates, mus) @ vectors.T
        _, basis, inverse = factors
        along = basis.T @ residual
        rest = residual - basis @ along
        answered = np.einsum("kla,klab->klb", along, inverse[:, :-1])
        out: Complex = rest @ inverse[:, -1] + basis @ answered
        return out


@compiled()
def _woodbury(mus, rates, diagonal, W, small):
    """``(1 / small + W^T (mu rates / diagonal) W)^{-1}``, written without dividing by `small`."""
    K, p, R = diagonal.shape
    q = W.shape[1]
    out = np.empty((K, p, q, q), np.complex128)
    inner = np.empty((q, q), np.complex128)
    for k in range(K):
        for j in range(p):
            for a in range(q):
                for b in range(q):
                    total = 0.0j
                    for i in range(R):
                        total += W[i, a] * W[i, b] * (mus[k] * rates[i] / diagonal[k, j, i])
                    inner[a, b] = small[a] * total
                inner[a, a] += 1.0
            inverse = np.linalg.inv(inner)
            for a in range(q):
                for b in range(q):
                    out[k, j, a, b] = inverse[a, b] * small[b]
    return out


@compiled()
def _solve_rows(turned, W, inverse, diagonal, rates, mus):
    K, R, p = turned.shape
    q = W.shape[1]
    out = np.empty((K, R, p), np.complex128)
    along = np.empty(q, np.complex128)
    for k in range(K):
        for j in range(p):
            along[:] = 0.0
            for i in range(R):
                out[k, i, j] = turned[k, i, j] / diagonal[k, j, i]
                for a in range(q):
                    along[a] += W[i, a] * out[k, i, j]
            for i in range(R):
                total = 0.0j
                for a in range(q):
                    part = 0.0j
                    for b in range(q):
                        part += inverse[k, j, a, b] * along[b]
                    total += W[i, a] * part
                out[k, i, j] -= mus[k] * rates[i] / diagonal[k, j, i] * total
    return out
