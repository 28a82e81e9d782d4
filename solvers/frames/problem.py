"""The problem of the integrator of matrix flows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from flowsim.solvers.array_kinds import Array


class Coupling(Protocol):
    """The off-diagonal block G of the generator as a function of the product ``Q = Z_1 Z_2^T``, (R, p) with R >= p.

    Attributes
    ----------
    curvature_rows, curvature_columns : array (R,), (p,)
        A model of ``-dG/dQ``, ``x -> rows[:, None] * x * columns``, one of the two constant: exact where there is a
        signal, else used for the preconditioner alone.
    signal : array (R, p) or None
        Set if ``G = signal - rows[:, None] * Q * columns``.
    """

    @property
    def curvature_rows(self) -> Array: ...
    @property
    def curvature_columns(self) -> Array: ...
    @property
    def signal(self) -> Array | None: ...

    def value(self, product: Array) -> Array:
        """G at products (..., R, p)."""
        ...

    def change(self, product: Array, change: Array) -> Array:
        """The derivative of :meth:`value` along `change`, at each product (..., R, p)."""
        ...


class Linear(NamedTuple):
    """``G = signal - rows * product * columns``."""

    signal: Array
    rows: Array
    columns: Array


@dataclass(frozen=True, eq=False)
class FrameProblem:
    """``Z' = S(t) Z``."""

    coupling: Coupling
    #: (R,), (p,), the diagonals a and b
    damping_rows: Array
    damping_columns: Array
    paired: bool = True  #: whether a frame may be paired; else the conserved quantity of uniform damping is not used

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.damping_rows), len(self.damping_columns)

    @cached_property
    def linear(self) -> Linear | None:
        """The coupling for compiled functions, if it is linear."""
        coupling = self.coupling
        if coupling.signal is None:
            return None
        parts = coupling.signal, coupling.curvature_rows, coupling.curvature_columns
        return Linear(*(np.ascontiguousarray(each, dtype=float) for each in parts))

    def jacobian(self, Z: Array) -> Array:
        """Of ``Z -> S Z`` at one state (R + p, q), N = (R + p) q: symmetric, for G is minus a gradient."""
        (n, q), R = Z.shape, len(self.damping_rows)
        U, V = Z[:R], Z[R:]
        if self.coupling.signal is not None:
            return self._jacobian_of_linear(U, V)
        units = np.eye(n * q).reshape(-1, n, q)
        product = U @ V.T
        moved = units[:, :R] @ V.T + U @ np.swapaxes(units[:, R:], -1, -2)
        G, dG = self.coupling.value(product), self.coupling.change(product, moved)
        first = G @ units[:, R:] + dG @ V
        second = G.T @ units[:, :R] + np.swapaxes(dG, -1, -2) @ U
        damping = np.concatenate([self.damping_rows, self.damping_columns])[:, None]
        columns = np.concatenate([first, second], axis=1) - damping * units
        return columns.reshape(len(units), -1)

    def _jacobian_of_linear(self, U: Array, V: Array) -> Array:
        """The same for ``G = signal - rows * product * columns``, by its blocks."""
        (R, q), n = U.shape, len(U) + len(V)
        weighted = self.coupling.curvature_rows[:, None] * U, self.coupling.curvature_columns[:, None] * V
        out, along = np.zeros((n, q, n, q)), np.arange(q)
        first, second = np.arange(R), np.arange(R, n)
        out[first, :, first] = -self.coupling.curvature_rows[:, None, None] * (V.T @ weighted[1])
        out[second, :, second] = -self.coupling.curvature_columns[:, None, None] * (U.T @ weighted[0])
        cross = -weighted[0][:, None, None, :] * weighted[1].T[:, :, None]
        cross[:, along, :, along] += self.coupling.value(U @ V.T)
        out[:R, :, R:], out[R:, :, :R] = cross, cross.transpose(2, 3, 0, 1)
        whole = out.reshape(n * q, n * q)
        whole[np.diag_indices(n * q)] -= np.repeat(np.concatenate([self.damping_rows, self.damping_columns]), q)
        return whole

    @cached_property
    def is_damped(self) -> bool:
        return bool(self.damping_rows.any() or self.damping_columns.any())

    @cached_property
    def uniform(self) -> float | None:
        """The damping if it is uniform: then ``exp(2 t damping) Z^T J Z`` is conserved, J = diag(1, -1)."""
        if not self.paired:
            return None
        both = np.concatenate([self.damping_rows, self.damping_columns])
        return float(both[0]) if np.ptp(both) == 0.0 else None


def rates_of(problem: FrameProblem) -> tuple[Array, Array]:
    """Damping rates inside a collocation step, without the uniform one of a paired frame."""
    if problem.uniform is not None:
        return np.zeros(1), np.zeros(1)
    sides = problem.damping_rows, problem.damping_columns
    rows, columns = (side[:1] if np.ptp(side) == 0.0 else side for side in sides)
    return rows, columns
