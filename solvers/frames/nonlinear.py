"""The nonlinear equations of a collocation step: G at the nodes that the product makes there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve

from flowsim.solvers.compilation import compiled
from flowsim.solvers.frames.collocation import Stages, damping_of, perturb, products, sensitivities, stages
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.problem import FrameProblem
from flowsim.solvers.frames.relaxation import Relaxation
from flowsim.solvers.frames.solution import rates_of
from flowsim.solvers.gauss import GaussTableau

__all__ = ["StageEquations"]

Array = NDArray[np.float64]

#: Share of the tolerance left to the nonlinear solver, and rounding, below which it cannot be asked to go.
_SHARE, _FLOOR = 0.01, 2e-13
_NEWTON_ITERATIONS, _ANDERSON_ITERATIONS, _ANDERSON_DEPTH = 12, 20, 6
#: Steps that go straight to the costlier solver after one that needed it.
_CAREFUL_STEPS = 10
_GMRES_TOLERANCE, _GMRES_VECTORS = 1e-2, 60
#: Unknowns up to which Newton's matrix is formed; it is kept while every iteration gains this factor.
_LARGEST_DENSE, _SLOW = 700, 0.1
#: A direction below exp(this), against the largest, leaves no trace in a product.
_INVISIBLE = -45.0


class StageEquations:
    """What the steps from one state have in common."""

    def __init__(self, problem: FrameProblem, tableau: GaussTableau, tol: float, stats: dict[str, Any]) -> None:
        self.problem, self.tableau, self.tol, self.stats = problem, tableau, tol, stats
        self._careful = 0
        self._length = 0.0

    def begin(self, frame: Frame, G: Array) -> None:
        """Steps from here."""
        self.first, self.second, self.gram = _visible(frame)
        coupling = self.problem.coupling
        first, second = frame.value()
        inner = frame.A.T @ first
        outside = 0.0
        (R, w), p = frame.A.shape, len(frame.B)
        basis = frame.A
        if frame.is_paired:
            if w < R and frame.neutral_log > -np.inf:
                outside = float(np.sum(np.exp(2 * frame.neutral_log) * frame.neutral**2)) / (R - w)
        else:
            size = min(p, R)
            values, vectors = np.linalg.eigh(first.T @ first)
            values, vectors = np.maximum(values[::-1][:size], 0.0), vectors[:, ::-1][:, :size]
            basis, _ = np.linalg.qr(np.pad(first @ vectors, ((0, 0), (0, size - vectors.shape[1]))))
            inner = basis.T @ first
        self.relaxation = Relaxation(
            coupling.curvature_rows, coupling.curvature_columns, basis, inner @ inner.T, second @ second.T, outside
        )
        self.stats["njev"] += 1
        self._length = 0.0

    def _prepare(self, h: float) -> None:
        if h == self._length:
            return
        self._length = h
        upper = np.flatnonzero(self.tableau.eigenvalues.imag > 0)
        self._upper = upper
        self._factors = self.relaxation.factor(h * self.tableau.eigenvalues[upper])
        self.damping = damping_of(self.tableau, h, *rates_of(self.problem))
        self.decay = np.exp(-2 * (self.problem.uniform or 0.0) * h * self.tableau.c)

    def filtered(self, residual: Array, h: float) -> Array:
        """Sizes of residuals (K, R, p) as the flow answers to them during h."""
        mus = np.full(len(residual), complex(h))
        answered = Relaxation.solve(self.relaxation.factor(mus), residual)
        return np.sqrt((np.abs(answered) ** 2).sum(axis=(1, 2)))

    def solve(self, G: Array, h: float) -> Array | None:
        """G on all nodes; None if that does not converge: the caller shortens the step."""
        self._prepare(h)
        if self._careful == 0 and (solved := self._fixed_point(G, h)) is not None:
            return solved
        solved = self._newton(G, h)
        if self._careful > 0:
            self._careful -= 1
        elif solved is not None:
            self._careful = _CAREFUL_STEPS
        return solved

    def _stages(self, G: Array, h: float) -> tuple[Stages, Array]:
        at = stages(np.ascontiguousarray(G), h, self.damping, self.first, self.second)
        self.stats["nfev"] += len(G)
        self.stats["nlu"] += 1
        product = products(at.Z1, at.Z2, self.gram, self.decay)
        return at, self.problem.coupling.value(product) - G

    def _fixed_point(self, G: Array, h: float) -> Array | None:
        best = np.inf
        points: list[Array] = []
        updates: list[Array] = []
        for _ in range(_ANDERSON_ITERATIONS):
            residual = self._stages(G, h)[1]
            update = self._relax(residual)
            size = _norm(update, h)
            if not np.isfinite(size) or size > 4 * best:
                return None
            if self._enough(size, G, h):
                return G
            best = min(best, size)
            points.append(G.ravel())
            updates.append(update.ravel())
            G = _anderson(points, updates).reshape(G.shape)
            if len(points) > _ANDERSON_DEPTH:
                del points[0], updates[0]
        return None

    def _newton(self, G: Array, h: float) -> Array | None:
        last, factors = np.inf, None
        for _ in range(_NEWTON_ITERATIONS):
            at, residual = self._stages(G, h)
            size = _norm(self._relax(residual), h)
            if not np.isfinite(size) or size > 20 * last:
                return None
            if self._enough(size, G, h):
                return G
            if G.size > _LARGEST_DENSE:
                step = self._krylov(at, G, residual, h)
            else:
                if factors is None or size > _SLOW * last:
                    factors = self._factors_of(at, G, h)
                step = lu_solve(factors, residual.ravel(), check_finite=False).reshape(G.shape)
            last = size
            G = np.ascontiguousarray(G + step)
        return None

    def _factors_of(self, at: Stages, G: Array, h: float) -> Any:
        """The matrix of Newton's method, factorised."""
        product = products(at.Z1, at.Z2, self.gram, self.decay)
        moved = sensitivities(G, h, self.damping, at, self.gram, self.decay)
        matrix = np.eye(G.size) - self.problem.coupling.change(product, moved).reshape(G.size, -1).T
        self.stats["njev"] += 1
        return lu_factor(matrix, overwrite_a=True, check_finite=False)

    def _krylov(self, at: Stages, G: Array, residual: Array, h: float) -> Array:
        """One step of Newton's method by GMRES, to a low accuracy."""
        from scipy.sparse.linalg import LinearOperator, gmres

        shape, square = G.shape, (G.size, G.size)
        product = products(at.Z1, at.Z2, self.gram, self.decay)

        def derivative(flat: Array) -> Array:
            change = flat.reshape(shape)
            d1, d2 = perturb(G, h, self.damping, at, np.ascontiguousarray(change))
            moved = products(d1, at.Z2, self.gram, self.decay) + products(at.Z1, d2, self.gram, self.decay)
            return (change - self.problem.coupling.change(product, moved)).ravel()

        step, _ = gmres(
            LinearOperator(square, matvec=derivative, dtype=float),
            residual.ravel(),
            M=LinearOperator(square, matvec=lambda flat: self._relax(flat.reshape(shape)).ravel(), dtype=float),
            rtol=_GMRES_TOLERANCE,
            atol=0.0,
            restart=min(G.size, _GMRES_VECTORS),
            maxiter=1,
        )
        out: Array = step.reshape(shape)
        return out

    def _relax(self, residual: Array) -> Array:
        """The answer of G on all nodes to a residual there: one relaxation per pair of eigenvalues of the tableau."""
        tableau, upper = self.tableau, self._upper
        turned = np.tensordot(tableau.inverse[upper], residual, axes=1)
        out: Array = 2 * np.tensordot(tableau.vectors[:, upper], Relaxation.solve(self._factors, turned), axes=1).real
        return out if len(upper) * 2 == tableau.stages else out + self._real_part(residual)

    def _real_part(self, residual: Array) -> Array:
        real = np.flatnonzero(self.tableau.eigenvalues.imag == 0)
        factors = self.relaxation.factor(self._length * self.tableau.eigenvalues[real])
        turned = np.tensordot(self.tableau.inverse[real], residual, axes=1)
        out: Array = np.tensordot(self.tableau.vectors[:, real], Relaxation.solve(factors, turned), axes=1).real
        return out

    def _enough(self, size: float, G: Array, h: float) -> bool:
        """h times the update of G is the relative change of Z it can still make."""
        return size <= max(_SHARE * self.tol * min(1.0, _norm(G, h)), _FLOOR)


