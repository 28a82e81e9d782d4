"""The solution that an integrator returns, and how it ended."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array


def places(t: Array, h: Array, times: Array) -> tuple[NDArray[np.intp], Array]:
    """The steps of lengths h that contain times (at an end the later one), and the positions in them, 0 to 1."""
    if len(h) == 0:
        return np.zeros(len(times), dtype=np.intp), np.zeros(len(times))
    step = np.clip(np.searchsorted(t, times, side="right") - 1, 0, len(h) - 1)
    return step, np.where(times >= t[-1], 1.0, np.clip((times - t[step]) / h[step], 0.0, 1.0))


class Status(enum.Enum):
    """How an integration ended; the value is the message, with what to try."""

    COMPLETED = "reached the end of the interval"
    STOPPED = "stopped by the caller's check"
    STEP_BUDGET = "the step budget is spent; allow more with `max_steps`, loosen `rtol`, or shorten `t_end`"
    STEP_FLOOR = "the step fell to the spacing of floats; loosen `rtol` or try another `method`"
    NON_FINITE = "the state left the range of floats; try another `method` or a tighter `rtol`"
    REFUSED = "the method failed to take a step; try another `method` or other tolerances"

    @property
    def success(self) -> bool:
        return self is Status.COMPLETED


@dataclass(frozen=True, eq=False)
class Solution:
    """The steps taken and a continuous extension over them.

    Attributes
    ----------
    t : array (T,)
        0 and the end of every step.
    y : array (T, N)
    pieces : sequence of callable
        One continuous extension per step, mapping times (K,) to states (N, K).
    status : Status
    message : str
        The status's own message, or the check's.
    stats : dict
        steps, rejected (None where the method does not report it), nfev, njev, nlu, seconds.
    """

    t: Array
    y: Array
    pieces: Sequence[Callable[[Array], Array]]
    status: Status
    message: str
    stats: dict[str, Any]

    @property
    def h(self) -> Array:
        """Lengths of the steps."""
        return np.diff(self.t)

    def at_steps(self, step: NDArray[np.intp], theta: Array) -> Array:
        """States at positions `theta`, 0 to 1, of the steps `step`, shape (K, N)."""
        return self._states(step, self.t[step] + theta * self.h[step])

    def _states(self, step: NDArray[np.intp], times: Array) -> Array:
        """States at times of steps: one call for every step."""
        out = np.empty((len(times), self.y.shape[1]))
        order = np.argsort(step, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(step[order])) + 1):
            if len(group):
                out[group] = np.asarray(self.pieces[step[group[0]]](times[group])).T
        return out

    def locate(self, times: Array) -> tuple[NDArray[np.intp], Array]:
        """The step that holds each time, and the position in it, 0 to 1."""
        return places(self.t, self.h, times)

    def __call__(self, times: Array) -> Array:
        """States at times (K,) inside the run, shape (K, N)."""
        times = np.asarray(times, dtype=float)
        if not self.pieces:
            return np.repeat(self.y[:1], len(times), axis=0)
        # The step that ends at or after the time; a time on a node belongs to the step that ends there.
        step = np.clip(np.searchsorted(self.t, times, side="left") - 1, 0, len(self.pieces) - 1)
        out = self._states(step, times)
        out[times == self.t[0]] = self.y[0]
        return out
