r"""Matrix flows that are linear in the matrix once a smaller quantity is known.

.. math:: Z' = A(q) Z, \qquad q = q(Z Z^\top), \qquad A(q) = A(q)^\top \text{ (N x N)}.

Gauss collocation turns one step into ``Z_1 = R(q_1, ..., q_s) Z_0``. The unknowns of its nonlinear system are
taken to be the s values of q and not those of Z, and three things follow:

- *Conservation is structural.* If ``J A(q) + A(q) J = 0`` for every q, then ``R^T J R = J`` whatever the q_i are,
  converged or not: ``Z^T J Z`` is kept to rounding, at every tolerance.
- *Errors multiply.* A wrong q gives ``(1 + E) R Z_0``: directions of Z that are tiny, or absent, are wrong by a
  relative amount and are never fed by the large ones. Rank is kept; so tolerances are relative by nature.
- *The nonlinear system is small*: s values of q instead of s values of Z.

Z is kept as ``frame @ diag(exp(logs)) @ mix``, the frame well conditioned, the logs in falling order,
``mix`` well conditioned, so growth over any number of orders of magnitude, also outside the range of floats, costs no
precision.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.gauss import gauss_tableau, lagrange_weights
from flowsim.solvers.solution import Status

__all__ = ["Graded", "QuasilinearSystem", "Relaxation", "Step", "Steps", "factor"]

Array = NDArray[np.float64]

#: Six stages: order 12 at the steps, 7 in between. Measured best of 3..8 for tolerances 1e-6 to 1e-10.
STAGES = 6
#: Share of the tolerance left to the nonlinear solver.
_NEWTON_SHARE = 0.01
_NEWTON_ITERATIONS = 12
_ANDERSON_ITERATIONS = 20
#: Steps that go straight to the costlier solver after one that needed it.
_CAREFUL_STEPS = 10
_GMRES_TOLERANCE, _GMRES_VECTORS = 1e-2, 60
#: Rounding: what the nonlinear solver and the step control cannot be asked to go below.
_NEWTON_FLOOR = 2e-13
_ANDERSON_DEPTH = 6
_SAFETY, _LARGEST_GROWTH, _LARGEST_CUT = 0.9, 2.5, 0.2
#: Ratio of the squares of the frame's singular values up to which it is left as it is.
_LARGEST_SPREAD = 1e3
#: Rows of the stage system from which its larger half is eliminated first.
_ELIMINATE_FROM = 200
_NEWTON_CUT, _CAUTIOUS_GROWTH = 0.4, 1.3
#: Below this remaining distance (relative to the state) rounding decides, not truncation.
_ROUNDING_FLOOR = 2e-12
#: The polynomial through the nodes misses the ends of the step by more than it misses the integral.
#: Calibrated on closed forms: the error of a run is then 0.01 to 1 times the tolerance.
_DEFECT_WEIGHT = 0.05
#: exp(x) against its (s, s) Pade approximant: relative error ``_PADE[s] * x**(2s + 1)``.
_SMALLEST_STEP = 1e-14


class Relaxation(Protocol):
    """How q answers to a forcing of q when A(q) acts for a time mu: ``x + mu * P x``, P approximate."""

    def solve(self, mu: NDArray[Any], residual: NDArray[Any]) -> NDArray[Any]:
        """``(1 + mu_k P)^{-1} residual_k`` for mu (K,), residual (K, *q.shape)."""

    def strong(self) -> Relaxation | None:
        """The same with the generator's own action during mu, ``P(mu)``, if that is affordable."""


class QuasilinearSystem(Protocol):
    """What the integrator is given."""

    @property
    def split(self) -> int | None:
        """r if the diagonal blocks of every generator, r x r and the rest, are zero."""

    def observe(self, frame: Array, gram: Array) -> Array:
        """q of ``Z Z^T = frame @ gram @ frame^T``; frames (..., N, k)."""

    def observe_change(self, frame: Array, change: Array, gram: Array) -> Array:
        """The derivative of :meth:`observe` in the frame, along `change`."""

    def generator(self, q: Array) -> Array:
        """A(q), (..., N, N), affine in q."""

    def relaxation(self, frame: Array, gram: Array) -> Relaxation:
        """The approximate derivative of ``q(Z Z^T)`` at this state."""


