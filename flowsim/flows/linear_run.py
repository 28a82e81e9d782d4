"""A run of the two-layer linear flow: the moving part of the weights at any time, whichever method made it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowsim.flows.linear_system import TwoLayerSystem
from flowsim.solvers import ArcLength, InitialValueProblem, Solution, Status, integrate
from flowsim.solvers.gauss import gauss_tableau, lagrange_weights
from flowsim.solvers.quasilinear import Graded, Step, Steps

__all__ = ["LinearRun", "NativeRun", "ScipyRun", "one_thread", "run_native", "run_scipy"]

Array = NDArray[np.float64]
#: states ``Z exp(-shift)`` (P, N, k) and their shifts (P,) to values (P,)
Speed = Callable[[Array, Array], Array]
#: looked at after every step: one state, its shift, the integral of its law so far; a text ends the run
Watch = Callable[[Array, float, Array], str | None]
#: looked at after every step with a run of that step alone; True ends the run
Done = Callable[["LinearRun"], bool]

#: Rows of a stage system up to which one BLAS thread is faster than several.
_SMALL_SYSTEM = 2000
#: States whose largest direction is below exp(this) are given with their scale apart.
SMALLEST_PLAIN_LOG = -100.0
#: Unknowns up to which SciPy's implicit methods are given the analytic Jacobian as an array.
_LARGEST_JACOBIAN = 3000


class LinearRun(Protocol):
    """``Z = (U_1; V)`` along a run."""

    @property
    def t(self) -> Array: ...
    @property
    def status(self) -> Status: ...
    @property
    def message(self) -> str: ...
    @property
    def stats(self) -> dict[str, Any]: ...
    @property
    def law(self) -> Array | None:
        """Integral of ``-2 Z^T J K Z / alpha^2`` up to every time of t, (T, k, k); None without noise."""

    def __call__(self, times: Array) -> tuple[Array, Array]:
        """``Z exp(-shift)`` (P, N, k) and the shifts (P,)."""

    @property
    def arclength(self) -> ArcLength: ...


@dataclass(eq=False)
class NativeRun:
    """Steps of :class:`flowsim.solvers.quasilinear.Steps`."""

    start: Graded
    steps: list[Step] = field(default_factory=list)
    speeds: list[Array] = field(default_factory=list)
    laws: list[Array] = field(default_factory=list)
    status: Status = Status.COMPLETED
    message: str = ""
    stats: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def t(self) -> Array:
        return np.array([self.steps[0].t if self.steps else 0.0, *(step.t + step.h for step in self.steps)])

    @property
    def law(self) -> Array | None:
        return np.array(self.laws) if self.laws else None

    def __call__(self, times: Array) -> tuple[Array, Array]:
        out = np.empty((len(times), self.start.frame.shape[0], self.start.mix.shape[1]))
        shifts = np.empty(len(times))
        index = np.searchsorted(self.t, times, side="left").clip(0, len(self.steps))
        for number in np.unique(index):
            chosen = np.flatnonzero(index == number)
            at_end = times[chosen] >= self.t[number]
            ended = chosen[at_end]
            state = self.steps[number - 1].end if number else self.start
            shifts[ended] = scale_of(state)
            out[ended] = state.value(scale_of(state))
            inside = chosen[~at_end]
            if len(inside):
                step = self.steps[number - 1]
                shifts[inside] = scale_of(step.start)
                frames = step.frames((times[inside] - step.t) / step.h)
                out[inside] = frames @ step.start.right(scale_of(step.start))
        return out, shifts

    @cached_property
    def arclength(self) -> ArcLength:
        return ArcLength.of_samples(self.t, np.array([step.h for step in self.steps]), np.array(self.speeds).ravel())


@dataclass(eq=False)
class ScipyRun:
    """A run of one of SciPy's methods; its state is the frame, behind a right factor that never changes."""

    solution: Solution
    shape: tuple[int, int]
    mix: Array
    speed: Speed
    law: Array | None = None

    @property
    def t(self) -> Array:
        return self.solution.t

    @property
    def status(self) -> Status:
        return self.solution.status

    @property
    def message(self) -> str:
        return self.solution.message

    @property
    def stats(self) -> dict[str, Any]:
        return self.solution.stats

    def __call__(self, times: Array) -> tuple[Array, Array]:
        return self.solution(times).reshape(-1, *self.shape) @ self.mix, np.zeros(len(times))

    @cached_property
    def arclength(self) -> ArcLength:
        return ArcLength.along(self.t, lambda times: self.speed(*self(times)))


def scale_of(state: Graded) -> float:
    """0, or the logarithm of the largest direction where squares of that would leave the range of floats."""
    top = float(state.logs.max())
    return top if top < SMALLEST_PLAIN_LOG else 0.0


