r"""Orbits where noise damps one factor alone.

A pair (u, v) at rest then keeps its product while the damped factor shrinks and the other grows without bound, like a
power of time. Active directions of the grown factor, :math:`V_a` (or :math:`U_a`), no longer turn, and beta adapts
instantaneously in their span: the next orbit is that of one pair beside them,

.. math:: G = (C - \Sigma u v^\top)(1 - P_a), \quad \beta = \beta_r + u v^\top \qquad \text{or} \qquad
          G = (1 - \Pi)^\top (C - \Sigma u v^\top), \quad \beta = \beta_r + (1 - \Pi) u v^\top,

:math:`P_a` the projector onto the span of :math:`V_a`, :math:`\Pi` that onto :math:`U_a` orthogonal in
:math:`\Sigma`. It ends along a straight line, on which only the size of the product changes, as :math:`t^{-1/2}`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flowsim.arrays import Array
from flowsim.limits.linear_blocks import Block


@dataclass(frozen=True, eq=False)
class FrozenBlock(Block):
    """A block beside active directions that are frozen.

    `left` (r, r) is ``1 - Pi`` and `right` (q, q) is ``1 - P_a``; one of them is the identity.
    """

    left: Array = field(default_factory=lambda: np.eye(0))
    right: Array = field(default_factory=lambda: np.eye(0))

    is_frozen_beside = True

    def force(self, beta: Array) -> Array:
        return self.left.T @ super().force(beta) @ self.right

    def moved(self, product: Array) -> Array:
        return self.left @ product @ self.right


def is_one_sided(block: Block) -> bool:
    """Whether one factor alone is damped."""
    return (float(np.abs(block.a).max(initial=0.0)) > 0) != (block.b > 0)


def beside_frozen(block: Block, Z: Array) -> FrozenBlock:
    """The block beside active directions Z (r + q, k) of the undamped factor."""
    r, q = block.shape
    left, right = np.eye(r), np.eye(q)
    if Z.shape[1] and block.b > 0:
        U = Z[:r]
        S = block.curvatures[:, None]
        left = left - U @ np.linalg.solve(U.T @ (S * U), U.T * block.curvatures)
    elif Z.shape[1]:
        Q = np.linalg.qr(Z[r:])[0]
        right = right - Q @ Q.T
    return FrozenBlock(**vars(block), left=left, right=right)