@dataclass(frozen=True, eq=False)
class Graded:
    """``Z = frame @ diag(exp(logs)) @ mix``: (N, k), (k,), (k, K)."""

    frame: Array
    logs: Array
    mix: Array

    def right(self, shift: float = 0.0) -> Array:
        """``exp(logs - shift) * mix``, 0 where that leaves the range of floats."""
        with np.errstate(under="ignore", over="ignore"):
            return np.exp(self.logs - shift)[:, None] * self.mix

    def value(self, shift: float = 0.0) -> Array:
        """``Z * exp(-shift)``."""
        return self.frame @ self.right(shift)

    def moved(self, frame: Array) -> Graded:
        """The same right factor behind a new frame, made orthonormal again where it has become ill conditioned."""
        spread = np.linalg.eigvalsh(frame.T @ frame)
        if 0.0 < spread[-1] <= _LARGEST_SPREAD * spread[0] and spread[-1] <= _LARGEST_SPREAD:
            # Every orthonormalisation rounds Z; well-conditioned columns do not need one.
            return Graded(frame, self.logs, self.mix)
        order = np.argsort(-self.logs, kind="stable")
        logs, mix = self.logs[order], self.mix[order]
        orthonormal, triangle = np.linalg.qr(frame[:, order])
        size = np.abs(np.diag(triangle))
        new = logs + np.log(size)
        with np.errstate(under="ignore"):
            unit = triangle / np.diag(triangle)[:, None] * np.exp(np.minimum(logs[None, :] - logs[:, None], 0.0))
        return Graded(orthonormal * np.sign(np.diag(triangle)), new, unit @ mix)


def factor(Z: Array, log_scale: float = 0.0) -> Graded:
    """``exp(log_scale) * Z`` in graded form; directions that are only rounding are left out."""
    import scipy.linalg

    orthonormal, triangle, order = scipy.linalg.qr(Z, mode="economic", pivoting=True)
    size = np.abs(np.diag(triangle))
    column = np.linalg.norm(Z, axis=0)[order[: len(size)]]
    rounding = np.finfo(float).eps * max(Z.shape)
    keep = (size > rounding * column) & (size > 0)
    kept = int(keep.argmin()) if not keep.all() else len(size)
    mix = np.empty((kept, Z.shape[1]))
    mix[:, order] = triangle[:kept] / size[:kept, None]
    return Graded(np.ascontiguousarray(orthonormal[:, :kept]), np.log(size[:kept]) + log_scale, mix)


@dataclass(frozen=True, eq=False)
class Step:
    """One accepted step: ``start`` at t, length h, q at both ends and on the nodes between."""

    t: float
    h: float
    start: Graded
    end: Graded
    nodes: Array
    q: Array
    system: QuasilinearSystem

    def frames(self, positions: Array) -> Array:
        """Frames (P, N, k) at positions in [0, 1] of the step, behind the right factor of ``start``.

        Each is a collocation step of its own under the interpolated q: it conserves what the step conserves.
        """
        tableau = gauss_tableau(len(self.nodes) - 2)
        out = np.empty((len(positions), *self.start.frame.shape))
        for index, position in enumerate(positions):
            if position <= 0.0:
                out[index] = self.start.frame
                continue
            q = np.tensordot(lagrange_weights(self.nodes, position * tableau.c), self.q, axes=1)
            out[index] = propagate(self.system.generator(q), position * self.h, self.start.frame, self.system.split)[1]
        return out


def propagate(generators: Array, h: float, frame: Array, split: int | None = None) -> tuple[Array, Array]:
    """Stages (s, N, k) and end of one Gauss step of ``F' = A(t) F``, the A given at the nodes.

    With `split` = r the generators have zero diagonal blocks, r x r and (N - r) x (N - r), and the larger part of the
    stages is eliminated.
    """
    s, n = generators.shape[:2]
    if split is None or s * n <= _ELIMINATE_FROM:
        solved = np.linalg.solve(stage_matrix(generators, h), np.tile(frame, (s, 1)))
        stages: Array = solved.reshape(s, n, -1).astype(np.float64, copy=False)
    else:
        stages = _eliminated(generators, h, frame, split)
    return stages, frame + h * np.tensordot(gauss_tableau(s).b, generators @ stages, axes=1)


