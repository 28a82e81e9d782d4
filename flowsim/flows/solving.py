"""Choice of the integrator of a flow, and a second attempt where errors of the first would have decided the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from flowsim.arrays import Array
from flowsim.flows.coordinates import Coordinates, NativeCoordinates, SteppedCoordinates
from flowsim.flows.flow_options import FlowOptions
from flowsim.solvers import SeparableSolution, Solution, integrate

#: Tolerance of the second attempt.
_FINEST = 1e-10


class Watch(Protocol):
    """A callable on new steps; True ends the run."""

    @property
    def is_needed(self) -> bool: ...

    def __call__(self, steps: Solution | SeparableSolution) -> bool: ...

    def after(self, start: float, stop: float, piece: Callable[[Array], Array]) -> bool: ...


def solve(
    coordinates: Coordinates,
    horizon: float,
    options: FlowOptions,
    progress: Callable[[float], None] | None = None,
    watch: Watch | None = None,
) -> Solution | SeparableSolution:
    rtol, atol, max_steps = options.rtol, options.atol, options.max_steps
    watching = watch is not None and watch.is_needed
    if options.method == "native":
        return cast(NativeCoordinates, coordinates).integrate(
            horizon, rtol=rtol, max_steps=max_steps, progress=progress, done=watch if watching else None
        )
    stepped = cast(SteppedCoordinates, coordinates)

    def run(rtol: float, atol: float) -> Solution:
        local_rtol, local_atol = stepped.tolerances(rtol, atol)
        return integrate(
            stepped.ivp,
            horizon,
            method=options.method,
            rtol=local_rtol,
            atol=local_atol,
            max_steps=max_steps,
            progress=progress,
            done=watch.after if watch is not None and watching else None,
        )

    solution = run(rtol, atol)
    if stepped.needs_finer_steps and rtol > _FINEST and not watching:
        solution = run(_FINEST, atol * _FINEST / rtol)
    return solution
