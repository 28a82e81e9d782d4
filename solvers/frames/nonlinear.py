"""The nonlinear equations of a collocation step: G at the nodes equals its value at the product there."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import compiled
from flowsim.solvers.frames import collocation, iteration
from flowsim.solvers.frames.collocation import Stages, damping_of, propagate
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.iteration import EigenPairs, StepData, iterate
from flowsim.solvers.frames.pairs import INVISIBLE, begin
from flowsim.solvers.frames.problem import FrameProblem, rates_of
from flowsim.solvers.frames.relaxation import JacobianModes, Relaxation, factor, modes_of, sizes
from flowsim.solvers.gauss import GaussTableau

#: Part of the tolerance for the nonlinear solver, and its lower limit by rounding.
_SHARE, _FLOOR = 0.01, 2e-13
_NEWTON_ITERATIONS, _ANDERSON_ITERATIONS, _ANDERSON_DEPTH = 12, 20, 6
#: Growth of the update at which the iterations are abandoned.
_FIXED_POINT_GROWTH, _NEWTON_GROWTH = 4.0, 20.0
#: Steps that use Newton's method directly after one that needed it.
_CAREFUL_STEPS = 10
#: Part of its size below which S applied to a direction is rounding.
_NO_TURN = 1e-13
_GMRES_TOLERANCE, _GMRES_VECTORS = 1e-2, 60

# Entry points that Python calls.
_products, _perturb = compiled()(collocation.products.py_func), compiled()(collocation.perturb.py_func)
_relax, _largest = compiled()(iteration.relax.py_func), compiled()(iteration.largest.py_func)
_accelerate = compiled()(iteration.accelerate.py_func)


@cache
def _eigen_pairs(tableau: GaussTableau) -> EigenPairs:
    one_of_each = np.flatnonzero(tableau.eigenvalues.imag >= 0)
    values = tableau.eigenvalues[one_of_each]
    vectors = tableau.vectors[:, one_of_each] * np.where(values.imag > 0, 2.0, 1.0)
    return EigenPairs(values, np.ascontiguousarray(vectors), np.ascontiguousarray(tableau.inverse[one_of_each]))


class StageEquations:
    """The equations of steps from one state."""

    def __init__(
        self, problem: FrameProblem, tableau: GaussTableau, tol: float, stats: dict[str, Any], long: bool = False
    ) -> None:
        self.problem, self.tableau, self.tol, self.stats = problem, tableau, tol, stats
        self._long = long
        #: modes of the Jacobian, for long steps
        self.modes: JacobianModes | None = None
        #: rates of the active directions by themselves, ascending
        self.rates = np.zeros(0)
        self._careful = 0
        self._length = 0.0
        self._pairs = _eigen_pairs(tableau)
        self.linear = problem.linear

    def begin(self, frame: Frame, G: Array, level: float) -> None:
        """Prepare for steps from a state; :attr:`growth` is the largest rate of its directions.

        Directions above exp(level) act on the product.
        """
        coupling = self.problem.coupling
        bends = tuple(
            np.ascontiguousarray(each, dtype=float) for each in (coupling.curvature_rows, coupling.curvature_columns)
        )
        kappa = self.problem.uniform or 0.0
        if frame.is_paired:
            self.first, self.second, self.gram, self.relaxation, growth = begin(frame.arrays, G, bends)
            self.growth = growth - kappa
        else:
            self.first, self.second, self.gram = _visible(frame)
            self.relaxation = _plain_relaxation(frame, *bends)
            self.growth = _plain_growth(self.problem, frame, G, level)
        self.stats["njev"] += 1
        self._length = 0.0
        if self._long:
            self.modes = modes_of(self.problem, *frame.value())
            self.rates = self.modes.rates

    def turning(self, frame: Frame, G: Array, level: float) -> float:
        """Rate at which S turns directions below exp(level), ``max |S^m f|^(1/m)``, m the order of a step's first
        error.

        Directions of small overlap with the fastest ones grow at their rate later in the step; where they act on the
        product, this is in the error estimate of the step.
        """
        there = (frame.logs > -np.inf) & (frame.logs < level)
        A, B = frame.A[:, there], frame.B[:, there]
        if A.shape[1] == 0:
            return 0.0
        if frame.is_paired:
            return _paired_turning(G, A, B, 2 * self.tableau.stages + 1)
        order, logs = 2 * self.tableau.stages + 1, np.zeros(A.shape[1])
        a, b = self.problem.damping_rows[:, None], self.problem.damping_columns[:, None]
        size = float(np.linalg.norm(G)) + float(a.max()) + float(b.max())
        for _ in range(order):
            A, B = G @ B - a * A, G.T @ A - b * B
            norms = np.sqrt((A**2).sum(axis=0) + (B**2).sum(axis=0))
            kept = norms > _NO_TURN * size
            A, B, logs = A[:, kept] / norms[kept], B[:, kept] / norms[kept], logs[kept] + np.log(norms[kept])
        return float(np.exp(logs.max(initial=-np.inf) / order))

    def _prepare(self, h: float) -> None:
        if h == self._length:
            return
        self._length = h
        mus = h * self._pairs.values
        self._factors = factor(self.relaxation, mus) if self.modes is None else self.modes.factor(mus)
        damping = damping_of(self.tableau, h, *rates_of(self.problem))
        decay = np.exp(-2 * (self.problem.uniform or 0.0) * h * self.tableau.c)
        self._data = StepData(h, damping, self.first, self.second, self.gram, decay)

    def defects(self, G: Array, G0: Array, G1: Array, h: float) -> Array:
        """The defects of the polynomial through G at both ends of a step, and G1, filtered by the response of the flow.

        Relative changes of Z.
        """
        out: Array = h * sizes(factor(self.relaxation, np.array([complex(h)])), self.tableau.at_ends, G, G0, G1)
        return out

    def solve(self, G: Array, h: float) -> Array | None:
        """G at all nodes; None without convergence: the caller shortens the step."""
        self._prepare(h)
        if self._careful == 0 and (solved := self._fixed_point(np.ascontiguousarray(G))) is not None:
            return solved
        if self._long:
            return None
        solved = self._newton(np.ascontiguousarray(G))
        if self._careful > 0:
            self._careful -= 1
        elif solved is not None:
            self._careful = _CAREFUL_STEPS
        return solved

    def _count(self, iterations: int) -> None:
        self.stats["nfev"] += iterations * self.tableau.stages
        self.stats["nlu"] += iterations

    def _fixed_point(self, G: Array) -> Array | None:
        if self.linear is None:
            return self._fixed_point_of_any(G)
        return self._iterate(False, G, (_ANDERSON_ITERATIONS, _ANDERSON_DEPTH))

    def _newton(self, G: Array) -> Array | None:
        if self.linear is None:
            return self._newton_of_any(G)
        return self._iterate(True, G, (_NEWTON_ITERATIONS, _GMRES_VECTORS))

    def _iterate(self, by_newton: bool, G: Array, budget: tuple[int, int]) -> Array | None:
        allowed = _SHARE * self.tol, _FLOOR, _GMRES_TOLERANCE
        solved, iterations, converged = iterate(
            by_newton, self.linear, self._data, self._pairs, self._factors, G, budget, allowed
        )
        self._count(iterations)
        return solved if converged else None

    # The same for G as a general function of the product, which is not compiled.

    def _stages(self, G: Array) -> tuple[Stages, Array, Array]:
        """The stages, their products, and the residual of G there."""
        data = self._data
        at = propagate(G, data.h, data.damping, data.first, data.second)[0]
        self._count(1)
        product = _products(at.Z1, at.Z2, data.gram, data.decay)
        return at, product, np.ascontiguousarray(self.problem.coupling.value(product) - G)

    def product(self, G: Array) -> Array:
        """The product of the state at the nodes, (s, R, p)."""
        return self._stages(G)[1]

    def _relax(self, residual: Array) -> Array:
        out: Array = _relax(self._pairs, self._factors, np.ascontiguousarray(residual))
        return out

    def _fixed_point_of_any(self, G: Array) -> Array | None:
        best = np.inf
        points = np.empty((_ANDERSON_DEPTH + 1, G.size))
        updates = np.empty_like(points)
        count = 0
        for _ in range(_ANDERSON_ITERATIONS):
            update = self._relax(self._stages(G)[2])
            size = self._data.h * _largest(update)
            if not size <= _FIXED_POINT_GROWTH * best:
                return None
            if self._enough(size, G):
                return G
            best = min(best, size)
            if count > _ANDERSON_DEPTH:
                points[:-1], updates[:-1] = points[1:].copy(), updates[1:].copy()
                count -= 1
            points[count], updates[count] = G.ravel(), update.ravel()
            count += 1
            G = _accelerate(points, updates, count).reshape(G.shape)
        return None

    def _newton_of_any(self, G: Array) -> Array | None:
        last = np.inf
        for _ in range(_NEWTON_ITERATIONS):
            at, product, residual = self._stages(G)
            size = self._data.h * _largest(self._relax(residual))
            if not size <= _NEWTON_GROWTH * last:
                return None
            if self._enough(size, G):
                return G
            last = size
            G = np.ascontiguousarray(G + self._krylov(at, product, G, residual))
        return None

    def _krylov(self, at: Stages, product: Array, G: Array, residual: Array) -> Array:
        """One step of Newton's method by GMRES, to a low accuracy."""
        from scipy.sparse.linalg import LinearOperator, gmres

        shape, square = G.shape, (G.size, G.size)
        data = self._data

        def derivative(flat: Array) -> Array:
            change = flat.reshape(shape)
            d1, d2 = _perturb(G, data.h, data.damping, at, np.ascontiguousarray(change))
            moved = _products(d1, at.Z2, data.gram, data.decay) + _products(at.Z1, d2, data.gram, data.decay)
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

    def _enough(self, size: float, G: Array) -> bool:
        """Whether h times the update of G, the relative change of Z, is below the tolerance."""
        return size <= max(_SHARE * self.tol * min(1.0, self._data.h * _largest(G)), _FLOOR)