def _eliminated(generators: Array, h: float, frame: Array, split: int) -> Array:
    """``U_i = U_0 + h sum a_ij G_j V_j`` put into ``V_i = V_0 + h sum a_ij G_j^T U_j``, V the smaller part."""
    s, n = generators.shape[:2]
    a = h * gauss_tableau(s).a
    large, small = slice(0, split), slice(split, n)
    if split < n - split:
        large, small = small, large
    G = generators[:, large, small]
    Gt = np.ascontiguousarray(np.swapaxes(G, 1, 2))
    rows, k = G.shape[2], frame.shape[1]
    right = frame[small] + np.tensordot(a, Gt @ frame[large], axes=1)
    forward = np.ascontiguousarray(G.transpose(1, 0, 2)).reshape(G.shape[1], s * rows)
    blocks = np.zeros((s, rows, s, rows))
    for j in range(s):
        # G_j^T G_l for all l at once, weighted by a_jl, then by a_ij
        block = (Gt[j] @ forward).reshape(rows, s, rows) * a[j][None, :, None]
        blocks -= a[:, j, None, None, None] * block
    matrix = blocks.reshape(s * rows, s * rows)
    matrix.flat[:: s * rows + 1] += 1.0
    stages = np.empty((s, n, k))
    stages[:, small] = np.linalg.solve(matrix, right.reshape(s * rows, k)).reshape(s, rows, k)
    stages[:, large] = frame[large] + np.tensordot(a, G @ stages[:, small], axes=1)
    return stages


def stage_matrix(generators: Array, h: float) -> Array:
    """``1 - h a (x) A``, (s N, s N)."""
    s, n = generators.shape[:2]
    a = gauss_tableau(s).a
    matrix = np.multiply(-h * a[:, None, :, None], generators.transpose(1, 0, 2)[None]).reshape(s * n, s * n)
    matrix.flat[:: s * n + 1] += 1.0
    return matrix


def longest_linear_step(tolerance: float, stages: int) -> float:
    """Largest x for which the method's exp(x) is right to the tolerance."""
    log_constant = 2 * _log_factorial(stages) - _log_factorial(2 * stages) - _log_factorial(2 * stages + 1)
    return float(np.exp((np.log(tolerance) - log_constant) / (2 * stages + 1)))


def _log_factorial(n: int) -> float:
    return float(np.sum(np.log(np.arange(1, n + 1))))


