r"""Matrix flows that are linear in the matrix once a smaller quantity is known.

.. math:: Z' = A(q) Z, \qquad q = q(Z Z^\top), \qquad A(q) = A(q)^\top \text{ (N x N)}.

Gauss collocation turns one step into ``Z_1 = R(q_1, ..., q_s) Z_0``. The unknowns of its nonlinear system are
taken to be the s values of q and not those of Z, and three things follow:

- *Conservation is structural.* If ``J A(q) + A(q) J = 0`` for every q, then ``R^T J R = J`` whatever the q_i are,
  converged or not: ``Z^T J Z`` is kept to rounding, at every tolerance.
- *Errors multiply.* A wrong q gives ``(1 + E) R Z_0``: directions of Z that are tiny, or absent, are wrong by a
  relative amount and are never fed by the large ones. Rank is kept; so tolerances are relative by nature.
- *The nonlinear system is small*: s values of q instead of s values of Z.

Z is kept as ``frame @ diag(exp(logs)) @ mix``, the frame with orthonormal columns, the logs in falling order,
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
_NEWTON_ITERATIONS = 25
#: An iteration that shrinks the update by less is given a shorter step instead.
_NEWTON_FLOOR = 1e-14
_ANDERSON_DEPTH = 6
_SAFETY, _LARGEST_GROWTH, _LARGEST_CUT = 0.9, 2.5, 0.2
_NEWTON_CUT = 0.4
#: Below this remaining distance (relative to the state) rounding decides, not truncation.
_ROUNDING_FLOOR = 1e-13
#: The polynomial through the nodes misses the ends of the step by more than it misses the integral.
#: Calibrated on closed forms: the error of a run is then 0.01 to 1 times the tolerance.
_DEFECT_WEIGHT = 0.05
#: exp(x) against its (s, s) Pade approximant: relative error ``_PADE[s] * x**(2s + 1)``.
_SMALLEST_STEP = 1e-14


class Relaxation(Protocol):
    """How q answers to a forcing of q when A(q) acts for a time mu: ``x + mu * P x``, P approximate."""

    def solve(self, mu: NDArray[Any], residual: NDArray[Any]) -> NDArray[Any]:
        """``(1 + mu_k P)^{-1} residual_k`` for mu (K,), residual (K, *q.shape)."""


class QuasilinearSystem(Protocol):
    """What the integrator is given."""

    def observe(self, frame: Array, gram: Array) -> Array:
        """q of ``Z Z^T = frame @ gram @ frame^T``; frames (..., N, k)."""

    def generator(self, q: Array) -> Array:
        """A(q), (..., N, N)."""

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
        """The same right factor behind a new frame, made orthonormal again."""
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
            out[index] = propagate(self.system.generator(q), position * self.h, self.start.frame)[1]
        return out


def propagate(generators: Array, h: float, frame: Array) -> tuple[Array, Array]:
    """Stages (s, N, k) and end of one Gauss step of ``F' = A(t) F``, the A given at the nodes."""
    tableau = gauss_tableau(len(generators))
    s, n = generators.shape[:2]
    system = np.multiply(-h * tableau.a[:, None, :, None], generators.transpose(1, 0, 2)[None]).reshape(s * n, s * n)
    system.flat[:: s * n + 1] += 1.0
    stages = np.linalg.solve(system, np.tile(frame, (s, 1))).reshape(s, n, -1)
    rates = generators @ stages
    return stages, frame + h * np.tensordot(tableau.b, rates, axes=1)


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
            growth = float(np.linalg.eigvalsh(system.generator(q0))[-1])
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
            h *= scale
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
        """``q_i = q(Z_i Z_i^T)`` on all nodes: preconditioned fixed point with Anderson's acceleration.

        None if it does not converge: the caller shortens the step.
        """
        tableau, system = gauss_tableau(self.stages), self.system
        mu = h * tableau.eigenvalues
        enough = _NEWTON_SHARE * self.tolerance
        q, best = guess, np.inf
        history_q: list[Array] = []
        history_f: list[Array] = []
        for _ in range(_NEWTON_ITERATIONS):
            stages, end = propagate(system.generator(q), h, frame)
            self.stats["nfev"] += self.stages
            self.stats["nlu"] += 1
            residual = system.observe(stages, gram) - q
            if not np.isfinite(residual).all():
                return None
            transformed = np.tensordot(tableau.inverse, residual, axes=1)
            update = np.tensordot(tableau.vectors, relaxation.solve(mu, transformed), axes=1).real
            size = h * float(np.sqrt(np.max(np.sum(update**2, axis=tuple(range(1, update.ndim))))))
            # The update of q changes Z by this much at most: once it is small the present q has converged.
            reference = h * float(np.sqrt(np.max(np.sum(q**2, axis=tuple(range(1, q.ndim))))))
            if size <= enough * min(1.0, reference) or size <= _NEWTON_FLOOR:
                return q, stages, end
            if size > 1e3 * best:
                return None
            best = min(best, size)
            history_q.append(q.ravel())
            history_f.append(update.ravel())
            q = _anderson(history_q, history_f).reshape(q.shape)
            if len(history_q) > _ANDERSON_DEPTH:
                del history_q[0], history_f[0]
        return None


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
