"""Choice of the integrator of a flow, its end by events, and a second attempt where errors decided the outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.coordinates import Coordinates
from flowsim.flows.dense import DenseOutput
from flowsim.flows.event_location import search
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.transversal import FINEST
from flowsim.results import Clock
from flowsim.results.events import Event
from flowsim.solvers import SeparableSolution, Solution, Status
from flowsim.solvers.time_changes import integrate_in_log_time, integrate_in_time


class Watcher:
    """Called with new steps: True once a clock has reached its end, or a terminal event has occurred."""

    def __init__(self, run: DenseOutput, limit: tuple[Clock, float] | None, events: Sequence[Event]) -> None:
        self.run, self.limit = run, limit
        self.terminal = [event for event in events if event.terminal]
        self.reached = 0.0
        #: whether a terminal event ended the run before its end
        self.stopped = False

    @property
    def is_needed(self) -> bool:
        return bool(self.terminal) or self.limit is not None

    def __call__(self, steps: Solution | SeparableSolution) -> bool:
        clock, end = self.limit or ("arclength", math.inf)
        # Only events and the arc length depend on earlier steps.
        self.run = self.run.after(steps) if self.terminal or clock == "arclength" else replace(self.run, solution=steps)
        self.reached = float(self.run.steps().on(clock)[-1])
        ended = bool(self.terminal) and search(self.run, self.terminal, self.limit)[1] is not None
        self.stopped = ended and self.reached < end
        return ended or self.reached >= end

    def after(self, start: float, stop: float, piece: Callable[[Array], Array]) -> bool:
        """The same for one step of SciPy's methods."""
        t = np.array([start, stop])
        return self(Solution(t, np.asarray(piece(t)).T, [piece], Status.COMPLETED, "", {}))


def solve(
    coordinates: Coordinates,
    horizon: float,
    options: FlowOptions,
    progress: Callable[[float], None] | None = None,
    watch: Watcher | None = None,
) -> Solution | SeparableSolution:
    rtol, atol, max_steps = options.rtol, options.atol, options.max_steps
    watching = watch is not None and watch.is_needed
    if options.method == "native":
        return coordinates.integrate(
            horizon, rtol=rtol, max_steps=max_steps, progress=progress, done=watch if watching else None
        )

    def run(rtol: float, atol: float) -> Solution:
        local_rtol, local_atol = coordinates.tolerances(rtol, atol)
        return (integrate_in_log_time if coordinates.starts_fast(horizon) else integrate_in_time)(
            coordinates.ivp,
            horizon,
            method=options.method,
            rtol=local_rtol,
            atol=local_atol,
            max_steps=max_steps,
            progress=progress,
            done=watch.after if watch is not None and watching else None,
        )

    solution = run(rtol, atol)
    if coordinates.needs_finer_steps and rtol > FINEST and not watching:
        solution = run(FINEST, atol * FINEST / rtol)
    return solution
