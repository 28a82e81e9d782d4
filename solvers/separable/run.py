"""Choice of the kind of run for a flow."""

from __future__ import annotations

from collections.abc import Callable

from flowsim.solvers.separable.base import LOAD_ALL, Done, NativeRun
from flowsim.solvers.separable.distance_run import Distances
from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.multistep_run import Multistep
from flowsim.solvers.separable.screened_run import ScreenedRun
from flowsim.solvers.separable.solution import SeparableSolution


def run_of(
    flow: SeparableFlow,
    t_end: float,
    tol: float,
    max_steps: int,
    progress: Callable[[float], None] | None = None,
    done: Done | None = None,
) -> SeparableSolution:
    """The solution over [0, t_end], by the appropriate kind of run."""
    most = SeparableFlow.MOST_WITH_LOSS
    if (flow.loss is not None or flow.curves is not None) and flow.d > most:
        raise ValueError(f"a loss other than squares and a tabulated map take no more than {most} coordinates.")
    kind: type[NativeRun] = ScreenedRun
    if flow.power > 0:
        kind = Distances
    elif flow.d <= LOAD_ALL or flow.loss is not None or flow.curves is not None:
        kind = Multistep
    return kind(flow, t_end, tol, max_steps, progress, done).solve()
