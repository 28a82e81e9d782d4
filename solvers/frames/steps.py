r"""The integration: collocation where the product moves, plateau steps at rest, explicit steps from mild starts.

The unknowns of a collocation step are the values of G at the Gauss nodes, and errors multiply: a wrong G gives
``(1 + e) R Z_0``, so that directions that are tiny, or absent, have a relative error and are never excited by large
ones. The nonlinear equation ``G_i = G(Z_1 Z_2^T at node i)`` is solved by a fixed point preconditioned with the
:mod:`.relaxation` of the start, accelerated (Anderson), and where the generator itself is stiff by Newton's method with
GMRES. The error of a step is the defect at its ends of the polynomial through the nodes, filtered by the relaxation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames import collocation_march as marching
from flowsim.solvers.frames import step_control
from flowsim.solvers.frames.collocation import damping_of, propagate, propagation
from flowsim.solvers.frames.explicit import Limits, integrate, longest_step, method
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.iteration import solvers
from flowsim.solvers.frames.nonlinear import StageEquations, compile_in_advance
from flowsim.solvers.frames.plateau import PlateauStep
from flowsim.solvers.frames.problem import FrameProblem, rates_of
from flowsim.solvers.frames.resting import BELOW_ROUNDING, NEAR_REST, LongSteps
from flowsim.solvers.frames.solution import CollocationStep, ExplicitStep, FrameSolution, StepChain
from flowsim.solvers.gauss import gauss_tableau, lagrange_weights
from flowsim.solvers.solution import Status

#: Six stages, of order 12 at the steps and 7 in between, while the eliminated system is small; three beyond.
_STAGES, _FEWER_STAGES, _LARGEST_SYSTEM = 6, 3, 150
#: Part of the growth of pairs that is over steps at their limit, inverted.
_FEW = 10.0
#: Logarithm above which a direction acts on the product, and so on the error estimate of a step.
_ANSWERED = -3.0
#: Twice the largest logarithm of ratios of parts of Z of which the smallest keep eight digits beside the largest.
_OF_A_SIZE = 20.0
#: The explicit method: part of the tolerance for its estimate, and the relative error that is rounding;
#: largest number of steps at the limit of stability; steps per call, also if each is examined; stored entries.
_EXPLICIT_SHARE, _EXPLICIT_FLOOR = 0.05, 1e-14
_AFFORDABLE, _MANY, _LOOKED_AT, _ENTRIES = 200.0, 4096, 8, 1 << 22
#: Small starts: logarithm of their smallest part; the least growth until columns are graded again, and the part of the
#: tolerance that rounding may take of shrinking parts; the growth in longest steps and the time at rest, in times of
#: relaxation, up to which the explicit method is preferred (measured), and the factor of these times.
_SMALLEST_LOG, _LEAST_SPAN, _ROUNDED, _GROWN_STEPS, _AT_REST, _RELAXING = -150.0, 1.0, 0.01, 100.0, 1200.0, 1.5
#: Collocation steps marched together.
_MARCHED = 64


def integrate_frame(
    problem: FrameProblem, start: Frame, t_end: float, *, since: float = 0.0, tol: float = 1e-6,
    max_steps: int = 200_000, progress: Callable[[float], None] | None = None,
    done: Callable[[FrameSolution], bool] | None = None,
) -> FrameSolution:  # fmt: skip
    """Integrate over [since, t_end].

    Parameters
    ----------
    tol : float
        Bound on the relative error of Z in a step.
    max_steps : int
    progress : callable, optional
        Called with the time reached.
    done : callable (FrameSolution) -> bool, optional
        Called after every step with that step; True ends the integration.

    Returns
    -------
    FrameSolution
        Never raises for a failed integration: the status says how it ended.
    """
    run = _Run(problem, start, max(tol, 1e-13), since, t_end)
    began = time.perf_counter()
    while run.t < t_end and run.status is Status.COMPLETED:
        seen = len(run.steps)
        if seen >= max_steps:
            run.status = Status.STEP_BUDGET
            break
        if run.is_mild and run.explicit(min(max_steps - seen, _MANY if done is None else _LOOKED_AT)):
            if progress is not None:
                progress(run.t)
            if done is not None and done(run.since(seen)):
                break
            continue
        run.compile_in_advance()
        run.drop_dependent()
        most = min(max_steps - seen, _MARCHED if done is None else _LOOKED_AT)
        steps = run.long() or (run.marched(most) if run.is_compiled else run.collocation())
        for step in steps:
            run.take(step)
        if not steps:
            break
        if progress is not None:
            progress(run.t)
        if done is not None and done(run.since(seen)):
            break
    run.stats["seconds"] = time.perf_counter() - began
    return FrameSolution(start, run.steps, np.array(run.times), run.status, run.status.value, run.stats)


class _Run:
    """State of the integration."""

    def __init__(self, problem: FrameProblem, start: Frame, tol: float, since: float, t_end: float) -> None:
        self.problem, self.frame, self.tol, self.t_end = problem, start, tol, t_end
        R, p = problem.shape
        self.count = _STAGES if _STAGES * p <= _LARGEST_SYSTEM else _FEWER_STAGES
        self.tableau = gauss_tableau(self.count)
        self.nodes = np.concatenate([[0.0], self.tableau.c, [1.0]])
        #: time, the next length, and the error of the last marched step over the tolerance
        self.t, self.h, self.missed = since, 0.0, 0.0
        self.steps: list[CollocationStep | ExplicitStep | PlateauStep] = []
        self.times = [since]
        self.status = Status.COMPLETED
        counted = ("steps", "rejected", "nfev", "njev", "nlu", "plateau_steps", "explicit_steps", "rests", "seconds")
        self.stats: dict[str, Any] = dict.fromkeys(counted, 0)
        self.G = self._value(start)
        at_zero = problem.coupling.value(np.zeros((R, p)))
        curvature = float(problem.coupling.curvature_rows.max() * problem.coupling.curvature_columns.max())
        size = max(float(np.linalg.norm(at_zero, 2)), 1e-300)
        #: logarithm of the size of grown Z
        self.scale = 0.5 * np.log(size / curvature)
        there = start.logs[start.logs > -np.inf]
        growth = self.scale - float(there.min(initial=self.scale))
        # With pairs, active directions take long steps, and few others are at their limit.
        self.linear = _longest_linear_step(tol, self.count, growth / (_FEW if start.is_paired else 1.0))
        #: Z, while the explicit method is used, and its growth after which columns must be graded again
        self.halves: Array | None = None
        self.span = np.inf
        #: the orthogonal matrix by which they were, if they were
        self.turn: Array | None = None
        self.chain: StepChain | None = None
        #: whether the explicit method may still be cheaper
        self.is_mild = True
        #: whether compiled steps are for it
        self.is_compiled = problem.linear is not None and start.is_paired

    def compile_in_advance(self) -> None:
        """Start to compile collocation steps."""
        if self.is_compiled:
            marching.compile_in_advance()
        else:
            compile_in_advance(self.problem.linear is not None)

    def explicit(self, most: int) -> bool:
        """Take steps of the explicit method, if it suits the state; returns whether any was taken."""
        linear = self.problem.linear
        if self.halves is None and linear is not None:
            self.halves = self._explicit_start()
        if linear is None or self.halves is None:
            self.is_mild = False
            return False
        Z, self.turn = _graded(self.halves, self.turn) if self.span < np.inf else (self.halves, None)
        limits = Limits(
            _EXPLICIT_SHARE * self.tol, _EXPLICIT_FLOOR, longest_step(self.tol), _AFFORDABLE, self.span,
            max(1, min(most, _ENTRIES // Z.size)),
        )  # fmt: skip
        course = integrate(method(), linear, self.problem.uniform or 0.0, Z, self.t, self.t_end, self.h, limits)
        count = len(course.t) - 1
        self.stats["nfev"] += course.evaluations
        self.stats["rejected"] += course.rejected
        self.stats["steps"] += count
        self.stats["explicit_steps"] += count
        self.chain = self.chain or StepChain(self.problem, self.frame)
        lengths = np.diff(course.t).tolist()
        for t, h, *ends in zip(course.t[:-1].tolist(), lengths, course.states[:-1], course.states[1:], strict=True):
            self.steps.append(ExplicitStep(t, h, self.chain, len(self.chain.steps)))
            self.chain.steps.append((h, *ends, self.turn))
        self.times += course.t[1:].tolist()
        self.t, self.halves, self.h, self.is_mild = float(course.t[-1]), course.states[-1], course.h, course.h > 0
        if not self.is_mild and self.t < self.t_end and count:
            last = self.steps[-1]
            self.frame, self.h = last.end, last.h
            self.G = self._value(self.frame)
        return count > 0

    def _explicit_start(self) -> Array | None:
        """Z for the explicit method, if all parts of the state are present and of similar size; sets :attr:`span`.

        Shrinking parts must not be lost in the rounding of growing ones, beside which they keep eight digits up to
        some growth. If each direction has a column of its own, graded columns keep them beyond it.
        """
        frame = self.frame
        if not frame.is_paired or not np.isfinite(frame.minus_logs).all():
            return None
        smallest = min(frame.logs[-1], frame.minus_logs.min())
        if frame.neutral_log > -np.inf:
            smallest = min(smallest, frame.neutral_log)
        largest = max(frame.scale, self.scale)
        if not (2 * (frame.scale - smallest) < _OF_A_SIZE and -_OF_A_SIZE < largest < _OF_A_SIZE):
            return None
        Z = np.concatenate(frame.value())
        if 2 * (largest - smallest) < _OF_A_SIZE:
            return Z
        if Z.shape[0] > Z.shape[1] or smallest < _SMALLEST_LOG or self._explicit_is_long(largest - smallest):
            return None
        self.span = max(_LEAST_SPAN, 0.5 * math.log(_ROUNDED * self.tol / np.finfo(float).eps))
        sizes = np.log(np.linalg.norm(_graded(Z, None)[0], axis=0))
        return Z if 2 * (frame.scale - sizes.min()) < _OF_A_SIZE else None

    def _explicit_is_long(self, growth: float) -> bool:
        """Whether the explicit method would take long from a small start: for its growth, or at rest for stability."""
        signal, rows, columns = self.problem.linear  # type: ignore[misc]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            beta = signal / (rows[:, None] * columns)
        largest = float(np.linalg.norm(beta, 2)) if np.isfinite(beta).all() else np.inf
        rate = _RELAXING * rows.max() * columns.max() * largest
        rest = self.t_end - self.t - growth / float(np.linalg.norm(signal))
        return not (growth < _GROWN_STEPS * longest_step(self.tol) and rest * rate < _AT_REST)

    @cached_property
    def resting(self) -> LongSteps:
        return LongSteps(self.problem, self.tableau, self.tol, self.linear, self.scale, self.stats)

    @cached_property
    def equations(self) -> StageEquations:
        """Of ordinary steps."""
        return StageEquations(self.problem, self.tableau, self.tol, self.stats)

    def since(self, number: int) -> FrameSolution:
        """The steps from one on."""
        steps, times = self.steps[number:], np.array(self.times[number:])
        return FrameSolution(steps[0].start, steps, times, Status.COMPLETED, "", {})

    def take(self, step: CollocationStep | PlateauStep) -> None:
        self.steps.append(step)
        self.stats["steps"] += 1
        self.t = self.t_end if step.t + step.h >= self.t_end * (1 - 1e-15) else step.t + step.h
        self.times.append(self.t)
        self.frame = step.end
        self.G = step.G[-1] if isinstance(step, CollocationStep) else self._value(step.end)

    def _value(self, frame: Frame) -> Array:
        first, second = frame.value()
        return np.ascontiguousarray(self.problem.coupling.value(first @ second.T))

    def long(self) -> list[CollocationStep | PlateauStep] | None:
        """Steps over which what has grown comes to rest, if that is where the state is."""
        steps = self.resting.take(self.t, self.t_end - self.t, self.frame, self.G)
        if steps:
            self.missed = 0.0
        return steps

    def _first_length(self) -> float:
        size = float(np.linalg.norm(self.G)) + float(self.problem.damping_rows.max(initial=0.0))
        return 1.0 / size if size > 0 else self.t_end

    def marched(self, most: int) -> list[CollocationStep | PlateauStep]:
        """Accepted steps, no more than `most`; if there are none the status says why."""
        before = self.steps[-1] if self.steps and isinstance(self.steps[-1], CollocationStep) else None
        resting, linear, tableau = self.resting, self.problem.linear, self.tableau
        uniform = self.problem.uniform or 0.0
        control = step_control.Control(
            self.linear, self.scale + _ANSWERED, resting.waits, resting.apart, NEAR_REST, resting.patience,
            resting.grown,
        )  # fmt: skip
        # Rows of more directions than the start has columns are looked at after every step.
        rows, columns = self.frame.rows.shape
        found = marching.march(
            marching.Equations(
                marching.method_of(tableau),
                propagation,
                solvers(),
                linear,  # type: ignore[arg-type]
                uniform,
                self.tol,
            ),
            control,
            self.frame.arrays,
            self.G,
            (before.h, before.G) if before else (0.0, np.zeros((self.count + 2, *self.G.shape))),
            marching.MarchPosition(
                self.t, self.t_end, self.h or self._first_length(), self.equations.careful, self.missed
            ),
            most if rows <= columns else 1,
        )
        self.h, self.equations.careful, self.missed = found.place.h, found.place.careful, found.place.missed
        self.stats["rejected"] += found.counts.rejected
        self.stats["njev"] += found.counts.begun
        self.stats["nfev"] += found.counts.iterations * self.count
        self.stats["nlu"] += found.counts.iterations
        if found.code != marching.GOES_ON:
            self.status = Status.STEP_FLOOR if found.code == marching.STEP_FLOOR else Status.NON_FINITE
        steps: list[CollocationStep | PlateauStep] = []
        start, t = self.frame, self.t
        ends = list(zip(*found.frames, strict=True))[1:]
        for h, is_stiff, G, each in zip(found.lengths.tolist(), found.stiff, found.G, ends, strict=True):
            end, answered = Frame(*each), self.tol if is_stiff else 0.0
            steps.append(CollocationStep(t, h, start, end, self.nodes, G, self.problem, answered))
            start, t = end, t + h
        return steps

    def collocation(self) -> list[CollocationStep | PlateauStep]:
        """One accepted step, of any frame and coupling; if there is none the status says why."""
        self.equations.begin(self.frame, self.G, self.resting.waits)
        growth = max(self.equations.growth, self.equations.turning(self.frame, self.G, self.scale + _ANSWERED))
        limit = self.linear / growth if growth > 0 else np.inf
        if not self.h:
            self.h = min(limit, self._first_length())
        retry, failed = False, 0
        h, left = self.h, self.t_end - self.t
        while True:
            h = min(h, limit, left)
            if not h > step_control.SMALLEST_STEP * max(self.t, np.finfo(float).tiny):
                self.status = Status.STEP_FLOOR
                return []
            guess = self._guess(h, retry)
            G = self.equations.solve(guess, h)
            if G is None:
                self.stats["rejected"] += 1
                h *= step_control.NEWTON_CUT
                retry = True
                continue
            damping = damping_of(self.tableau, h, *rates_of(self.problem))
            columns = self.frame.columns()
            first, second = (np.ascontiguousarray(each) for each in columns)
            first, second = propagate(G, h, damping, first, second)[1]
            end = self.frame.advanced(first, second, (self.problem.uniform or 0.0) * h)
            G0, G1 = self.equations.ends(G) or (self.G, self._value(end))
            ratio, stiff, scale = step_control.error_and_factor(
                self.equations.defects(G, G0, G1, h), self.tol, self.count
            )
            if not ratio <= 1.0:
                self.stats["rejected"] += 1
                # Where errors of the step before relax, the observed order is lower: reduce the step by increasing
                # factors.
                failed += 1
                h *= max(scale * 0.5 ** (failed - 1), step_control.LARGEST_CUT)
                retry = True
                continue
            break
        if not all(np.isfinite(half).all() for half in (end.A, end.B)):
            self.status = Status.NON_FINITE
            return []
        self.h = h * (min(scale, step_control.CAUTIOUS_GROWTH) if retry else scale)
        G = np.concatenate([G0[None], G, G1[None]])
        answered = self.tol if stiff else 0.0
        return [CollocationStep(self.t, h, self.frame, end, self.nodes, G, self.problem, answered)]

    def drop_dependent(self) -> None:
        """Drop rows below rounding: with more directions than columns of the start they are dependent."""
        frame = self.frame
        if int(np.sum(frame.logs > -np.inf)) <= frame.rows.shape[1]:
            return
        with np.errstate(invalid="ignore"):
            gaps = np.flatnonzero(frame.logs[:-1] - frame.logs[1:] > BELOW_ROUNDING)
        for last in gaps:
            self.frame = self.frame.separated(int(last) + 1)

    def _guess(self, h: float, retry: bool) -> Array:
        """A guess of G at the nodes: by the last step's polynomial where that is safe, else G at the start."""
        last = self.steps[-1] if self.steps else None
        if retry or not isinstance(last, CollocationStep) or h > 1.5 * last.h:
            return np.repeat(self.G[None], self.count, axis=0)
        use = slice(self.count - 1, self.count + 2)
        weights = lagrange_weights(last.nodes[use], 1.0 + h / last.h * self.tableau.c)
        return np.tensordot(weights, last.G[use], axes=1)


def _graded(Z: Array, turn: Array | None) -> tuple[Array, Array]:
    """``Z Q``, Q orthogonal, with no part of a column along the columns before it, which may be larger; ``turn Q``."""
    left, triangle = np.linalg.qr(Z)
    Q, lower = np.linalg.qr(triangle.T)
    return np.ascontiguousarray(left @ lower.T), Q if turn is None else turn @ Q


@cache
def _longest_linear_step(tolerance: float, stages: int, growth: float) -> float:
    """Largest x for which the method's exp(x), an (s, s) Pade approximant, has an error of its part of the tolerance.

    The errors of the steps over a growth by ``exp(growth)`` add up: the part of one step is ``x / growth``.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2 * stages + 2)))])
    log_constant = 2 * log_factorial[stages] - log_factorial[2 * stages] - log_factorial[2 * stages + 1]
    order = 2 * stages + 1
    whole = (np.log(tolerance) - log_constant) / order
    shared = (order * whole - np.log(max(growth, 1e-300))) / (order - 1)
    return float(np.exp(min(whole, shared)))