def _visible(frame: Frame) -> tuple[Array, Array, Array]:
    """Columns F1 (R, q), F2 (p, q) and their Gram matrix: ``Z_1 Z_2^T = F1 gram F2^T`` as far as can be seen."""
    top = frame.scale
    kept = frame.logs > top + _INVISIBLE
    outer = max(frame.neutral_log, frame.minus_logs.max(initial=-np.inf))
    if outer > top + _INVISIBLE:
        first, second = (np.ascontiguousarray(each) for each in frame.value())
        return first, second, np.eye(first.shape[1])
    with np.errstate(under="ignore"):
        rows = np.exp(frame.logs[kept])[:, None] * frame.rows[kept] * frame.factor
    gram = rows @ rows.T
    return np.ascontiguousarray(frame.A[:, kept]), np.ascontiguousarray(frame.B[:, kept]), gram


def _norm(values: Array, h: float) -> float:
    """h times the largest Frobenius norm among the nodes."""
    return h * float(np.sqrt(np.max(np.sum(values**2, axis=(1, 2)))))


@compiled()
def _least_squares(differences, update):
    return np.linalg.lstsq(differences, update, 1e-10)[0]


def _anderson(points: list[Array], updates: list[Array]) -> Array:
    """The combination of past points whose update is least, moved by its update."""
    if len(points) == 1:
        return points[0] + updates[0]
    df = np.stack([updates[-1] - f for f in updates[:-1]], axis=1)
    dq = np.stack([points[-1] - p for p in points[:-1]], axis=1)
    weights = _least_squares(df, updates[-1])
    return points[-1] + updates[-1] - (dq + df) @ weights
