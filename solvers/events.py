r"""Events: where a function of time and state changes sign along a solution's continuous extension.

Every step is sampled at several positions, so that an event that happens and unhappens within one step is seen as
long as it lasts for a good part of it; every change of sign is then bisected to rounding. Several events may fall
into one step. Times are found by step and position, which also works where steps are shorter than floats can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Event", "Occurrence", "find_events"]

Array = NDArray[np.float64]

#: Samples per step, its start and end among them.
_SAMPLES = 9
_BISECTIONS = 52
#: Steps looked at together.
_BLOCK = 256


class Stepwise(Protocol):
    """A solution that can be read by step and position."""

    @property
    def t(self) -> Array: ...

    @property
    def h(self) -> Array: ...

    def at_steps(self, step: NDArray[np.intp], theta: Array) -> Array: ...


@dataclass(frozen=True, eq=False)
class Event:
    """A function whose changes of sign count.

    Attributes
    ----------
    function : callable (t (K,), states (K, N)) -> (K,) or (K, C)
        With C components each one counts by itself.
    name : str
    direction : {0, 1, -1}
        Only rising (1) or falling (-1) changes; 0 for both.
    terminal : bool
        An integration that is given the event ends at its first occurrence.
    """

    function: Callable[[Array, Array], Array]
    name: str = ""
    direction: int = 0
    terminal: bool = False

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"`direction` must be -1, 0 or 1; received {self.direction!r}.")


@dataclass(frozen=True)
class Occurrence:
    """One change of sign: of which event and component, when, and whether it was rising."""

    event: Event
    component: int
    t: float
    step: int
    position: float
    rising: bool


def find_events(solution: Stepwise, events: Sequence[Event]) -> list[Occurrence]:
    """All occurrences along a solution, in their order.

    Parameters
    ----------
    solution : Solution or SeparableSolution
    events : sequence of Event

    Returns
    -------
    list of Occurrence
    """
    found: list[Occurrence] = []
    positions = np.linspace(0.0, 1.0, _SAMPLES)
    for first in range(0, len(solution.h), _BLOCK):
        steps = np.arange(first, min(first + _BLOCK, len(solution.h)))
        step, position = np.repeat(steps, _SAMPLES), np.tile(positions, len(steps))
        times, states = solution.t[step] + position * solution.h[step], solution.at_steps(step, position)
        for event in events:
            values = _columns(event, times, states)
            # Zero counts as positive, so that a change is seen once.
            positive = (values >= 0).reshape(len(steps), _SAMPLES, -1)
            which, sample, component = np.nonzero(positive[:, 1:] != positive[:, :-1])
            rising = positive[which, sample + 1, component]
            kept = np.ones(len(which), dtype=bool) if event.direction == 0 else rising == (event.direction > 0)
            which, sample, component, rising = which[kept], sample[kept], component[kept], rising[kept]
            if len(which) == 0:
                continue
            where = steps[which]
            place = _bisect(solution, event, where, positions[sample], positions[sample + 1], component, rising)
            found += [
                Occurrence(event, int(c), float(solution.t[s] + p * solution.h[s]), int(s), float(p), bool(r))
                for c, s, p, r in zip(component, where, place, rising, strict=True)
            ]
    return sorted(found, key=lambda one: (one.step, one.position))


def _bisect(
    solution: Stepwise,
    event: Event,
    step: NDArray[np.intp],
    low: Array,
    high: Array,
    component: NDArray[np.intp],
    rising: NDArray[np.bool_],
) -> Array:
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        states = solution.at_steps(step, middle)
        values = _columns(event, solution.t[step] + middle * solution.h[step], states)
        beyond = (values[np.arange(len(step)), component] >= 0) == rising
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return high


def _columns(event: Event, times: Array, states: Array) -> Array:
    values = np.asarray(event.function(times, states), dtype=float)
    return values[:, None] if values.ndim == 1 else values
