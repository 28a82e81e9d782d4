r"""Active directions by themselves: long steps.

Their columns Z (R + p, q), as few as their rank allows, obey ``Z' = F(Z) = S(Z_1 Z_2^T) Z``, whose Jacobian J is
symmetric. Near rest the linearised equation ``L' = F(Z) + J L`` says most, and is solved in the eigenvectors of J,
however fast. The rest ``W - L``, of second order, decays with what is slow, and is a polynomial in
``x = (1 - e^{-decay t}) / (1 - e^{-decay})``, t the time over the length h of the step: Radau's method in x, of matrix
A, solves ``W - L = h A (F(Z + W) - L')`` by the simplified Newton iteration

.. math:: (1 - h A \otimes J)\, \Delta W = L + h A (F(Z + W) - L') - W,

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
from flowsim.solvers.gauss import lagrange_weights, relaxing_tableau

#: Singular values of the columns, against the largest, that are only rounding; parts of them whose square is.
_ROUNDING, _HALF_ROUNDING = 1e-14, 1e-8
#: Part of the tolerance for the Newton iteration, and the rounding below which it cannot converge.
_SHARE, _FLOOR = 0.01, 2e-13
_ITERATIONS = 20
#: Of modes whose linearised equation is solved exactly: part of the tolerance by which they move, rate times length.
_MOVED, _RELAXED = 1e-3, 1.0
#: Of the decay in x: part of the rate of the mode that moves most, the largest, for rounding, and the least.
_POWER, _DECAY, _LEAST_DECAY = 0.5, 8.0, 0.25
#: Of rest: the largest rate of decay, relative to its model, and of neutral motion, relative to the slowest decay.
_FASTEST, _NEUTRAL = 10.0, 0.01
#: Of steps to a minimum: the largest, relative to the product, and its accuracy; iterations.
_CLOSE, _MOST = 1e-2, 200


class GrownPath(NamedTuple):
    """Z over a step: the solution of the linearised equation, and a polynomial in x for the rest."""

    h: float
    decay: float
    nodes: Array  #: (s + 1,), x from 0 to 1
    start: Array  #: (N,), N = (R + p) q
    #: (k,), (k,), (N, k), of the modes whose linearised equation is solved: speeds, rates and vectors
    speed: Array
    rates: Array
    vectors: Array
    rest: Array = np.zeros(0)  #: (s + 1, N), at the nodes
    error: float = 0.0  #: filtered defect at the start, as a change of Z relative to it

    @property
    def places(self) -> Array:
        """The nodes as times over the length of the step."""
        return -np.log1p(self.nodes * math.expm1(-self.decay)) / self.decay if self.decay else self.nodes

    def linear(self, places: Array) -> Array:
        """The solution of the linearised equation at times over the length of the step, (P, N)."""
        moved = np.expm1(self.h * places[:, None] * self.rates) * (self.speed / self.rates)
        return np.asarray(moved @ self.vectors.T)

    def weights(self, places: Array) -> Array:
        """The matrix (P, s + 1) that takes values at the nodes to times over the length of the step."""
        x = np.expm1(-self.decay * places) / math.expm1(-self.decay) if self.decay else places
        return lagrange_weights(self.nodes, x)

    def at(self, places: Array) -> Array:
        """Z, flat, (P, N)."""
        return self.start + self.linear(places) + self.weights(places) @ self.rest


class GrownDirections:
    """The active directions of one state.

    `frame` holds the active directions alone; `before`: these at an earlier time, if they are as many.
    """

    def __init__(self, problem: FrameProblem, stages: int, frame: Frame, before: GrownDirections | None = None) -> None:
        self.problem, self.stages = problem, stages
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

    def _modes(self, h: float) -> tuple[Array, Array]:
        """Speeds of the modes of the linearised equation, and how far they move in a time, relative to Z."""
        rates, vectors = self._spectrum
        speed = self.field.ravel() @ vectors
        return speed, np.abs(speed) * np.minimum(h, 1 / np.maximum(-rates, 1e-300)) / np.linalg.norm(self.Z)

    def settling(self, h: float, tol: float) -> float:
        """h, or the time in which the mode that moves most, if it moves, comes to rest, if that is shorter."""
        moved = np.where(h * self.rates < -_RELAXED, self._modes(h)[1], 0.0)
        largest = int(np.argmax(moved))
        return min(h, _DECAY / (_POWER * -float(self.rates[largest]))) if moved[largest] > tol else h

    def _started(self, h: float, tol: float) -> GrownPath:
        """The linearised part of a step."""
        rates, vectors = self._spectrum
        speed, moved = self._modes(h)
        # What hardly relaxes does not go on as it began.
        kept = (h * rates < -_RELAXED) & (moved > _MOVED * tol)
        largest = -float(rates[np.argmax(np.where(kept, moved, -1.0))]) if kept.any() else 0.0
        decay = min(_POWER * h * largest, _DECAY)
        # Of few values, whose methods are kept.
        decay = _DECAY * 2.0 ** (round(2 * math.log2(decay / _DECAY)) / 2) if decay > _LEAST_DECAY else 0.0
        nodes = np.append(0.0, relaxing_tableau(self.stages, decay).c)
        return GrownPath(h, decay, nodes, self.Z.ravel(), speed[kept], rates[kept], vectors[:, kept])

    def step(self, h: float, tol: float) -> tuple[GrownPath | None, int]:
        """A step, None if the iteration does not converge, and the number of its iterations."""
        (rates, vectors), path = self._spectrum, self._started(h, tol)
        tableau, start = relaxing_tableau(self.stages, path.decay), self.field.ravel() - path.vectors @ path.speed
        linear = path.linear(path.places[1:])
        slope = (linear @ path.vectors * path.rates + path.speed) @ path.vectors.T
        inverse = 1.0 / (1.0 - h * tableau.eigenvalues[:, None] * rates)
        W, G, last, before, enough = linear, self.G, 0.0, 0.0, max(_SHARE * tol, _FLOOR)
        for iteration in range(_ITERATIONS):
            _, new, field = self._field((path.start + W).reshape(-1, *self.Z.shape))
            change = h * float(np.abs(new - G).max())
            rest = field.reshape(W.shape) - slope
            # The remaining error of a linearly convergent iteration.
            left = change**2 / (last - change) if 0.0 < change < 0.5 * last else change
            if iteration and left <= enough:
                missed = (tableau.at_ends[0] @ rest - start) @ vectors / (1.0 - h * rates)
                error = h * float(np.linalg.norm(missed) / np.linalg.norm(path.start))
                return path._replace(rest=np.pad(W - linear, [(1, 0), (0, 0)]), error=error), iteration
            # The factor of the last two iterations, in all that remain.
            if iteration > 2 and not change < before * (enough / change) ** (2.0 / (_ITERATIONS - iteration)):
                return None, iteration
            G, before, last = new, last, change
            residual = linear + h * (tableau.a @ rest) - W
            W = W + (tableau.vectors @ (inverse * (tableau.inverse @ (residual @ vectors)))).real @ vectors.T
        return None, _ITERATIONS


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