def _paired_turning(G: Array, A: Array, B: Array, order: int) -> float:
    """``max |S^m f|^(1/m)``, m odd, of f = (a, b) / sqrt(2): powers of ``G^T G`` in its eigenvectors."""
    pushed, pulled = G @ B, G.T @ A
    moved = np.maximum(np.linalg.norm(pushed, axis=0), np.linalg.norm(pulled, axis=0))
    kept = moved > _NO_TURN * np.linalg.norm(G)
    if not kept.any():
        return 0.0
    squares, vectors = np.linalg.eigh(G.T @ G)
    top = float(squares[-1])
    share = np.maximum(squares / top, 0.0)[:, None]
    # |(G G^T)^k G b|^2 and |(G^T G)^k G^T a|^2, 2 k + 1 = m
    along = share**order * (vectors.T @ B[:, kept]) ** 2 * top
    along += share ** (order - 1) * (vectors.T @ pulled[:, kept]) ** 2
    return float(np.sqrt(top) * (0.5 * along.sum(axis=0).max() / top) ** (0.5 / order))


def _visible(frame: Frame) -> tuple[Array, Array, Array]:
    """Columns F1 (R, q), F2 (p, q) and their Gram matrix: ``Z_1 Z_2^T = F1 gram F2^T`` to rounding."""
    kept = frame.logs > frame.scale + INVISIBLE
    with np.errstate(under="ignore"):
        rows = np.exp(frame.logs[kept])[:, None] * frame.rows[kept]
    return np.ascontiguousarray(frame.A[:, kept]), np.ascontiguousarray(frame.B[:, kept]), rows @ rows.T


