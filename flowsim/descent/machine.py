"""The protocol of descents: a machine that takes blocks of steps, its driver, and its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.descent.products import Data
from flowsim.descent.schedules import constant_stretches
from flowsim.descent.streams import Streams

#: Random numbers drawn at once: half a megabyte, for the second-level cache. Results do not depend on it.
_DRAWN_AHEAD = 2**16


@dataclass(frozen=True, eq=False)
class Read:
    """One run at its T recorded steps; shapes as in Trajectory.

    `imbalance_sign` is -1, 0 or 1, also where the float `imbalance` has underflowed; `terms`
    (d,) is the size of its terms at the start. `log_law` and `law_sign` give the factor by which the exact discrete
    law has multiplied the conserved quantities since the start, where `has_law`. `departure` is given where it is not
    computed from those.
    """

    beta: Array
    weights: Mapping[str, Array]
    log_abs_weights: Mapping[str, Array]
    imbalance: Array
    log_imbalance: Array
    imbalance_sign: Array
    terms: Array
    length: Array
    log_law: Array | None = None
    law_sign: Array | None = None
    departure: Array | None = None
    has_law: bool = False


class Machine(Protocol):
    """A network, its state in some coordinates, and one compiled loop over steps.

    Attributes
    ----------
    name : str
        The coordinates, as in ``traj.info["coordinates"]``.
    stopped : array (lanes,)
        The step at which the loss ceased to be finite; -1 while it is finite.
    """

    name: str
    invariants: tuple[str, ...]

    @property
    def stopped(self) -> Integers: ...

    def set_step(self, size: float) -> None:
        """Set the size of the next steps."""

    def set_decay(self, rates: Array) -> None:
        """Set the weight decay of the next steps, for each lane."""

    def advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        """Take steps `first` to `last`; returns False when no lane has a finite loss."""

    def read(self, lane: int, count: int) -> Read:
        """The first `count` records of a lane."""


class LaneMachine:
    """What machines of one run or LANES share.

    `sees_batches`: whether the expected noise depends on the batch, so that every step needs :meth:`_look_at` before.
    """

    data: Data
    lanes: int
    state: Any
    sees_batches: bool

    @property
    def stopped(self) -> Integers:
        stopped: Integers = self.state.stopped
        return stopped

    @cached_property
    def located(self) -> Data:
        """The data with their compiled products."""
        return self.data.located(self.lanes)

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process has its own compiled code.
        return {name: value for name, value in vars(self).items() if name not in ("kernels", "formula", "located")}

    def advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        if not (self.sees_batches and len(rows)):
            return self._advance(first, last, rows, labels, noise)
        for k in range(first, last):
            at = slice(k - first, k - first + 1)
            self._look_at(rows[k - first])
            if not self._advance(k, k + 1, rows[at], labels[at], noise[at]):
                return False
        return True

    def _look_at(self, rows: Integers) -> None:
        """Set the effect of the noise from the feature variances of a batch."""
        raise NotImplementedError

    def _advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        raise NotImplementedError


def recorded_steps(n_steps: int, every: int) -> Integers:
    """0, every, 2 every, ... and always the last."""
    return np.append(np.arange(0, n_steps, every), n_steps)


def drive(machine: Machine, streams: Streams, n_steps: int, sizes: Array | None, decays: Array | None) -> None:
    """Run a machine to the end, with the random numbers of its lanes.

    `sizes` (n_steps,) and `decays` (n_steps, lanes) are None where step size, or weight decay, is constant.
    """
    block = n_steps if streams.per_step == 0 else int(np.clip(_DRAWN_AHEAD // streams.per_step, 1, n_steps))
    start = 0
    while True:
        stop = min(start + block, n_steps)
        steps = stop - start
        draws = streams.rows(steps), streams.labels(steps), streams.weights(steps)
        if sizes is None and decays is None:
            going = machine.advance(start, stop, *draws)
        else:
            going = _stretches(machine, sizes, decays, start, stop, draws)
        if not going or stop == n_steps:
            return
        start = stop


def _stretches(
    machine: Machine,
    sizes: Array | None,
    decays: Array | None,
    first: int,
    last: int,
    draws: tuple[Integers, Array, Array],
) -> bool:
    for begin, end in constant_stretches([part for part in (sizes, decays) if part is not None], first, last):
        if sizes is not None:
            machine.set_step(float(sizes[begin]))
        if decays is not None:
            machine.set_decay(decays[begin])
        part = slice(begin - first, end - first)
        rows, labels, noise = draws
        if not machine.advance(begin, end, rows[part], labels[part], noise[part]):
            return False
    return True
