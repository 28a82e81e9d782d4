r"""Loss, expected loss under noise, and data of two-layer linear networks, for flow and descent.

.. math:: \beta = U V^\top, \qquad L = \frac{1}{2n} \lVert Y - X U V^\top \rVert_F^2, \qquad E = Y - X U V^\top.

With independent zero-mean noise of variances :math:`\eta_U^2, \eta_V^2` on all entries of U and V,

.. math:: \mathbb{E} L = L + \tfrac12 \big( \eta_U^2 \,\mathrm{tr}\,\Sigma\, \lVert V \rVert_F^2
          + \eta_V^2\, m\, \mathrm{tr}(U^\top \Sigma U) + \eta_U^2 \eta_V^2\, m h\, \mathrm{tr}\,\Sigma \big),
          \qquad \Sigma = X^\top X / n,

whatever the distribution: only second moments enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from flowsim.arrays import Array
from flowsim.errors import IntegrationError
from flowsim.problem import MatrixSensing, Problem, require_squares
from flowsim.problem.entries import dense
from flowsim.problem.kept import kept
from flowsim.problem.losses import SQUARED
from flowsim.problem.problems import binary_exponent

if TYPE_CHECKING:
    from flowsim.network.networks import LinearNetwork

#: Binary exponent of gradients and coefficients beyond which their squares, and sums of these, overflow.
_LARGEST_EXPONENT = 490


def noise_variances(net: LinearNetwork) -> tuple[float, float]:
    """``(eta_U^2, eta_V^2)`` of the network's noise.

    Raises ValueError for multiplicative noise: it depends on the basis of hidden units, so that the flow leaves the row
    space of its start.
    """
    if net.noise is None:
        return 0.0, 0.0
    if net.noise.multiplicative:
        raise ValueError(
            "`noise` must be additive for a LinearNetwork; received multiplicative noise, under which the flow of "
            "U V^T depends on the basis of the hidden layer."
        )
    eta_u, eta_v = net.noise.stds(("U", "V"))
    return float(eta_u**2), float(eta_v**2)


def require_range(problem: Problem, *, only_data: bool = False) -> None:
    """Require that squares of gradients and coefficients are floats; two symmetries bring any other data there.

    With `only_data` it is squares of X and y that must be, and gradients and coefficients themselves.
    Raises IntegrationError, which states the powers of two.
    """
    w = None if problem.sample_weight is None else binary_exponent(problem.sample_weight)
    if w is not None and abs(w) > _LARGEST_EXPONENT:
        raise IntegrationError(
            f"`sample_weight` of 2^{w} puts squares of gradients of a LinearNetwork out of the range of floats; divide "
            f"it by 2^{w} for the same flow, in time multiplied by 2^{w}."
        )
    p, q = problem.binary_exponents
    if p is None or q is None:
        return
    q = q if problem.loss_function is SQUARED else 0  # else predictions are of order one
    fits = max(abs(p), abs(q + p), abs(q - p)) <= _LARGEST_EXPONENT
    if only_data:
        fits = max(abs(p), q) <= _LARGEST_EXPONENT and min(q + p, q - p) >= -2 * _LARGEST_EXPONENT
    if not fits:
        X = "A" if isinstance(problem, MatrixSensing) else "X"
        data = [(name, exponent) for name, exponent in ((X, p), ("y", q)) if exponent]
        raise IntegrationError(
            f"{' and '.join(f'{name} of 2^{exponent}' for name, exponent in data)} put squares of gradients or "
            "coefficients of a LinearNetwork out of the range of floats; divide "
            f"{', '.join(f'{name} by 2^{exponent}' for name, exponent in data)} and `alpha` by 2^{(q - p) / 2:g} for "
            f"the same flow: beta is divided by 2^{q - p} and time multiplied by 2^{p + q}."
        )


def singular_parts(X: Array) -> tuple[Array, Array, Array]:
    """Singular vectors (n, r) and values (r,) of X, and an orthonormal basis (d, r) of its row space, to rounding."""
    left, values, right = np.linalg.svd(X, full_matrices=False)
    rank = int(np.sum(values > values.max(initial=0.0) * max(X.shape) * np.finfo(float).eps))
    return left[:, :rank], values[:rank], np.ascontiguousarray(right[:rank].T)


@dataclass(frozen=True, eq=False)
class LinearData:
    r"""The data of a flow or descent of U V^T, in the row space of X.

    .. math:: X = W \,\mathrm{diag}(s)\, \Phi_1^\top, \quad U_1 = \Phi_1^\top U, \quad
              -\nabla_{\beta_1} L = G = G_0 - \mathrm{diag}(\lambda)\, \beta_1, \quad \lambda = s^2/n, \quad
              G_0 = \Phi_1^\top X^\top Y / n.

    The part of U outside the row space of X is constant, with or without (additive) noise.

    Attributes
    ----------
    n, D, m, rank : int
    directions : array (D, rank)
        Phi_1, the right singular vectors of X.
    curvatures : array (rank,)
        The non-zero eigenvalues of Sigma, descending.
    signal : array (rank, m)
        G_0.
    least_loss : float
        ``min L``, exactly 0 where X has full row rank.
    """

    n: int
    D: int
    m: int
    directions: Array
    curvatures: Array
    signal: Array
    least_loss: float

    @classmethod
    def of(cls, problem: Problem) -> LinearData:
        """Of a problem, made once for the same entries of X and y."""
        return kept(problem, "linear data", lambda: cls._made(problem))

    @classmethod
    def _made(cls, problem: Problem) -> LinearData:
        X = dense(problem)
        require_squares(problem, "the singular values of the data")
        Y = problem.y.reshape(problem.n, -1)
        left, values, directions = singular_parts(X)
        projected = left.T @ Y
        # What is rounding of Y would grow like a signal, however late.
        projected[np.abs(projected) <= 4 * np.finfo(float).eps * np.linalg.norm(Y, axis=0)] = 0.0
        least = 0.0 if len(values) == problem.n else float(np.sum((Y - left @ projected) ** 2)) / (2 * problem.n)
        signal = values[:, None] * projected / problem.n
        return cls(problem.n, problem.d, Y.shape[1], directions, values**2 / problem.n, signal, least)

    @property
    def rank(self) -> int:
        return len(self.curvatures)

    @cached_property
    def target(self) -> Array:
        """The least-squares solution of least norm in the basis Phi_1, (rank, m)."""
        return self.signal / self.curvatures[:, None]

    @property
    def min_norm(self) -> Array:
        """The least-squares solution of least norm, (D, m)."""
        return self.directions @ self.target

    @property
    def total_curvature(self) -> float:
        """tr Sigma."""
        return float(self.curvatures.sum())

    def reduce(self, U: Array) -> tuple[Array, Array]:
        """``Phi_1^T U`` and the part of U outside the row space, which is constant."""
        inside = self.directions.T @ U
        return inside, U - self.directions @ inside

    def excess(self, beta1: Array) -> Array:
        """``L - min L`` at ``Phi_1^T beta``, without cancellation, over any leading axes."""
        gap = beta1 - self.target
        return 0.5 * np.sum(self.curvatures[:, None] * gap**2, axis=(-2, -1))

    def loss(self, beta1: Array) -> Array:
        """L at ``Phi_1^T beta``, over any leading axes."""
        return self.least_loss + self.excess(beta1)

    def damping(self, net: LinearNetwork) -> tuple[Array, float]:
        """Rates at which the noise damps U_1 and V: ``eta_V^2 m lambda`` (rank,) and ``eta_U^2 tr Sigma``."""
        eta_u2, eta_v2 = noise_variances(net)
        return eta_v2 * self.m * self.curvatures, eta_u2 * self.total_curvature
