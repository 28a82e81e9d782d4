"""The limit and the flow of one setting of the page."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flowsim.explore.controls import Controls
from flowsim.flows import gradient_flow
from flowsim.limits import SaddlePath
from flowsim.limits.horizons import BEYOND_LAST_JUMP, last_jump, limit_or_why
from flowsim.network import DiagonalNetwork
from flowsim.problem import Problem
from flowsim.results import Clock, Trajectory
from flowsim.studies import jump_table, one_sided
from flowsim.symbolic.clock import acceleration

#: Number of cached limits, which do not depend on alpha and the clock.
_KEPT = 64


@dataclass(frozen=True, eq=False)
class Shown:
    """The results of one setting."""

    problem: Problem
    controls: Controls
    path: SaddlePath | None  #: the limit of vanishing alpha
    without: str | None  #: the reason why there is none
    traj: Trajectory
    clock: Clock  #: clock of the abscissa: the requested one, or time where accelerated time is undefined (alpha = 1)
    rate: float  #: d accelerated time / dt
    code: str  #: the equivalent script
    seconds: float  #: computing time of the limit and the flow

    @property
    def jumps(self) -> list[dict[str, Any]]:
        """Predicted and measured jump times; none without a limit or without accelerated time."""
        return [] if self.path is None or self.rate == 1.0 else jump_table(self.traj, self.path)

    @property
    def notes(self) -> list[str]:
        """Remarks on this setting."""
        found = [self.without, None if self.path is None else one_sided(self.path)]
        if self.path is not None and not self.path.complete:
            found.append(self.path.message)
        if self.clock != self.controls.clock:
            found.append("accelerated time t / ln(1/alpha) needs alpha < 1: time is shown")
        return [note for note in found if note]


class Explorer:
    """A problem whose flows are computed, one setting at a time.

    Parameters
    ----------
    problem : Problem
        With a single target.
    source : str
        The Python expression that defines it.
    """

    def __init__(self, problem: Problem, source: str) -> None:
        if problem.n_targets != 1:
            raise ValueError(f"`target` must be a single column to be explored; received {problem.n_targets}.")
        self.problem, self.source = problem, source
        #: Weight decay beyond which no feature becomes active: the largest |gradient| at 0.
        self.largest_decay = float(np.abs(problem.gradient(np.zeros(problem.d))).max())
        # One thread at a time uses Numba, Matplotlib and SymPy.
        self.lock = threading.RLock()
        self._limit = lru_cache(maxsize=_KEPT)(self._limit_of)

    def share(self, weight_decay: float) -> float:
        """The fraction of :attr:`largest_decay`."""
        return weight_decay / (self.largest_decay or 1.0)

    def _limit_of(self, net: DiagonalNetwork) -> tuple[SaddlePath | None, str | None]:
        path, without = limit_or_why(net, self.problem)
        assert path is None or isinstance(path, SaddlePath)
        return path, without

    def show(self, controls: Controls) -> Shown:
        """The limit and the flow of one setting.

        Raises ValueError, flowsim.IntegrationError: for an invalid network, or a flow that cannot be computed; with the
        reason.
        """
        with self.lock:
            began = time.perf_counter()
            net, scale = controls.network, controls.scale
            path, without = self._limit(net)
            rate = acceleration(net, scale)
            last = last_jump(path)
            horizon = None if last is None else float(f"{BEYOND_LAST_JUMP * last * max(1.0, rate):.4g}")
            clock: Clock = "accelerated" if scale.gamma > 0 else "time"
            traj = gradient_flow(net, self.problem, horizon, alpha=controls.alpha, clock=clock)
            seconds = time.perf_counter() - began
        drawn: Any = clock if controls.clock == "accelerated" else controls.clock
        code = controls.code(self.source, horizon, clock)
        return Shown(self.problem, controls, path, without, traj, drawn, rate, code, seconds)
