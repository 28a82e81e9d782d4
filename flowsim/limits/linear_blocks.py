r"""Parts of the data that a two-layer linear network learns independently of one another.

In the row space of X, with :math:`\Sigma = \mathrm{diag}(\lambda)` and :math:`C = X^\top Y / n`, the flow is
:math:`Z' = S Z`,

.. math:: S = \begin{pmatrix} -a & G \\ G^\top & -b \end{pmatrix}, \qquad G = C - \Sigma \beta, \qquad
          a = \eta_V^2\, m\, \Sigma + \lambda_{wd}, \qquad b = \eta_U^2\, \mathrm{tr}\, \Sigma + \lambda_{wd}.

Subspaces of features and of targets invariant under :math:`\Sigma`, C and :math:`C^\top` are decoupled: S is
block-diagonal at every saddle. They are found by the block-diagonalisation of a matrix algebra of Murota, Kanno,
Kojima, Kojima (2010): the eigenvectors of one random element, joined wherever another random element couples them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array
from flowsim.network import LinearNetwork
from flowsim.network.linear_algebra import LinearData
from flowsim.problem import Problem

#: Couplings below this, relative to the data, are rounding (about the error of eigenvectors of a random matrix).
_COUPLED = 1e-10
#: Random elements tried; one with close eigenvalues may join decoupled subspaces, but never splits coupled ones.
_DRAWS = 2


@dataclass(frozen=True, eq=False)
class ReducedLinearData:
    """Data under another loss, or measurements, in the rows of beta that move; named as in :class:`LinearData`."""

    problem: Problem
    directions: Array  #: (D, rank), orthonormal
    curvatures: Array  #: (rank,), curvature of the loss along each, at 0: a scale
    signal: Array  #: (rank, m), G at 0

    @property
    def m(self) -> int:
        return self.problem.n_targets

    @property
    def rank(self) -> int:
        return len(self.curvatures)

    def loss(self, beta1: Array) -> Array:
        """L at reduced beta (..., rank, m)."""
        flat = beta1.reshape(-1, *self.signal.shape)
        return np.array([self.problem.loss(self.directions @ each) for each in flat]).reshape(beta1.shape[:-2])


@dataclass(frozen=True, eq=False)
class Block:
    """One independent part, in coordinates in which its Sigma is diagonal."""

    features: Array  #: (R, r), orthonormal directions in the row space of X
    targets: Array  #: (m, q), orthonormal directions of targets
    curvatures: Array  #: (r,), diagonal of Sigma
    signal: Array  #: (r, q), C
    a: Array  #: (r,), rates at which noise and weight decay damp U, and
    b: float  #: V

    #: G is affine in beta, and every saddle is attained
    is_affine = True
    may_escape = False
    #: whether frozen directions are active besides (:mod:`flowsim.limits.linear_frozen`)
    is_frozen_beside = False

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.curvatures), self.signal.shape[1]

    def product(self, Z: Array) -> Array:
        """beta of factors Z (r + q, k): the product of the first r rows with the others."""
        r = self.shape[0]
        return np.asarray(Z[:r] @ Z[r:].T)

    def force(self, beta: Array) -> Array:
        """``G = C - Sigma beta``."""
        return self.signal - self.curvatures[:, None] * beta

    def change(self, beta: Array, moved: Array) -> Array:
        """The derivative of the force at beta along `moved`."""
        return -self.curvatures[:, None] * moved

    def moved(self, product: Array) -> Array:
        """The contribution to beta of a product of the moving factors, without frozen directions."""
        return product

    def escapes(self, beta: Array) -> bool:
        """Whether the loss has no minimum along the flow from beta."""
        return False

    def escape(self, Z: Array) -> tuple[Array, float]:
        """Direction and margin of an escape."""
        raise NotImplementedError

    def generator(self, force: Array) -> Array:
        """S, (r + q, r + q)."""
        r, q = self.shape
        S = np.zeros((r + q, r + q))
        S[:r, r:], S[r:, :r] = force, force.T
        S[np.diag_indices(r + q)] = -np.concatenate([self.a, np.full(q, self.b)])
        return S

    def lift(self, beta: Array) -> Array:
        """From the block to the row space of X and all targets, (R, m)."""
        return self.features @ beta @ self.targets.T

    def stack(self, Z: Array) -> Array:
        """The block's part of ``Z = (U_1; V)``, (R + m, h) to (r + q, h)."""
        R = len(self.features)
        return np.concatenate([self.features.T @ Z[:R], self.targets.T @ Z[R:]])


def whole_block(net: LinearNetwork, data: LinearData) -> Block:
    """All of the data as one block."""
    (R, m), (a, b), decay = data.signal.shape, data.damping(net), net.constant_decay
    return Block(np.eye(R), np.eye(m), data.curvatures, data.signal, a + decay, b + decay)


def independent_blocks(net: LinearNetwork, data: LinearData) -> list[Block]:
    """The finest decomposition, up to blocks that are copies of one another (whose jumps coincide)."""
    whole = [whole_block(net, data)]
    R, curvatures, signal, a, b = data.rank, data.curvatures, data.signal, whole[0].a, whole[0].b
    size = float(np.abs(signal).max(initial=0.0))
    if size == 0.0:
        return whole

    def element(rng: np.random.Generator) -> Array:
        x, y, z = rng.uniform(0.5, 1.5, 3)
        return symmetric_element(y * signal / size, x * curvatures / curvatures[0] + z, z)

    best = invariant_subspaces(element)
    if len(best) == 1:
        return whole
    blocks = []
    for vectors in best:
        features, targets = _orthonormal(vectors[:R]), _orthonormal(vectors[R:])
        values, rotation = np.linalg.eigh((features.T * curvatures) @ features)
        order = np.argsort(-values)
        features, values = features @ rotation[:, order], values[order]
        # a is a function of Sigma; taken from the diagonal so that it needs no second decomposition.
        damping = np.einsum("ij,i,ij->j", features, a, features)
        blocks.append(Block(features, targets, values, features.T @ signal @ targets, damping, b))
    return blocks


def symmetric_element(between: Array, features: Array | float, targets: float) -> Array:
    """``((diag(features), between), (between^T, -targets))``, (R + m, R + m)."""
    R, m = between.shape
    H = np.zeros((R + m, R + m))
    H[:R, R:], H[R:, :R] = between, between.T
    H[np.diag_indices(R + m)] = np.concatenate([np.full(R, features), np.full(m, -targets)])
    return H


def invariant_subspaces(element: Callable[[np.random.Generator], Array]) -> list[Array]:
    """Orthonormal bases of the common invariant subspaces of random elements of a matrix algebra.

    `element` makes a random symmetric element (k, k) from a generator.
    """
    return max((_split(element, np.random.default_rng([2010, seed])) for seed in range(_DRAWS)), key=len)


def _split(element: Callable[[np.random.Generator], Array], rng: np.random.Generator) -> list[Array]:
    """The subspaces that one pair of random elements separates."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    vectors = np.linalg.eigh(element(rng))[1]
    other = element(rng)
    coupling = np.abs(vectors.T @ other @ vectors)
    count, label = connected_components(csr_array(coupling > _COUPLED * np.abs(other).max()), directed=False)
    return [vectors[:, label == k] for k in range(count)]


def _orthonormal(columns: Array) -> Array:
    """A basis of the columns' span; their singular values are 0 or 1, a block being a sum of features and targets."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.ascontiguousarray(left[:, values > 0.5])