class Steps:
    """The adaptive integration, one accepted step at a time.

    Parameters
    ----------
    system : QuasilinearSystem
    start : Graded
    tolerance : float
        Relative error of Z that a step may make.
    max_steps : int

    Attributes
    ----------
    status : Status
    stats : dict
    """

    def __init__(
        self,
        system: QuasilinearSystem,
        start: Graded,
        *,
        tolerance: float,
        max_steps: int = 200_000,
        stages: int = STAGES,
    ) -> None:
        self.system = system
        self.start = start
        self.tolerance = max(tolerance, 1e-13)
        self.max_steps = max_steps
        self.stages = stages
        self.status = Status.COMPLETED
        self._careful_for = 0
        self.stats: dict[str, Any] = {"steps": 0, "rejected": 0, "nfev": 0, "njev": 0, "nlu": 0, "seconds": 0.0}

    def until(self, t_end: float) -> Iterator[tuple[Step, Array]]:
        """Accepted steps from 0 to `t_end` (inf: until the caller stops), each with its stages' frames (s, N, k)."""
        began = time.perf_counter()
        tableau = gauss_tableau(self.stages)
        nodes = np.concatenate([[0.0], tableau.c, [1.0]])
        linear = longest_linear_step(self.tolerance, self.stages)
        system, state, t = self.system, self.start, 0.0
        gram = _gram(state)
        q0 = system.observe(state.frame, gram)
        guess = np.broadcast_to(q0, (self.stages, *q0.shape)).copy()
        h: float | None = None
        last: Step | None = None
        while t < t_end:
            if self.stats["steps"] >= self.max_steps:
                self.status = Status.STEP_BUDGET
                break
            # Growth counts where there is something to grow: in the span of the frame.
            basis = np.linalg.qr(state.frame)[0]
            growth = float(np.linalg.eigvalsh(basis.T @ system.generator(q0) @ basis)[-1])
            limit = linear / growth if growth > 0 else np.inf
            if h is None:
                size = float(np.linalg.norm(system.generator(q0)))
                h = min(limit, 1.0 / size if size > 0 else t_end)
            relaxation = system.relaxation(state.frame, gram)
            self.stats["njev"] += 1
            retry = False
            while True:
                h = min(h, limit, t_end - t)
                if not h > _SMALLEST_STEP * max(t, np.finfo(float).tiny):
                    self.status = Status.STEP_FLOOR
                    break
                if last is not None and not retry:
                    guess = self._extrapolate(last, h, q0)
                solved = self._solve(relaxation, state.frame, gram, guess, h)
                if solved is None:
                    self.stats["rejected"] += 1
                    h *= _NEWTON_CUT
                    guess = np.broadcast_to(q0, guess.shape).copy()
                    retry = True
                    continue
                q, stages, end = solved
                q1 = system.observe(end, gram)
                ends = np.tensordot(tableau.at_ends, q, axes=1)
                defect = np.stack([ends[0] - q0, ends[1] - q1, q1])
                filtered = relaxation.solve(np.full(3, h), defect)
                size = h * np.sqrt(np.sum(filtered**2, axis=tuple(range(1, filtered.ndim))))
                error = _DEFECT_WEIGHT * max(size[0], size[1])
                # Relative to what is still to be gained, so that a vanishing loss keeps its relative accuracy.
                allowed = max(self.tolerance * min(1.0, size[2]), _ROUNDING_FLOOR)
                if not np.isfinite(error):
                    ratio = np.inf
                else:
                    ratio = error / allowed
                scale = _SAFETY * ratio ** (-1.0 / (self.stages + 1)) if ratio > 0 else _LARGEST_GROWTH
                scale = min(max(scale, _LARGEST_CUT), _LARGEST_GROWTH)
                if ratio > 1.0:
                    self.stats["rejected"] += 1
                    h *= scale
                    guess = np.broadcast_to(q0, guess.shape).copy()
                    retry = True
                    continue
                break
            if self.status is not Status.COMPLETED:
                break
            if not np.isfinite(end).all():
                self.status = Status.NON_FINITE
                break
            moved = state.moved(end)
            finished = t + h >= t_end * (1 - 1e-15) if np.isfinite(t_end) else False
            step = Step(t, h, state, moved, nodes, np.concatenate([q0[None], q, q1[None]]), system)
            self.stats["steps"] += 1
            self.stats["seconds"] = time.perf_counter() - began
            last = step
            yield step, stages
            t = t_end if finished else t + h
            state = moved
            gram = _gram(state)
            q0 = system.observe(state.frame, gram)
            h *= min(scale, _CAUTIOUS_GROWTH) if retry else scale
        self.stats["seconds"] = time.perf_counter() - began

    def _extrapolate(self, last: Step, h: float, q0: Array) -> Array:
        """q on the nodes of the next step: the last step's polynomial where that is safe, else q at the start."""
        tableau = gauss_tableau(self.stages)
        if h > 1.5 * last.h:
            return np.broadcast_to(q0, (self.stages, *q0.shape)).copy()
        use = slice(self.stages - 1, self.stages + 2)
        weights = lagrange_weights(last.nodes[use], 1.0 + h / last.h * tableau.c)
        return np.tensordot(weights, last.q[use], axes=1)

    def _solve(
        self, relaxation: Relaxation, frame: Array, gram: Array, guess: Array, h: float
    ) -> tuple[Array, Array, Array] | None:
        """``q_i = q(Z_i Z_i^T)`` on all nodes; None if that does not converge: the caller shortens the step.

        A fixed point preconditioned by the relaxation, with Anderson's acceleration. Where the generator itself is
        stiff (a constrained minimum, a noisy one) the strong relaxation, or Newton's method with GMRES.
        """
        if self._careful_for == 0:
            solved = self._anderson(relaxation, frame, gram, guess, h)
            if solved is not None:
                return solved
        strong = relaxation.strong()
        if strong is not None:
            solved = self._anderson(strong, frame, gram, guess, h)
        else:
            solved = self._newton(relaxation, frame, gram, guess, h)
        if self._careful_for > 0:
            self._careful_for -= 1
        elif solved is not None:
            self._careful_for = _CAREFUL_STEPS
        return solved

    def _anderson(
        self, relaxation: Relaxation, frame: Array, gram: Array, q: Array, h: float
    ) -> tuple[Array, Array, Array] | None:
        best = np.inf
        history_q: list[Array] = []
        history_f: list[Array] = []
        for _ in range(_ANDERSON_ITERATIONS):
            stages, end = propagate(self.system.generator(q), h, frame, self.system.split)
            self.stats["nfev"] += self.stages
            self.stats["nlu"] += 1
            residual = self.system.observe(stages, gram) - q
            if not np.isfinite(residual).all():
                return None
            update = self._relax(relaxation, residual, h)
            size = _norm(update, h)
            if self._enough(size, q, h):
                return q, stages, end
            if size > 4 * best:
                return None
            best = min(best, size)
            history_q.append(q.ravel())
            history_f.append(update.ravel())
            q = _anderson(history_q, history_f).reshape(q.shape)
            if len(history_q) > _ANDERSON_DEPTH:
                del history_q[0], history_f[0]
        return None

    def _newton(
        self, relaxation: Relaxation, frame: Array, gram: Array, q: Array, h: float
    ) -> tuple[Array, Array, Array] | None:
        from scipy.linalg import lu_factor, lu_solve
        from scipy.sparse.linalg import LinearOperator, gmres

        a = gauss_tableau(self.stages).a
        s, n = self.stages, len(frame)
        shape, square = q.shape, (q.size, q.size)
        constant = self.system.generator(np.zeros_like(q))
        last = np.inf
        for _ in range(_NEWTON_ITERATIONS):
            generators = self.system.generator(q)
            factors = lu_factor(stage_matrix(generators, h), overwrite_a=True, check_finite=False)
            stages = lu_solve(factors, np.tile(frame, (s, 1)), check_finite=False).reshape(s, n, -1)
            self.stats["nfev"] += s
            self.stats["nlu"] += 1
            residual = self.system.observe(stages, gram) - q
            if not np.isfinite(residual).all():
                return None
            size = _norm(self._relax(relaxation, residual, h), h)
            if self._enough(size, q, h):
                return q, stages, frame + h * np.tensordot(gauss_tableau(s).b, generators @ stages, axes=1)
            if size > 20 * last:
                return None
            last = size

            def derivative(flat: Array, factors: Any = factors, stages: Array = stages) -> Array:
                change = flat.reshape(shape)
                forcing = h * np.tensordot(a, (self.system.generator(change) - constant) @ stages, axes=1)
                moved = lu_solve(factors, forcing.reshape(s * n, -1), check_finite=False).reshape(stages.shape)
                return (change - self.system.observe_change(stages, moved, gram)).ravel()

            def precondition(flat: Array) -> Array:
                return self._relax(relaxation, flat.reshape(shape), h).ravel()

            update, _ = gmres(
                LinearOperator(square, matvec=derivative, dtype=float),
                residual.ravel(),
                M=LinearOperator(square, matvec=precondition, dtype=float),
                rtol=_GMRES_TOLERANCE,
                atol=0.0,
                restart=min(q.size, _GMRES_VECTORS),
                maxiter=1,
            )
            q = q + update.reshape(q.shape)
        return None

    def _relax(self, relaxation: Relaxation, residual: Array, h: float) -> Array:
        """The answer of q on all nodes to a residual there: one relaxation per eigenvalue of the tableau."""
        tableau = gauss_tableau(self.stages)
        transformed = np.tensordot(tableau.inverse, residual, axes=1)
        return np.tensordot(tableau.vectors, relaxation.solve(h * tableau.eigenvalues, transformed), axes=1).real

    def _enough(self, size: float, q: Array, h: float) -> bool:
        """h times the update of q is the relative change of Z it can still make."""
        return size <= max(_NEWTON_SHARE * self.tolerance * min(1.0, _norm(q, h)), _NEWTON_FLOOR)


def _norm(values: Array, h: float) -> float:
    """h times the largest Frobenius norm among the nodes."""
    return h * float(np.sqrt(np.max(np.sum(values**2, axis=tuple(range(1, values.ndim))))))


def _gram(state: Graded) -> Array:
    right = state.right()
    with np.errstate(under="ignore"):
        return right @ right.T


def _anderson(points: list[Array], updates: list[Array]) -> Array:
    """The combination of past points whose update is least, moved by its update."""
    if len(points) == 1:
        return points[0] + updates[0]
    df = np.stack([updates[-1] - f for f in updates[:-1]], axis=1)
    dq = np.stack([points[-1] - p for p in points[:-1]], axis=1)
    weights = np.linalg.lstsq(df, updates[-1], rcond=1e-10)[0]
    return points[-1] + updates[-1] - (dq + df) @ weights
