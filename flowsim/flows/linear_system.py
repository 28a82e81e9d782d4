r"""The flow of U V^T as a quasilinear matrix flow.

In the basis of the right singular vectors of X, with ``Z = (U_1; V)``,

.. math:: Z' = \begin{pmatrix} -a & G \\ G^\top & -b \end{pmatrix} Z, \quad G = G_0 - \mathrm{diag}(\lambda) U_1 V^\top,

a and b the damping by weight noise. Without noise the generator anticommutes with J = diag(1, -1), so the
propagator lies in O(r, m) and ``U_1^T U_1 - V^T V = Z^T J Z`` is conserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TwoLayerSystem"]

#: Size of G up to which its exact response is formed as a matrix.
_LARGEST_FROZEN = 200

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TwoLayerSystem:
    """q = G, (r, m).

    Attributes
    ----------
    signal : array (r, m)
    curvatures, damping_u : array (r,)
    damping_v : float
    """

    signal: Array
    curvatures: Array
    damping_u: Array
    damping_v: float

    @property
    def rank(self) -> int:
        return len(self.curvatures)

    @property
    def split(self) -> int | None:
        return None if self.damping.any() else self.rank

    @property
    def damping(self) -> Array:
        """(r + m,)"""
        return np.concatenate([self.damping_u, np.full(self.signal.shape[1], self.damping_v)])

    @property
    def signature(self) -> Array:
        """The diagonal of J."""
        return np.concatenate([np.ones(self.rank), -np.ones(self.signal.shape[1])])

    def observe(self, frame: Array, gram: Array) -> Array:
        r = self.rank
        beta = (frame[..., :r, :] @ gram) @ np.swapaxes(frame[..., r:, :], -1, -2)
        return self.signal - self.curvatures[:, None] * beta

    def observe_change(self, frame: Array, change: Array, gram: Array) -> Array:
        r = self.rank
        beta = (change[..., :r, :] @ gram) @ np.swapaxes(frame[..., r:, :], -1, -2)
        beta += (frame[..., :r, :] @ gram) @ np.swapaxes(change[..., r:, :], -1, -2)
        return -self.curvatures[:, None] * beta

    def generator(self, q: Array) -> Array:
        r, m = self.signal.shape
        out = np.zeros((*q.shape[:-2], r + m, r + m))
        out[..., :r, r:] = q
        out[..., r:, :r] = np.swapaxes(q, -1, -2)
        diagonal = np.arange(r + m)
        out[..., diagonal, diagonal] = -self.damping
        return out

    def jacobian(self, Z: Array, gram: Array) -> Array:
        """``d vec(Z') / d vec(Z)`` in C order, (N k, N k)."""
        r, m = self.signal.shape
        N, k = Z.shape
        out = np.einsum("pq,ab->paqb", self.generator(self.observe(Z, gram)), np.eye(k))
        U, V, scale = Z[:r], Z[r:], self.curvatures
        UW, VW = U @ gram, V @ gram
        # dG = -diag(lambda) (dU W V^T + U W dV^T)
        upper, lower = out[:r], out[r:]
        upper[np.arange(r), :, np.arange(r), :] -= scale[:, None, None] * (V.T @ VW)
        upper[:, :, r:, :] -= np.einsum("p,pb,qa->paqb", scale, UW, V)
        lower[:, :, :r, :] -= np.einsum("q,pb,qa->paqb", scale, VW, U)
        lower[np.arange(m), :, r + np.arange(m), :] -= (U.T * scale) @ UW
        return out.reshape(N * k, N * k)

    def relaxation(self, frame: Array, gram: Array) -> _Sylvester:
        r = self.rank
        left = frame[:r] @ gram @ frame[:r].T
        right = frame[r:] @ gram @ frame[r:].T
        beta = frame[:r] @ gram @ frame[r:].T
        generator = self.generator(self.signal - self.curvatures[:, None] * beta)
        return _Sylvester(self.curvatures, left, right, beta, generator)


class _Sylvester:
    r"""``x + mu diag(lambda) (x V V^T + U U^T x)``: how G answers to a change of itself over a time mu, to first order.

    With ``x = sqrt(lambda) y`` and the eigenvectors of V V^T it splits into m symmetric problems of size r,
    whose eigenvectors serve all mu.
    """

    def __init__(self, curvatures: Array, left: Array, right: Array, beta: Array, generator: Array) -> None:
        self._state = curvatures, left, right, beta, generator
        self.root = np.sqrt(curvatures)[:, None]
        values, self.columns = np.linalg.eigh(right)
        symmetric = self.root * left * self.root.T
        stacked = symmetric + np.maximum(values, 0.0)[:, None, None] * np.diag(curvatures)
        self.rates, self.vectors = np.linalg.eigh(stacked)  # (m, r), (m, r, r)
        np.maximum(self.rates, 0.0, out=self.rates)

    def solve(self, mu: NDArray[Any], residual: NDArray[Any]) -> NDArray[Any]:
        y = (residual / self.root) @ self.columns  # (K, r, m)
        y = np.swapaxes(self.vectors, -1, -2) @ np.moveaxis(y, -1, 0).swapaxes(-1, -2)  # (m, r, K)
        y = self.vectors @ (y / (1.0 + self.rates[:, :, None] * mu))
        return self.root * (np.moveaxis(y, -1, 0).swapaxes(-1, -2) @ self.columns.T)

    def strong(self) -> _Frozen | None:
        return _Frozen(*self._state) if self._state[3].size <= _LARGEST_FROZEN else None


class _Frozen:
    r"""The exact response of G to a change x of itself that acts for a time mu on the frozen flow.

    With ``R = (1 - mu A)^{-1}`` in blocks: ``x + mu diag(lambda) (R_11 x V V^T + R_12 x^T beta + beta x^T R_12 +
    U U^T x R_22)``, an (r m) x (r m) matrix for every mu.
    """

    def __init__(self, curvatures: Array, left: Array, right: Array, beta: Array, generator: Array) -> None:
        self.curvatures, self.left, self.right, self.beta, self.generator = curvatures, left, right, beta, generator
        self._inverses: dict[complex, NDArray[Any]] = {}

    def solve(self, mu: NDArray[Any], residual: NDArray[Any]) -> NDArray[Any]:
        out = np.empty(residual.shape, dtype=np.result_type(mu, residual))
        for index, value in enumerate(mu):
            key = complex(value)
            if key not in self._inverses:
                # A step that was given up leaves inverses behind for lengths that do not come back.
                if len(self._inverses) > 20:
                    self._inverses.clear()
                self._inverses[key] = np.linalg.inv(self._matrix(value))
            out[index] = (self._inverses[key] @ residual[index].ravel()).reshape(residual[index].shape)
        return out

    def strong(self) -> _Frozen:
        return self

    def _matrix(self, mu: Any) -> NDArray[Any]:
        r, m = self.beta.shape
        R = np.linalg.inv(np.eye(r + m) - mu * self.generator)
        R11, R12, R22 = R[:r, :r], R[:r, r:], R[r:, r:]
        out = np.einsum("ia,jb->ijab", R11, self.right) + np.einsum("ia,jb->ijab", self.left, R22)
        out += np.einsum("ib,aj->ijab", R12, self.beta) + np.einsum("ib,aj->ijab", self.beta, R12)
        out *= mu * self.curvatures[:, None, None, None]
        out = out.reshape(r * m, r * m)
        out[np.diag_indices(r * m)] += 1.0
        return out
