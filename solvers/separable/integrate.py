"""Integration of one flow, or of many in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from flowsim.solvers.separable.base import LOAD_ALL, Done, NativeRun
from flowsim.solvers.separable.distance_run import Distances
from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.multistep_run import Multistep
from flowsim.solvers.separable.screened_run import ScreenedRun
from flowsim.solvers.separable.solution import SeparableSolution


def integrate_separable(
    flow: SeparableFlow,
    t_end: float,
    *,
    tol: float = 1e-6,
    max_steps: int = 200_000,
    progress: Callable[[float], None] | None = None,
    done: Done | None = None,
) -> SeparableSolution:
    """Integrate from nu = 0 over [0, t_end].

    Parameters
    ----------
    flow : SeparableFlow
    t_end : float
        > 0, finite.
    tol : float
        Bound on the local error of half of every exponent, absolute; not below a few roundings of the exponents.
    max_steps : int
        Budget of accepted steps.
    progress : callable, optional
        Called with the time reached every few steps.
    done : callable (SeparableSolution) -> bool, optional
        Called every few steps with the steps since its last call; True completes the integration there.

    Returns
    -------
    SeparableSolution
        Never raises for a failed integration: the status says how it ended.
    """
    return _kind(flow)(flow, t_end, tol, max_steps, progress, done).solve()


def _kind(flow: SeparableFlow) -> type[NativeRun]:
    """The kind of run for a flow."""
    most, loads_all = SeparableFlow.MOST_WITH_LOSS, flow.loss is not None or flow.curves is not None
    if loads_all and flow.d > most:
        raise ValueError(f"a loss other than squares and a tabulated map take no more than {most} coordinates.")
    if flow.power > 0:
        return Distances
    return Multistep if loads_all or flow.d <= LOAD_ALL else ScreenedRun


def integrate_ensemble(
    flows: Sequence[SeparableFlow],
    t_end: Sequence[float],
    *,
    tol: float = 1e-6,
    max_steps: int = 200_000,
    workers: int | None = None,
    read: Callable[[SeparableSolution], Any] | None = None,
) -> list[Any]:
    """Integrate many flows in parallel: the compiled loop releases Python's lock.

    Parameters
    ----------
    flows : sequence of SeparableFlow
    t_end : sequence of float
        One per flow.
    tol, max_steps : as in :func:`integrate_separable`
    workers : int, optional
        Threads; the number of processors by default.
    read : callable (SeparableSolution) -> Any, optional
        Reduces each solution to the result to be kept, on the thread that computed it. To keep all steps of all flows,
        the default, allocates memory, which takes a fifth of the time.

    Returns
    -------
    list of SeparableSolution, or of the results of `read`
    """
    if len(flows) != len(t_end):
        raise ValueError(f"`t_end` must hold one time for each of the {len(flows)} flows; received {len(t_end)}.")

    results: dict[int, Any] = {}
    next_one = count()

    def work() -> None:
        # One task per thread, not per flow: submitting a task takes as long as a quarter of a flow.
        while (index := next(next_one)) < len(flows):
            solution = integrate_separable(flows[index], t_end[index], tol=tol, max_steps=max_steps)
            results[index] = solution if read is None else read(solution)

    threads = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for task in [pool.submit(work) for _ in range(threads)]:
            task.result()
    return [results[index] for index in range(len(flows))]
