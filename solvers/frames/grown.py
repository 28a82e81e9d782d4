r"""Active directions by themselves: long steps of Radau's method.

Their columns Z (R + p, q), as few as their rank allows, obey ``Z' = F(Z) = S(Z_1 Z_2^T) Z``, whose Jacobian J is
symmetric. With the matrix A of the method the stages ``Z + W_j`` solve ``W = h A F(Z + W)``, by the simplified Newton
iteration

.. math:: (1 - h A \otimes J)\, \Delta W = h A F(Z + W) - W,

diagonal in the eigenvectors of A and of J: one eigendecomposition serves every length of the step, and the steps after
it over which J hardly changes.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.problem import Coupling, FrameProblem
from flowsim.solvers.gauss import GaussTableau

#: Singular values of the columns, against the largest, that are only rounding; parts of them whose square is.
_ROUNDING, _HALF_ROUNDING = 1e-14, 1e-8
#: Part of the tolerance for the Newton iteration, and the rounding below which it cannot converge.
_SHARE, _FLOOR = 0.01, 2e-13
_ITERATIONS = 15
#: Growth of the update at which the iteration is given up.
_GROWTH = 2.0
#: Of lengths that are tried: parts of the tolerance for their error, and for motion that counts, their spacing as a
#: logarithm, and the least of their products with a rate.
_RESOLVED, _MOVED, _SPACING, _SLOWEST = 0.01, 1e-5, 0.2, 1e-20
#: Of rest: the largest rate of decay, relative to its model, and of neutral motion, relative to the slowest decay.
_FASTEST, _NEUTRAL = 10.0, 0.01
#: Of steps to a minimum: the largest, relative to the product, and its accuracy; iterations.
_CLOSE, _MOST = 1e-2, 200


class GrownStages(NamedTuple):
    """The stages of one step: Z (s, R + p, q), products and G (s, R, p) at the nodes, the filtered error of Z."""

    Z: Array
    product: Array
    G: Array
    error: float  #: relative to Z


class GrownDirections:
    """The active directions of one state.

    `frame` holds the active directions alone; `before`: these at an earlier time, if they are as many.
    """

    def __init__(
        self, problem: FrameProblem, tableau: GaussTableau, frame: Frame, before: GrownDirections | None = None
    ) -> None:
        self.problem, self.tableau = problem, tableau
        Z = np.concatenate(frame.value())
        #: the state at which the Jacobian is taken, and the basis that both have
        self.origin: GrownDirections = before.origin if before else self
        self.basis: Array = before.basis if before else np.zeros((Z.shape[1], 0))
        if np.abs(Z - Z @ self.basis @ self.basis.T).max() > _HALF_ROUNDING * np.abs(Z).max():
            _, values, right = np.linalg.svd(Z, full_matrices=False)
            self.origin, self.basis = self, right[values > _ROUNDING * values[0]].T
        #: the columns
        self.Z = Z @ self.basis
        self.damping = np.concatenate([problem.damping_rows, problem.damping_columns])[:, None]
        self.product, self.G, self.field = self._field(self.Z)

    @cached_property
    def sizes(self) -> Array:
        """Singular values of the columns."""
        return np.asarray(np.linalg.svd(self.Z, compute_uv=False), dtype=np.float64)

    @cached_property
    def _own_spectrum(self) -> tuple[Array, Array]:
        rates, vectors = np.linalg.eigh(self.problem.jacobian(self.Z))
        return rates, vectors

    @property
    def _spectrum(self) -> tuple[Array, Array]:
        """Rates of the Jacobian, rising, and its eigenvectors."""
        return self.origin._own_spectrum

    @property
    def rates(self) -> Array:
        return self._spectrum[0]

    def longest(self, h: float, linear: float) -> float:
        """h, or the length in which the fastest growth is by exp(linear), if that is shorter.

        Chooses the Jacobian: that of an earlier state if it is sure to differ little over the length h.
        """
        if self.origin is not self:
            coupling = self.problem.coupling
            bend = float(coupling.curvature_rows.max() * coupling.curvature_columns.max())
            moved = float(np.linalg.norm(self.Z - self.origin.Z))
            # J is quadratic in Z.
            change = 3 * bend * (float(self.origin.sizes[0]) + moved) * moved
            if coupling.signal is not None and h * (max(self.rates[-1], 0.0) + change) <= linear:
                return h
            self.origin = self
        return min(h, linear / max(self.rates[-1], 1e-300))

    def resolved(self, least: float, most: float, tol: float) -> float:
        """The longest step up to `most` that follows the relaxation to a part of the tolerance.

        In the linear equation, by the error of the polynomial through the stages at the start. `least`, if the error
        in that length is below half of the tolerance alone, else 0.
        """
        rates, vectors = self._spectrum
        speed = np.abs(self.field.ravel() @ vectors) / np.linalg.norm(self.Z)
        # Modes that the step does not move to the tolerance, and those that do not relax, are resolved.
        kept = (rates < 0) & (speed * np.minimum(most, -1 / np.minimum(rates, -1e-300)) > _MOVED * tol)
        rates, speed = rates[kept], speed[kept]
        lengths = np.geomspace(most, least, max(2, math.ceil(math.log(most / least) / _SPACING) + 1))
        x = np.maximum(lengths[:, None] * -rates, _SLOWEST)
        errors = np.linalg.norm(lengths[:, None] * speed * _missed(self.tableau.c, x) / (1.0 + x), axis=1)
        resolved = np.flatnonzero(errors <= _RESOLVED * tol)
        return float(lengths[resolved[0]]) if len(resolved) else least if errors[-1] <= 0.5 * tol else 0.0

    def is_at_rest(self, tol: float) -> bool:
        """Whether the distance from a stable rest, by one step of Newton's method, is below `tol`, relative to Z.

        Changes of Z that leave the product and the damping, ``(U M, V M^-T)`` or with damping rotations of the
        columns, are no part of it: other motion must decay.
        """
        (n, q), R, size = self.Z.shape, len(self.problem.damping_rows), float(np.linalg.norm(self.Z))
        coupling = self.problem.coupling
        bend = float(coupling.curvature_rows.max() * coupling.curvature_columns.max()) * size**2
        most = _FASTEST * (float(np.linalg.norm(self.G, 2) + self.damping.max()) + bend)
        if q > min(R, n - R) or np.linalg.norm(self.field) > tol * most * size:
            return False
        count = n * q - (q * (q - 1) // 2 if self.problem.is_damped else q * q)
        rates, vectors = self._spectrum
        if not rates[-1] < -_NEUTRAL * rates[count - 1]:
            return False
        return bool(np.linalg.norm((self.field.ravel() @ vectors)[:count] / rates[:count]) <= tol * size)

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
            Z = self.Z + W
            product, new, moved = self._field(Z)
            change = h * float(np.abs(new - G).max())
            if iteration > 1 and not change <= _GROWTH * last:
                return None, iteration
            # The remaining error of a linearly convergent iteration.
            left = change**2 / (last - change) if 0.0 < change < 0.5 * last else change
            if iteration and left <= max(_SHARE * tol, _FLOOR):
                return GrownStages(Z, product, new, self._error(h, moved)), iteration
            G, last = new, change
            residual = h * (tableau.a @ moved.reshape(tableau.stages, -1)) - W.reshape(tableau.stages, -1)
            update = tableau.vectors @ (inverse * (tableau.inverse @ (residual @ self._spectrum[1])))
            W += (update.real @ self._spectrum[1].T).reshape(W.shape)
        return None, _ITERATIONS

    def _error(self, h: float, moved: Array) -> float:
        """The filtered defect of the polynomial through the derivatives at the start of the step."""
        missed = self.tableau.at_ends[0] @ moved.reshape(len(moved), -1) - self.field.ravel()
        answered = (missed @ self._spectrum[1]) / (1.0 - h * self.rates)
        return float(h * np.linalg.norm(answered) / np.linalg.norm(self.Z))


def _missed(c: Array, x: Array) -> Array:
    """Of ``y' = -y`` in steps of lengths x: the error at 0 of the polynomial through the stages, at nodes c.

    ``1 / sum_j |M^(j)(0) / M(0)| x^-j`` with ``M(t) = prod (t - c_i)``, by the collocation polynomial
    ``k sum_j M^(j)(t) (-x)^-j``; all terms have the same sign.
    """
    coefficients = np.abs(np.poly(c))
    factorials = np.cumprod(np.append(1.0, np.arange(1.0, len(c) + 1)))[::-1]
    return np.asarray(1.0 / np.polyval(coefficients / coefficients[-1] * factorials, 1.0 / x))


def newton_step(coupling: Coupling, product: Array, G: Array) -> float:
    """The largest entry of Newton's step from a product to the minimum of a convex loss; infinite if it is long."""
    model = coupling.curvature_rows[:, None] * coupling.curvature_columns
    if coupling.signal is not None:
        return float(np.abs(G / model).max())
    if np.linalg.norm(G) > _CLOSE * np.linalg.norm(coupling.change(product, product)):
        return np.inf
    from scipy.sparse.linalg import LinearOperator, cg

    bent, scaled = (
        LinearOperator((G.size, G.size), function, dtype=float)
        for function in (lambda x: -coupling.change(product, x.reshape(G.shape)).ravel(), lambda x: x / model.ravel())
    )
    step, failed = cg(bent, G.ravel(), rtol=_CLOSE, M=scaled, maxiter=_MOST)
    return np.inf if failed else float(np.abs(step).max())
