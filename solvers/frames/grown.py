r"""Active directions by themselves: long steps of Radau's method.

Their columns Z (R + p, q), as few as their rank allows, obey ``Z' = F(Z) = S(Z_1 Z_2^T) Z``, whose Jacobian J is
symmetric. With the matrix A of the method the stages ``Z + W_j`` solve ``W = h A F(Z + W)``, by the simplified Newton
iteration

.. math:: (1 - h A \otimes J)\, \Delta W = h A F(Z + W) - W,

diagonal in the eigenvectors of A and of J: one eigendecomposition serves every length of the step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.problem import FrameProblem
from flowsim.solvers.gauss import GaussTableau

#: Singular values of the columns, against the largest, that are only rounding.
_ROUNDING = 1e-14
#: Part of the tolerance for the Newton iteration, and the rounding below which it cannot converge.
_SHARE, _FLOOR = 0.01, 2e-13
_ITERATIONS = 15
#: Growth of the update at which the iteration is given up.
_GROWTH = 2.0


class GrownStages(NamedTuple):
    """The stages of one step: products and G at the nodes, (s, R, p), and the filtered error, relative to Z."""

    product: Array
    G: Array
    error: float


class GrownDirections:
    """The active directions of one state.

    `frame` holds the active directions alone.
    """

    def __init__(self, problem: FrameProblem, tableau: GaussTableau, frame: Frame) -> None:
        self.problem, self.tableau = problem, tableau
        Z = np.concatenate(frame.value())
        _, values, right = np.linalg.svd(Z, full_matrices=False)
        self.Z = Z @ right[values > _ROUNDING * values[0]].T
        self.damping = np.concatenate([problem.damping_rows, problem.damping_columns])[:, None]
        self.product, self.G, self.field = self._field(self.Z)
        #: of the Jacobian, rising
        self.rates, self._vectors = np.linalg.eigh(problem.jacobian(self.Z))

    def _field(self, Z: Array) -> tuple[Array, Array, Array]:
        """Products, G and Z' at states (..., R + p, q)."""
        R = len(self.problem.damping_rows)
        U, V = Z[..., :R, :], Z[..., R:, :]
        product = U @ V.swapaxes(-1, -2)
        G = self.problem.coupling.value(product)
        moved = -self.damping * Z
        moved[..., :R, :] += G @ V
        moved[..., R:, :] += G.swapaxes(-1, -2) @ U
        return product, G, moved

    def step(self, h: float, tol: float) -> tuple[GrownStages | None, int]:
        """The stages of a step, None if the iteration does not converge, and the number of its iterations."""
        tableau = self.tableau
        inverse = 1.0 / (1.0 - h * tableau.eigenvalues[:, None] * self.rates)
        W, G, last = np.zeros((tableau.stages, *self.Z.shape)), self.G, 0.0
        for iteration in range(_ITERATIONS):
            product, new, moved = self._field(self.Z + W)
            change = h * float(np.abs(new - G).max())
            if iteration > 1 and not change <= _GROWTH * last:
                return None, iteration
            # The remaining error of a linearly convergent iteration.
            left = change**2 / (last - change) if 0.0 < change < 0.5 * last else change
            if iteration and left <= max(_SHARE * tol, _FLOOR):
                return GrownStages(product, new, self._error(h, moved)), iteration
            G, last = new, change
            residual = h * (tableau.a @ moved.reshape(tableau.stages, -1)) - W.reshape(tableau.stages, -1)
            update = tableau.vectors @ (inverse * (tableau.inverse @ (residual @ self._vectors)))
            W += (update.real @ self._vectors.T).reshape(W.shape)
        return None, _ITERATIONS

    def _error(self, h: float, moved: Array) -> float:
        """The filtered defect of the polynomial through the derivatives at the start of the step."""
        missed = self.tableau.at_ends[0] @ moved.reshape(len(moved), -1) - self.field.ravel()
        answered = (missed @ self._vectors) / (1.0 - h * self.rates)
        return float(h * np.linalg.norm(answered) / np.linalg.norm(self.Z))
