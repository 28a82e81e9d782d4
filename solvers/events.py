r"""Events: where a function of time and state changes sign along a solution's continuous extension.

Every step is sampled at several positions, so that an event that happens and unhappens within one step is seen as
long as it lasts for a good part of it; every change of sign is then followed to rounding (Chandrupatla, Advances in
Engineering Software 28, 1997: inverse quadratic interpolation where it is safe, else bisection). Several events may
fall into one step. Times are found by step and position, which also works where steps are shorter than floats can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Event", "Occurrence", "find_events"]

Array = NDArray[np.float64]

#: Samples per step, its start and end among them.
_SAMPLES = 9
#: A place in a step, 0 to 1, is found this well; bisection alone would take 51 looks.
_PLACE = 2.0**-51
_LOOKS = 100
#: Steps looked at together.
_BLOCK = 256


class Stepwise(Protocol):
    """A solution that can be read by step and position."""

    @property
    def t(self) -> Array: ...

    @property
    def h(self) -> Array: ...

    def at_steps(self, step: NDArray[np.intp], theta: Array) -> Any:
        """What the events' functions are given as states."""


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

    function: Callable[[Array, Any], Array]
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


def find_events(solution: Stepwise, events: Sequence[Event], block: int = _BLOCK) -> list[Occurrence]:
    """All occurrences along a solution, in their order.

    Parameters
    ----------
    solution : Solution or SeparableSolution
    events : sequence of Event
    block : int
        Steps whose samples are held at once.

    Returns
    -------
    list of Occurrence
    """
    found: list[Occurrence] = []
    positions = np.linspace(0.0, 1.0, _SAMPLES)
    carried: list[NDArray[np.bool_] | None] = [None] * len(events)
    for first in range(0, len(solution.h), block):
        steps = np.arange(first, min(first + block, len(solution.h)))
        step, position = np.repeat(steps, _SAMPLES), np.tile(positions, len(steps))
        times, states = solution.t[step] + position * solution.h[step], solution.at_steps(step, position)
        for number, event in enumerate(events):
            values = _columns(event, times, states)
            # Zero counts as positive, so that a change is seen once.
            positive = values >= 0
            before = carried[number]
            earlier = np.concatenate([positive[:1] if before is None else before, positive[:-1]])
            carried[number] = positive[-1:]
            sample, component = np.nonzero(positive != earlier)
            rising = positive[sample, component]
            kept = np.ones(len(sample), dtype=bool) if event.direction == 0 else rising == (event.direction > 0)
            sample, component, rising = sample[kept], component[kept], rising[kept]
            place = position[sample]
            # A function that is not continuous may also change between two steps: at the start of the second.
            inside = place > 0
            if inside.any():
                end, column = sample[inside], component[inside]
                place[inside] = _root(
                    solution, event, step[end], column, position[end - 1], position[end],
                    values[end - 1, column], values[end, column],
                )  # fmt: skip
            found += [
                Occurrence(event, int(c), float(solution.t[s] + p * solution.h[s]), int(s), float(p), bool(r))
                for c, s, p, r in zip(component, step[sample], place, rising, strict=True)
            ]
    return sorted(found, key=lambda one: (one.step, one.position))


def _root(
    solution: Stepwise,
    event: Event,
    step: NDArray[np.intp],
    component: NDArray[np.intp],
    low: Array,
    high: Array,
    at_low: Array,
    at_high: Array,
) -> Array:
    """The first places found where the sign is that of `at_high`."""
    goal = at_high >= 0
    b, fb, a, fa = low, at_low, high, at_high
    part = np.full(len(step), 0.5)
    columns = np.arange(len(step))
    for _ in range(_LOOKS):
        # The root lies between a, the last place looked at, and b.
        x = a + part * (b - a)
        f = _columns(event, solution.t[step] + x * solution.h[step], solution.at_steps(step, x))[columns, component]
        same = (f >= 0) == (fa >= 0)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, f
        width = np.abs(b - a)
        if (width <= _PLACE).all():
            break
        with np.errstate(all="ignore"):
            xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
            inverse = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
            part = np.where((phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi) & np.isfinite(inverse), inverse, 0.5)
            least = np.minimum(_PLACE / (2 * width), 0.5)
        part = np.clip(part, least, 1 - least)
    return np.where((fa >= 0) == goal, a, b)


def _columns(event: Event, times: Array, states: Array) -> Array:
    values = np.asarray(event.function(times, states), dtype=float)
    return values[:, None] if values.ndim == 1 else values
