r"""The flow of U V^T as a quasilinear matrix flow.

In the basis of the right singular vectors of X, with ``Z = (U_1; V)``,

.. math:: Z' = \begin{pmatrix} -a & G \\ G^\top & -b \end{pmatrix} Z, \qquad G = G_0 - \mathrm{diag}(\lambda) U_1 V^\top,

a and b the damping by weight noise. Without noise the generator anticommutes with J = diag(1, -1), so the
propagator lies in O(r, m) and ``U_1^T U_1 - V^T V = Z^T J Z`` is conserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TwoLayerSystem"]

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

    def generator(self, q: Array) -> Array:
        r, m = self.signal.shape
        out = np.zeros((*q.shape[:-2], r + m, r + m))
        out[..., :r, r:] = q
        out[..., r:, :r] = np.swapaxes(q, -1, -2)
        diagonal = np.arange(r + m)
        out[..., diagonal, diagonal] = -self.damping
        return out

    def relaxation(self, frame: Array, gram: Array) -> _Sylvester:
        r = self.rank
        left = frame[:r] @ gram @ frame[:r].T
        right = frame[r:] @ gram @ frame[r:].T
        return _Sylvester(self.curvatures, left, right)


class _Sylvester:
    r"""``x + mu diag(lambda) (x V V^T + U U^T x)``: how G answers to a change of itself over a time mu, to first order.

    With ``x = sqrt(lambda) y`` and the eigenvectors of V V^T it splits into m symmetric problems of size r,
    whose eigenvectors serve all mu.
    """

    def __init__(self, curvatures: Array, left: Array, right: Array) -> None:
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
