"""The nonlinear equations of a collocation step: G at the nodes equals its value at the product there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames import collocation, iteration, step_control
from flowsim.solvers.frames.collocation import Stages, damping_of, multiply, propagate
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.iteration import StepData, System, eigen_pairs, iterate, solvers
from flowsim.solvers.frames.pairs import INVISIBLE, begin
from flowsim.solvers.frames.problem import FrameProblem, rates_of
from flowsim.solvers.frames.relaxation import Relaxation, factor, sizes
from flowsim.solvers.frames.saturated import LogSumExp, has_few_weights, solve_saturated
from flowsim.solvers.gauss import GaussTableau, lagrange_weights
from flowsim.solvers.precompile import compile_ahead

#: Size of S f, relative to f and S, below which it is rounding.
_NO_TURN = 1e-13
_GMRES_TOLERANCE, _GMRES_VECTORS = 1e-2, 60


def _largest(values: Array) -> float:
    """The largest Frobenius norm among the nodes."""
    return float(np.sqrt(np.einsum("jic,jic->j", values, values).max()))


@cache
def compile_in_advance(is_linear: bool) -> None:
    """Start to compile what a first run interprets."""
    names = ["collocation:propagation"]
    if is_linear:
        names += "iteration:fixed_point", "iteration:solve_stages", "graded:triangularised"
    else:
        names += "collocation:products", "iteration:relax", "iteration:accelerate", "pairs:begun", "pairs:advanced"
        names += "step_control:turning", "pairs:_carry", "collocation:perturb"
    names += "collocation:propagated", "relaxation:factored", "relaxation:defects", "graded:rows_added"
    compile_ahead(names, room=__name__.rpartition(".")[0])


class StageEquations:
    """The equations of steps from one state."""

    def __init__(self, problem: FrameProblem, tableau: GaussTableau, tol: float, stats: dict[str, Any]) -> None:
        self.problem, self.tableau, self.tol, self.stats = problem, tableau, tol, stats
        #: steps that still go straight to the costlier solver
        self.careful = 0
        self._length = 0.0
        self._pairs = eigen_pairs(tableau)
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
            self.growth = growth_of(self.problem, frame, G, level)
        self._saturated = self._log_sum_exp(frame)
        self.stats["njev"] += 1
        self._length = 0.0

    def _log_sum_exp(self, frame: Frame) -> tuple[LogSumExp, Array] | None:
        """The coupling as a log-sum-exp function of few terms, if it is that, and the product here."""
        if not hasattr(self.problem.coupling, "log_sum_exp"):
            return None
        one, other = frame.value()
        product = one @ other.T
        form = self.problem.coupling.log_sum_exp(product)
        return (form, product) if form is not None and has_few_weights(form, product) else None

    def turning(self, frame: Frame, G: Array, level: float) -> float:
        """Rate at which S turns directions below exp(level), ``max |S^m f|^(1/m)``, m the order of a step's first
        error.

        Directions of small overlap with the fastest ones grow at their rate later in the step; where they act on the
        product, this is in the error estimate of the step.
        """
        if frame.is_paired:
            return float(step_control.turning_rate(frame.arrays, G, level, 2 * self.tableau.stages + 1))
        there = (frame.logs > -np.inf) & (frame.logs < level)
        A, B = frame.A[:, there], frame.B[:, there]
        if A.shape[1] == 0:
            return 0.0
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
        self._factors = factor(self.relaxation, h * self._pairs.values)
        damping = damping_of(self.tableau, h, *rates_of(self.problem))
        decay = np.exp(-2 * (self.problem.uniform or 0.0) * h * self.tableau.c)
        self._data = StepData(h, damping, self.first, self.second, self.gram, decay)

    def defects(self, G: Array, G0: Array, G1: Array, h: float) -> Array:
        """Defects of the polynomial through G at the ends of a step, :func:`.sizes`, as changes of Z."""
        return h * sizes(factor(self.relaxation, np.array([complex(h)])), self.tableau.at_ends, G, G0, G1)

    def solve(self, G: Array, h: float) -> Array | None:
        """G at all nodes; None without convergence: the caller shortens the step."""
        self._prepare(h)
        if self.linear is not None:
            G, system = np.array(G, order="C"), self._system()
            iterations, converged, careful = iterate(solvers(), system, G, self.careful, self.tol)
            if careful < 0:
                iterations, converged, careful = iterate(solvers(with_newton=True), system, G, self.careful, self.tol)
            self.careful = careful
            self._count(iterations)
            return G if converged else None
        G = np.ascontiguousarray(G)
        if self._saturated is not None:
            return solve_saturated(
                *self._saturated, self._linearised, lambda G, change: self._enough(h * change, G), len(G)
            )
        if self.careful == 0 and (found := self._fixed_point_of_any(G)) is not None:
            return found
        found = self._newton_of_any(G)
        if self.careful > 0:
            self.careful -= 1
        elif found is not None:
            self.careful = iteration.CAREFUL_STEPS
        return found

    def ends(self, G: Array) -> tuple[Array, Array] | None:
        """G at the ends by those at all nodes but one, where its value at the product there is lost to cancellation.

        Of exponents of the size of 1 / rounding nothing is left after differences.
        """
        if self._saturated is None:
            return None
        c = self.tableau.c
        first, last = lagrange_weights(c[:-1], np.zeros(1))[0], lagrange_weights(c[1:], np.ones(1))[0]
        return np.tensordot(first, G[:-1], axes=1), np.tensordot(last, G[1:], axes=1)

    def _system(self) -> System:
        return System(self.linear, self._data, self._pairs, self._factors, collocation.propagation)  # type: ignore[arg-type]

    def _count(self, iterations: int) -> None:
        self.stats["nfev"] += iterations * self.tableau.stages
        self.stats["nlu"] += iterations

    # The same where G is any function of the product, which compiled code does not know.

    def _stages(self, G: Array) -> tuple[Stages, Array, Array]:
        """The stages, their products, and the residual of G there."""
        data = self._data
        at = propagate(G, data.h, data.damping, data.first, data.second)[0]
        self._count(1)
        product = multiply(at.Z1, at.Z2, data.gram, data.decay)
        return at, product, np.ascontiguousarray(self.problem.coupling.value(product) - G)

    def _relax(self, residual: Array) -> Array:
        return iteration.apply_relaxation(self._pairs, self._factors, np.ascontiguousarray(residual))

    def _fixed_point_of_any(self, G: Array) -> Array | None:
        best = np.inf
        points = np.empty((iteration.ANDERSON_DEPTH + 1, G.size))
        updates = np.empty_like(points)
        count = 0
        for _ in range(iteration.ANDERSON_ITERATIONS):
            update = self._relax(self._stages(G)[2])
            size = self._data.h * _largest(update)
            if not size <= iteration.FIXED_POINT_GROWTH * best:
                return None
            if self._enough(size, G):
                return G
            best = min(best, size)
            if count > iteration.ANDERSON_DEPTH:
                points[:-1], updates[:-1] = points[1:].copy(), updates[1:].copy()
                count -= 1
            points[count], updates[count] = G.ravel(), update.ravel()
            count += 1
            G = iteration.combine(points, updates, count).reshape(G.shape)
        return None

    def _newton_of_any(self, G: Array) -> Array | None:
        last = np.inf
        for _ in range(iteration.NEWTON_ITERATIONS):
            at, product, residual = self._stages(G)
            size = self._data.h * _largest(self._relax(residual))
            if not size <= iteration.NEWTON_GROWTH * last:
                return None
            if self._enough(size, G):
                return G
            last = size
            G = np.ascontiguousarray(G + self._krylov(at, product, G, residual))
        return None

    def _linearised(self, G: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Products at the nodes, and their derivative along changes of G."""
        at, product, _ = self._stages(np.ascontiguousarray(G))
        return product, lambda change: self._moved(at, G, change)

    def _moved(self, at: Stages, G: Array, change: Array) -> Array:
        """The derivative of the products at the nodes along a change of G."""
        data = self._data
        d1, d2 = collocation.differentiate(G, data.h, data.damping, at, change)
        return multiply(d1, at.Z2, data.gram, data.decay) + multiply(at.Z1, d2, data.gram, data.decay)

    def _krylov(self, at: Stages, product: Array, G: Array, residual: Array) -> Array:
        """One step of Newton's method by GMRES, to a low accuracy."""
        from scipy.sparse.linalg import LinearOperator, gmres

        shape, square = G.shape, (G.size, G.size)

        def derivative(flat: Array) -> Array:
            change = np.ascontiguousarray(flat.reshape(shape))
            return (change - self.problem.coupling.change(product, self._moved(at, G, change))).ravel()

        relax = LinearOperator(square, matvec=lambda flat: self._relax(flat.reshape(shape)).ravel(), dtype=float)
        step, _ = gmres(
            LinearOperator(square, matvec=derivative, dtype=float), residual.ravel(), M=relax,
            rtol=_GMRES_TOLERANCE, atol=0.0, restart=min(G.size, _GMRES_VECTORS), maxiter=1,
        )  # fmt: skip
        return step.reshape(shape)

    def _enough(self, size: float, G: Array) -> bool:
        """Whether the update of G, times h, a bound on the relative change of Z, is below the tolerance."""
        return size <= max(iteration.SHARE * self.tol * min(1.0, self._data.h * _largest(G)), iteration.FLOOR)


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


def growth_of(problem: FrameProblem, frame: Frame, G: Array, level: float) -> float:
    """The largest growth rate of the directions of a state; an active direction that shrinks may change sign and grow.

    Directions above exp(level) act on the product; those of pairs may all turn, as their f^- grow when they shrink.
    """
    there = frame.logs > -np.inf
    A, B = frame.A[:, there], frame.B[:, there]
    if A.shape[1] == 0:
        return 0.0
    if frame.is_paired:
        own = A.T @ G @ B
        return float(np.abs(np.linalg.eigvalsh((own + own.T) / 2)).max()) - (problem.uniform or 0.0)
    a, b = problem.damping_rows[:, None], problem.damping_columns[:, None]
    own = A.T @ (G @ B - a * A) + B.T @ (G.T @ A - b * B)
    own = (own + own.T) / 2
    acts = frame.logs[there] > level
    shrinking = np.linalg.eigvalsh(own[np.ix_(acts, acts)]).min(initial=0.0)
    return float(max(np.linalg.eigvalsh(own)[-1], -shrinking))
