"""How far a flow is integrated, how accurately, and what is read from it: the same for all networks and clocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flowsim.arrays import Array
from flowsim.results import Clock
from flowsim.results.events import Event


class FlowOptions(NamedTuple):
    """Arguments of :func:`flowsim.gradient_flow`, checked; `t_end` and `t_eval` in the unit of the clock."""

    t_end: float
    clock: Clock
    t_eval: Array | None
    method: str
    rtol: float
    atol: float
    max_steps: int
    progress: bool = False
    estimate_error: bool = False
    coordinates: str = "auto"
    #: the first occurrence of a terminal one ends the run
    events: Sequence[Event] = ()
