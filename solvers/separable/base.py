"""The base class of integrations: calls of the compiled loop until it ends, and its records."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from flowsim.solvers import loop
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.solution import SeparableSolution
from flowsim.solvers.solution import Status

Done = Callable[[SeparableSolution], bool]

#: Number of coordinates up to which all are loaded, with their Gram matrix.
LOAD_ALL = 640
#: Steps between two tests of progress and completion.
_LOOK = 100
#: How often a step is shortened at the end of a map.
_STALLED = 60


class NativeRun(ABC):
    """One integration: its state, and the records so far."""

    #: Number of passes over A.
    passes = 0
    #: Further counters of a run.
    facts: Mapping[str, Any] = MappingProxyType({})
    #: Reason why the map ends.
    failure: str | None = None
    stalled = 0

    def __init__(
        self,
        flow: SeparableFlow,
        t_end: float,
        tol: float,
        max_steps: int,
        progress: Callable[[float], None] | None,
        done: Done | None,
    ) -> None:
        self.flow, self.t_end, self.tol, self.max_steps = flow, float(t_end), tol, max_steps
        self.progress, self.done = progress, done
        #: time and step, and counters, at the indices of :mod:`flowsim.solvers.multistep.constants`
        self.clock = np.array([0.0, 0.0, self.t_end, 1.0])
        self.counts = np.zeros(6, dtype=np.int64)
        self.chunks: list[Any] = []

    @abstractmethod
    def begin(self) -> None:
        """Set up the workspace."""

    @abstractmethod
    def advance(self, budget: int) -> int:
        """Take up to `budget` steps, keep their records, and return the code of the loop."""

    def refresh(self) -> None:
        """Provide the data or tables that the loop lacks."""
        raise NotImplementedError

    def solve(self) -> SeparableSolution:
        began = time.perf_counter()
        self.begin()
        ended: Status | None = None
        while ended is None:
            before, h = len(self.chunks), float(self.clock[c.NEXT_STEP])
            budget = self.max_steps - int(self.counts[c.STEPS])
            if self.progress is not None or self.done is not None:
                budget = min(budget, _LOOK)
            self.counts[c.RECORDED] = 0
            status = self.advance(budget)
            if self.progress is not None:
                self.progress(float(self.clock[c.TIME]))
            if status == loop.COMPLETED:
                ended = Status.COMPLETED
            elif status in (loop.STEP_FLOOR, loop.NON_FINITE):
                if not self.chunks and self.clock[c.NEXT_STEP] < h:
                    continue  # the first step tried is as long as the run: more rejections than the loop allows
                ended = Status.NON_FINITE if status == loop.NON_FINITE else Status.STEP_FLOOR
            elif self.done is not None and self.done(self._solution(Status.COMPLETED, before, 0.0)):
                ended = Status.COMPLETED
            elif status == loop.REFRESH:
                self.refresh()
                if self.stalled > _STALLED and self.failure is None:
                    self.failure = "a coordinate has come to the end of its map"
                if self.failure is not None:
                    ended = Status.STOPPED
            elif self.counts[c.STEPS] >= self.max_steps:
                ended = Status.STEP_BUDGET
        return self._solution(ended, 0, time.perf_counter() - began)

    def _solution(self, status: Status, first: int, seconds: float) -> SeparableSolution:
        chunks, counts = self.chunks[first:], self.counts.tolist()
        if len(chunks) == 1:
            t, h = chunks[0].t, chunks[0].h
        else:
            t = np.concatenate([chunks[0].t[:1] if chunks else np.zeros(1), *(chunk.t[1:] for chunk in chunks)])
            h = np.concatenate([np.zeros(0), *(chunk.h for chunk in chunks)])
        stats = {
            "steps": counts[c.STEPS],
            "rejected": counts[c.REJECTED],
            "nfev": counts[c.EVALUATED],
            "njev": counts[c.MATRICES],
            "nlu": counts[c.MATRICES],
            "passes": self.passes,
            "seconds": seconds,
            **self.facts,
        }
        return SeparableSolution(self.flow, t, h, status, self.failure or status.value, stats, chunks)