def _plain_relaxation(frame: Frame, rows: Array, columns: Array) -> Relaxation:
    first, second = frame.value()
    size = min(len(frame.B), len(frame.A))
    _values, vectors = np.linalg.eigh(first.T @ first)
    vectors = vectors[:, ::-1][:, :size]
    basis = np.ascontiguousarray(np.linalg.qr(np.pad(first @ vectors, ((0, 0), (0, size - vectors.shape[1]))))[0])
    inner = basis.T @ first
    return Relaxation.of(rows, columns, basis, inner @ inner.T, second @ second.T, 0.0)


def _plain_growth(problem: FrameProblem, frame: Frame, G: Array, level: float) -> float:
    """The largest growth rate of directions of the state: one that acts on the product and shrinks may turn."""
    there = frame.logs > -np.inf
    A, B = frame.A[:, there], frame.B[:, there]
    if A.shape[1] == 0:
        return 0.0
    a, b = problem.damping_rows[:, None], problem.damping_columns[:, None]
    own = A.T @ (G @ B - a * A) + B.T @ (G.T @ A - b * B)
    own = (own + own.T) / 2
    acts = frame.logs[there] > level
    shrinking = np.linalg.eigvalsh(own[np.ix_(acts, acts)]).min(initial=0.0)
    return float(max(np.linalg.eigvalsh(own)[-1], -shrinking))
