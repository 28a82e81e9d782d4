r"""Event location: sign changes of a function of time and state along a solution's continuous extension.

On every step the function is interpolated at Chebyshev points, with repeated bisection where nine points do not resolve
it (Boyd, SIAM Journal on Numerical Analysis 40, 2002). Between any two roots of the interpolant the function itself is
evaluated, so any number of events in one step is found, and no spurious one, where they are further apart than the
rounding of the interpolant: 1e-8 of a step for two roots, 1e-5 for three. Every change of sign is then refined to
rounding (:mod:`flowsim.solvers.roots`). A function that is zero at the start changes no sign there: SciPy reports that
zero as an event, DifferentialEquations.jl does not. Times are located by step and position, which also works where
steps are shorter than the spacing of floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.roots import first_positions

#: Chebyshev points of a piece of a step, its start and end among them.
_SAMPLES = 9
_NODES = (1.0 - np.cos(np.pi * np.arange(_SAMPLES) / (_SAMPLES - 1))) / 2.0
#: From values at those points to Chebyshev coefficients on [0, 1].
_TO_COEFFICIENTS = np.linalg.inv(np.polynomial.chebyshev.chebvander(2.0 * _NODES - 1.0, _SAMPLES - 1))
#: The last two coefficients, relative to the largest, up to which a piece is resolved; halvings of a step at most.
_TAIL, _HALVINGS = 1e-4, 8
#: Complex roots up to this distance from the real line, in units of a piece, count: they may be a nearly double root.
_NEARLY_REAL = 1e-3
#: Steps processed together.
_BLOCK = 256


class Stepwise(Protocol):
    """A solution that can be read by step and position."""

    @property
    def t(self) -> Array: ...

    @property
    def h(self) -> Array: ...

    def at_steps(self, step: NDArray[np.intp], theta: Array) -> Any:
        """States at positions `theta` of the steps `step`, as passed to the functions of events."""


@dataclass(frozen=True, eq=False)
class Event:
    """A function whose changes of sign are located.

    Attributes
    ----------
    function : callable (t (K,), states (K, N)) -> (K,) or (K, C)
        Each of C components is an event of its own.
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
    """One change of sign: the index of its event, its component, its time, and whether the function was rising."""

    event: Event
    component: int
    t: float
    step: int
    position: float
    rising: bool


def find_events(solution: Stepwise, events: Sequence[Event], block: int = _BLOCK) -> list[Occurrence]:
    """All occurrences along a solution, in their order.

    `block`: steps whose samples are held at once.

    Returns
    -------
    list of Occurrence
    """
    found: list[Occurrence] = []
    carried: list[NDArray[np.bool_] | None] = [None] * len(events)
    for first in range(0, len(solution.h), block):
        steps = np.arange(first, min(first + block, len(solution.h)))
        step, position, samples = _samples(solution, events, steps)
        for number, (event, values) in enumerate(zip(events, samples, strict=True)):
            # Zero counts as positive, so that a change is found once.
            positive = values >= 0
            before = carried[number]
            if before is None:
                # What leaves zero at the start has not changed its sign.
                positive[0] = np.where(values[0] == 0, positive[1], positive[0])
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
                end, column, own = sample[inside], component[inside], step[sample[inside]]
                low = position[end - 1]
                width = position[end] - low

                def value(x: Array, event=event, own=own, column=column, low=low, width=width) -> Array:
                    place = low + x * width
                    read = _columns(event, solution.t[own] + place * solution.h[own], solution.at_steps(own, place))
                    return read[np.arange(len(own)), column]

                x = first_positions(value, values[end - 1, column], values[end, column])
                place[inside] = low + x * width
            found += [
                Occurrence(event, int(c), float(solution.t[s] + p * solution.h[s]), int(s), float(p), bool(r))
                for c, s, p, r in zip(component, step[sample], place, rising, strict=True)
            ]
    return sorted(found, key=lambda one: (one.step, one.position))


def _samples(
    solution: Stepwise, events: Sequence[Event], steps: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Array, list[Array]]:
    """Ordered positions in some steps, one between any two changes of sign, and each event's values (K, C) there."""

    def look(step: NDArray[np.intp], position: Array) -> None:
        times, states = solution.t[step] + position * solution.h[step], solution.at_steps(step, position)
        seen.append((step, position, [_columns(event, times, states) for event in events]))

    seen: list[tuple[NDArray[np.intp], Array, list[Array]]] = []
    low, width, between = np.zeros(len(steps)), 1.0, []
    for halving in range(_HALVINGS + 1):
        place = low[:, None] + width * _NODES
        look(np.repeat(steps, _SAMPLES), place.ravel())
        coarse = np.zeros(len(steps), dtype=bool)
        for values in seen[-1][2]:
            c = np.einsum("jk,skc->sjc", _TO_COEFFICIENTS, values.reshape(len(steps), _SAMPLES, -1))
            with np.errstate(invalid="ignore"):
                size = np.abs(c)
                tail = size[:, -2:].sum(axis=1)
                # Where the constant coefficient exceeds the sum of all others there is no root.
                possible = size[:, 0] <= size[:, 1:].sum(axis=1) + tail
                rough = possible & ~(tail <= _TAIL * size.max(axis=1))
            if halving < _HALVINGS:
                coarse |= rough.any(axis=1)
            # A slope of one sign leaves one root at most: the signs at the ends decide.
            several = (
                possible & ~rough & (size[:, 1] <= (np.arange(2, _SAMPLES)[:, None] ** 2 * size[:, 2:]).sum(axis=1))
            )
            for piece, column in zip(*np.nonzero(several), strict=True):
                inner = _between_roots(c[piece, :, column])
                if len(inner):
                    between.append((np.full(len(inner), steps[piece]), low[piece] + width * inner))
        if not coarse.any():
            break
        width /= 2
        steps, low = np.repeat(steps[coarse], 2), np.repeat(low[coarse], 2)
        low[1::2] += width
    if between:
        look(np.concatenate([one for one, _ in between]), np.concatenate([one for _, one in between]))
    if len(seen) == 1:
        return seen[0]
    step, position = np.concatenate([one[0] for one in seen]), np.concatenate([one[1] for one in seen])
    order = np.lexsort([position, step])
    read = [np.concatenate([one[2][k] for one in seen])[order] for k in range(len(events))]
    return step[order], position[order], read


def _between_roots(coefficients: Array) -> Array:
    """Positions in (0, 1) that separate the roots of a Chebyshev series on [0, 1]."""
    series = np.trim_zeros(coefficients, "b")
    if len(series) < 2:  # constant, or zero throughout
        return np.empty(0)
    roots = np.polynomial.chebyshev.chebroots(series)
    real = np.sort((roots.real[np.abs(roots.imag) <= _NEARLY_REAL] + 1.0) / 2.0)
    real = real[(real > 0) & (real < 1)]
    return (real[1:] + real[:-1]) / 2 if len(real) > 1 else np.empty(0)


def _columns(event: Event, times: Array, states: Array) -> Array:
    values = np.asarray(event.function(times, states), dtype=float)
    return values[:, None] if values.ndim == 1 else values