def run_native(
    system: TwoLayerSystem,
    start: Graded,
    log_alpha: float,
    t_end: float,
    *,
    length_end: float | None,
    speed: Speed,
    watch: Watch,
    tolerance: float,
    max_steps: int,
    progress: Callable[[float], None] | None,
    done: Done | None = None,
) -> NativeRun:
    """Gauss steps to `t_end`, or until the arc length reaches `length_end`.

    Parameters
    ----------
    speed : callable
        ``d arclength/dt``.
    """
    run = NativeRun(start)
    integrator = Steps(system, start, tolerance=tolerance, max_steps=max_steps)
    noisy = bool(system.damping.any())
    weight = system.signature * system.damping
    law = np.zeros((start.mix.shape[1],) * 2)
    if noisy:
        run.laws.append(law)
    nodes = None
    covered = 0.0
    began = time.perf_counter()
    for step, stages in integrator.until(t_end if length_end is None else np.inf):
        shift = scale_of(step.start)
        right = step.start.right(shift)
        sampled = np.concatenate([step.start.frame[None] @ right, stages @ right, step.end.value(shift)[None]])
        if nodes is None:
            nodes = lagrange_weights(step.nodes, ArcLength.nodes())
        speeds = np.maximum(nodes @ speed(sampled, np.full(len(sampled), shift)), 0.0)
        run.steps.append(step)
        run.speeds.append(speeds)
        if noisy:
            inside = sampled[1:-1]
            weights = (step.h * gauss_tableau(len(inside)).b)[:, None] * weight
            change = np.einsum("sna,sn,snb->ab", inside, weights, inside, optimize=True)
            law = law - 2 * np.exp(2 * (shift - log_alpha)) * change
            run.laws.append(law)
        if (found := watch(step.end.value(scale_of(step.end)), scale_of(step.end), law)) is not None:
            integrator.status, run.message = Status.STOPPED, found
            break
        if progress is not None:
            progress(step.t + step.h)
        if done is not None and done(NativeRun(step.start, [step], [speeds])):
            break
        if length_end is not None:
            covered += step.h * float(speeds @ _half_weights())
            if covered >= length_end:
                break
    run.status = integrator.status
    run.message = run.message or run.status.value
    run.stats = {**integrator.stats, "seconds": time.perf_counter() - began}
    return run


def run_scipy(
    system: TwoLayerSystem,
    start: Graded,
    log_alpha: float,
    t_end: float,
    *,
    length_end: float | None,
    speed: Speed,
    watch: Watch,
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    progress: Callable[[float], None] | None,
    done: Done | None = None,
) -> ScipyRun:
    """One of SciPy's methods on the frame of Z; nothing is conserved but to the tolerance."""
    frame = start.frame * np.exp(start.logs)
    shape, mix = frame.shape, start.mix
    gram = mix @ mix.T
    still = np.zeros((mix.shape[1],) * 2)
    noisy = bool(system.damping.any())

    def rhs(_: float, y: Array) -> Array:
        Z = y.reshape(shape)
        return (system.generator(system.observe(Z, gram)) @ Z).ravel()

    def check(_: float, y: Array) -> str | None:
        return None if noisy else watch(y.reshape(shape) @ mix, 0.0, still)

    covered = 0.0

    def over(begin: float, end: float, piece: Callable[[Array], Array]) -> bool:
        nonlocal covered
        times = np.array([begin, end])
        step = Solution(times, np.asarray(piece(times)).T, [piece], Status.COMPLETED, "", {})
        if done is not None and done(ScipyRun(step, shape, mix, speed)):
            return True
        if length_end is None:
            return False

        def along(times: Array) -> Array:
            return speed(piece(times).T.reshape(-1, *shape) @ mix, np.zeros(len(times)))

        covered += ArcLength.of_step(begin, end, along)
        return covered >= length_end

    jacobian = (lambda _, y: system.jacobian(y.reshape(shape), gram)) if frame.size <= _LARGEST_JACOBIAN else None
    solution = integrate(
        InitialValueProblem(rhs=rhs, y0=frame.ravel(), jacobian=jacobian, check=check),
        t_end,
        method=method,
        rtol=rtol,
        atol=atol * min(1.0, float(np.abs(frame).max())),
        max_steps=max_steps,
        progress=progress,
        done=over if length_end is not None or done is not None else None,
    )
    run = ScipyRun(solution, shape, mix, speed)
    if noisy:
        run.law = _law_along(run, system, log_alpha)
    return run


def _law_along(run: ScipyRun, system: TwoLayerSystem, log_alpha: float) -> Array:
    """The integral of ``-2 Z^T J K Z / alpha^2`` by Gauss quadrature on every step."""
    weight = system.signature * system.damping
    total = [np.zeros((run.mix.shape[1],) * 2)]
    for begin, end in zip(run.t[:-1], run.t[1:], strict=True):
        Z, _ = run(begin + (end - begin) * ArcLength.nodes())
        rule = np.exp(-2 * log_alpha) * (end - begin) * _half_weights()
        total.append(total[-1] - 2 * np.einsum("sna,sn,snb->ab", Z, rule[:, None] * weight, Z, optimize=True))
    return np.array(total)


def _half_weights() -> Array:
    return np.polynomial.legendre.leggauss(len(ArcLength.nodes()))[1] / 2


@contextlib.contextmanager
def one_thread(rows: int) -> Iterator[None]:
    """Threads cost more than they give on systems this small, sixty times more on a busy machine."""
    if rows > _SMALL_SYSTEM:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
