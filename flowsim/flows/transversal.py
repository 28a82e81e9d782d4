r"""Propagation of local errors of the weights transversally to their curve.

Along ``grad m`` the data correct an error; across it nothing does, and a saddle entered along one direction and left
along the other amplifies it. With P the projection across ``grad m``, J the Jacobian at the given gradient g and
``epsilon |w|`` the local error of a step,

.. math:: e \leftarrow e\, e^{h \lambda_{\max}(P J P) - K} + \epsilon |w|,

bounds it, since J is symmetric; K is the weight decay over the step. Directions that are exact (the walls of
:mod:`flowsim.flows.reflections`) are excluded.
"""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.problem import Problem
from flowsim.symbolic import Kernels

#: Beyond this part of the weights an error is no longer small, and may grow in any direction.
_SHARE = 0.02
#: Largest acceptable error of beta, in tolerances.
_VISIBLE = 100.0
_LARGEST_EXPONENT = 50.0
#: Tolerance at which a run that was stopped is repeated.
FINEST = 1e-10


class TransversalError:
    """The bound of every coordinate, updated step by step.

    `free` (d, k, k) are projections onto the directions in which errors are bounded.
    """

    def __init__(self, free: Array) -> None:
        self.free = free
        self.watched = np.abs(free).reshape(len(free), -1).max(axis=1) > 0
        self.restart(0.0, 0.0)

    def restart(self, epsilon: float, rtol: float) -> None:
        """Begin a run with local errors `epsilon` relative to the weights, to be accurate to `rtol`."""
        self.epsilon, self.rtol = epsilon, rtol
        self.t = self.decayed = 0.0
        self.error = np.zeros(len(self.free))
        self.is_large = np.zeros(len(self.free), dtype=bool)
        self.largest_beta = 0.0
        #: whether the bound of a coordinate exceeded its tolerance
        self.tripped = False

    def look(
        self,
        t: float,
        w: Array,
        kernels: Kernels,
        kind: Integers,
        std: Array,
        s2: Array,
        problem: Problem,
        decayed: float = 0.0,
    ) -> str | None:
        """The reason to stop at time t and weights w (k, d), the end of a step; None if errors are small.

        `decayed`: the integral of the weight decay up to t.
        """
        if not self.watched.any():
            return None
        k, d = w.shape
        mean, beta, slope, jacobian = np.empty(d), np.empty(d), np.empty((k, d)), np.empty((k, k, d))
        kernels.mean(w, kind, std, mean)
        kernels.value(w, kind, beta)
        kernels.mean_gradient(w, kind, std, slope)
        kernels.field_jacobian(w, kind, std, problem.gradient(mean), s2, jacobian)
        self.step(t - self.t, w, jacobian, slope, decayed - self.decayed)
        self.t, self.decayed = t, decayed
        kernels.field_jacobian(w, kind, std, -np.ones(d), np.zeros(d), jacobian)
        wrong = self.visible(beta, slope, np.sqrt((jacobian**2).sum(axis=(0, 1))))
        if wrong is None:
            return None
        self.tripped = True
        return (
            f"the weights of coordinate {wrong} came so close to a saddle that the errors of the steps before decide "
            f"where they go"
        )

    def step(self, h: float, w: Array, jacobian: Array, slope: Array, decayed: float = 0.0) -> None:
        """Carry the errors over a step of length h that ends in weights w (k, d).

        Parameters
        ----------
        jacobian : array (k, k, d)
            Of the field at fixed gradient of the loss, without weight decay.
        slope : array (k, d)
            ``grad m``.
        decayed : float
            The integral of the weight decay over the step.
        """
        J = np.moveaxis(jacobian, -1, 0)
        along = np.einsum("iab,bi->ia", self.free, slope)
        length = np.linalg.norm(along, axis=1, keepdims=True)
        unit = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
        across = self.free - unit[:, :, None] * unit[:, None, :]
        across = np.where(self.is_large[:, None, None], self.free, across)
        projected = across @ ((J + np.swapaxes(J, 1, 2)) / 2) @ np.swapaxes(across, 1, 2)
        rate = np.asarray(np.linalg.eigvalsh(projected), dtype=float)
        # The eigenvalue 0 of the direction projected out is excluded.
        second = rate[:, -2] if rate.shape[1] > 1 else -np.inf
        top = np.where(self.is_large | (rate[:, -1] > 0), rate[:, -1], second)
        grown = self.error * np.exp(np.minimum(h * top - decayed, _LARGEST_EXPONENT))
        size = np.linalg.norm(w, axis=0)
        self.error = np.where(self.watched, grown + self.epsilon * size, 0.0)
        self.is_large |= self.error > _SHARE * size

    def visible(self, beta: Array, slope: Array, curvature: Array) -> int | None:
        """A coordinate whose beta may be wrong by much more than rtol of the largest so far, if any."""
        self.largest_beta = max(self.largest_beta, float(np.abs(beta).max()))
        doubt = self.error * np.linalg.norm(slope, axis=0) + self.error**2 * curvature / 2
        wrong = self.is_large & (doubt > _VISIBLE * self.rtol * self.largest_beta)
        return int(np.argmax(np.where(wrong, doubt, -1.0))) if wrong.any() else None
