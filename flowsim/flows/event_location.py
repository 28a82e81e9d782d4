"""Event location along any run that can be read by step and position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.flows.dense import DenseOutput, View
from flowsim.results import Clock
from flowsim.results.events import Event, Events
from flowsim.solvers import Event as Sought
from flowsim.solvers import Occurrence, find_events

#: Steps processed together, and entries of beta.
_BLOCK, _ENTRIES = 256, 1 << 20
_SAMPLES_PER_STEP = 9
_NOTHING = Events()


def search(
    run: DenseOutput, events: Sequence[Event], limit: tuple[Clock, float] | None = None
) -> tuple[list[Occurrence], Occurrence | None]:
    """The events of a run that ends at a value of a clock, up to the first terminal event; and that event."""
    if not events:
        return [], None
    asked = [
        Sought(partial(_values, event), event.name, 0 if event.noise else event.direction, event.terminal)
        for event in events
    ]
    found = find_events(run, asked, block=max(1, min(_BLOCK, _ENTRIES // (_SAMPLES_PER_STEP * run.size))))
    for sought, event in zip(asked, events, strict=True):
        if event.noise:
            found = _without_noise(run, found, sought, event)
    if found and limit is not None:
        clock, end = limit
        reached = run.on(clock, *_places(found))
        found = [one for one, value in zip(found, reached, strict=True) if value <= end]
    last = next((one for one in found if one.event.terminal), None)
    if last is not None:
        found = [one for one in found if (one.step, one.position) <= (last.step, last.position)]
    return found, last


def _without_noise(run: DenseOutput, found: list[Occurrence], sought: Sought, event: Event) -> list[Occurrence]:
    """Leave out motion below the error of the run, and then changes in the other direction."""
    mine = [one for one in found if one.event is sought]
    dropped: set[int] = set()
    if mine:
        length = run.travelled.at_steps(*_places(mine))
        for k in range(len(mine) - 1):
            if mine[k].rising and not mine[k + 1].rising and length[k + 1] - length[k] <= event.noise:
                dropped |= {id(mine[k]), id(mine[k + 1])}
    unwanted = {id(one) for one in mine if event.direction and one.rising != (event.direction > 0)}
    return [one for one in found if id(one) not in dropped | unwanted]


def outcome(completed: bool, message: str, last: Occurrence | None, stopped: bool) -> tuple[bool, str]:
    """Success and message of a run, from those of its integration.

    `last` or None: the event that ended the run: later events do not count; `stopped`: whether the integration was
    stopped for a terminal event.
    """
    if last is not None:
        return True, f"ended by the event {last.event.name!r}"
    if stopped:
        return False, "a terminal event was seen once and not again: its function must depend on time and state alone"
    return completed, message


def _places(found: Sequence[Occurrence]) -> tuple[Index, Array]:
    return np.array([one.step for one in found]), np.array([one.position for one in found])


def _values(event: Event, t: Array, seen: View) -> Array:
    # The solver's t may be in another unit.
    state = seen.state
    return event(state.t, state)


def located_events(run: DenseOutput, found: Sequence[Occurrence]) -> Events:
    """Occurrences as the `Events` of a trajectory."""
    if not found:
        return _NOTHING
    return Events(
        name=tuple(one.event.name for one in found),
        component=np.array([one.component for one in found]),
        rising=np.array([one.rising for one in found]),
        states=run.at_steps(*_places(found)).state,
    )
