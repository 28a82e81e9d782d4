"""Events of a flow: located to the accuracy of the flow itself.

Pass events to :func:`flowsim.gradient_flow` and read their occurrences from ``traj.events``. The functions here cover
jumps, losses and plateaus; any function of time and state, ``events=lambda t, state: state.beta[:, 0] - state.beta[:,
1]``, is an event too, located where the function changes sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Bools, Integers
from flowsim.card import one_line
from flowsim.plain_numbers import finite
from flowsim.results.state import State

if TYPE_CHECKING:
    import pandas

__all__ = ["Event", "Events", "Occurrence", "crosses", "loss_reaches", "plateau_begins", "plateau_ends"]


#: Speed, relative to coefficients and elapsed time, below which beta is at rest; distance of the size of errors, in
#: rtol.
_AT_REST, _ERRS = 1e-3, 3.0

Index = int | tuple[int, ...] | None
#: a function of times (K,) and states, with one row per time
EventFunction = Callable[[Array, State], Any]


@dataclass(frozen=True, eq=False)
class Event:
    """A function of time and state whose changes of sign are located.

    Attributes
    ----------
    function : callable (t (K,), State) -> (K,) or (K, C)
        The state has a leading axis K. Each of C components is an event of its own; zero counts as positive, and at
        the start as what follows: leaving zero there is no event. Of changes closer than 1e-5 of a step pairs may be
        missed.
    name : str
    direction : {0, 1, -1}
        Only rising (1) or only falling (-1) changes; 0 for both.
    terminal : bool
        The run ends at the first occurrence.
    quantity, index
        The quantity of :func:`crosses`, to be checked against the network before the run.
    of_size : callable (size) -> function, optional
        Returns the function for a run, given the size of coefficients estimated from the data.
    noise : float
        Distance of beta up to which a pair of changes of sign, up and down, is ignored.
    """

    function: EventFunction
    name: str = "event"
    direction: int = 0
    terminal: bool = False
    quantity: str | None = None
    index: Index = None
    of_size: Callable[[float], EventFunction] | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError(f"`function` must be callable; received {type(self.function).__name__}.")
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"`direction` must be -1, 0 or 1; received {self.direction!r}.")
        if not isinstance(self.terminal, bool | np.bool_):
            raise ValueError(f"`terminal` must be True or False, not a count; received {self.terminal!r}.")

    def check(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Require that quantity and index exist for beta and weights of these shapes."""
        if self.quantity is None:
            return
        if self.quantity not in shapes:
            raise ValueError(
                f"`quantity` must be one of {', '.join(shapes)}, or |...| or ln|...|; received {self.name!r}."
            )
        shape = shapes[self.quantity]
        index = (self.index,) if isinstance(self.index, int) else self.index
        if index is not None and not (
            len(index) == len(shape) and all(-size <= i < size for i, size in zip(index, shape, strict=True))
        ):
            raise ValueError(
                f"`index` must lie in an array of shape {shape}; received {self.index} for {self.quantity}."
            )

    def __call__(self, t: Array, state: State) -> Array:
        """The function's values, (K, C).

        Raises ValueError for a wrong shape, or NaN.
        """
        values = np.asarray(self.function(t, state), dtype=float)
        if values.ndim not in (1, 2) or len(values) != len(t):
            raise ValueError(
                f"`events`: {self.name!r} must return shape ({len(t)},) or ({len(t)}, C) for {len(t)} times; "
                f"received {values.shape}."
            )
        # A flow that leaves the range of floats is reported by the flow itself.
        if np.isnan(values).any() and np.isfinite(state.beta).all():
            bad = np.isnan(values).reshape(len(t), -1).any(axis=1)
            raise ValueError(f"`events`: {self.name!r} must not be NaN; it is at t = {t[bad][0]:.6g}.")
        return values.reshape(len(t), -1)


def crosses(quantity: str, index: Index, level: float, *, direction: int = 0, terminal: bool = False) -> Event:
    """An entry of beta or of a weight crosses a level.

    Parameters
    ----------
    quantity : str
        ``"beta"``, ``"|beta|"``, or a weight: ``"u"``, ``"|u|"``, or ``"ln|u|"``, at any scale.
    index : int, tuple or None
        The coordinate, (row, column) for a LinearNetwork; None for all, each as its own component: the component of an
        occurrence is then the coordinate.
    level : float
        Finite.
    direction : {0, 1, -1}
        Only rising (1) or only falling (-1); 0 for both.
    terminal : bool
        End the run at the first occurrence.
    """
    level = finite("level", level)
    if not isinstance(quantity, str):
        raise ValueError(f"`quantity` must be text such as 'beta' or '|u|'; received {type(quantity).__name__}.")
    if isinstance(index, np.integer):
        index = int(index)
    elif isinstance(index, tuple):
        index = tuple(int(i) for i in index)
    elif index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise ValueError(f"`index` must be an integer, a tuple of them or None; received {index!r}.")
    own = quantity.removeprefix("ln").strip("|")
    logarithm = quantity == f"ln|{own}|" and own != "beta"
    modulus = quantity == f"|{own}|"

    def function(t: Array, state: State) -> Array:
        values = state.beta if own == "beta" else (state.log_abs_weights if logarithm else state.weights)[own]
        values = values.reshape(len(t), -1) if index is None else values[(slice(None), *np.atleast_1d(index))]
        return (np.abs(values) if modulus else values) - level

    known = quantity == own or modulus or logarithm
    place = "" if index is None else f"[{', '.join(str(i) for i in np.atleast_1d(index))}]"
    return Event(function, f"{quantity}{place} = {level:g}", direction, terminal, own if known else quantity, index)


def loss_reaches(value: float, *, terminal: bool = False) -> Event:
    """The training loss decreases to a value > 0."""
    value = finite("value", value)
    if value <= 0:
        raise ValueError(f"`value` must be > 0: a flow reaches its least loss at no finite time; received {value:g}.")
    return Event(lambda t, state: state.loss - value, f"loss = {value:g}", -1, terminal)


def plateau_begins(speed: float | None = None, *, terminal: bool = False) -> Event:
    r"""beta comes to rest: its speed decreases below a value.

    Parameters
    ----------
    speed : float, optional
        A value > 0 of ``||d beta|| / d accelerated_time``, in the units of the data. By default the speed is taken
        relative to the coefficients and to the elapsed time,

        .. math:: \frac{\lVert d\beta \rVert}{d \ln t} < 10^{-3} \max(\lVert\beta\rVert_\infty, b),

        b the largest coefficient of a fit of one feature, which is independent of the units of X, y and time; motion
        over less than ``3 rtol b``, the size of errors, is ignored.
    terminal : bool
        End the run at the first occurrence.
    """
    return _plateau(speed, "plateau begins", -1, terminal)


def plateau_ends(speed: float | None = None, *, terminal: bool = False) -> Event:
    """beta begins to move: its speed increases above a value, as in :func:`plateau_begins`."""
    return _plateau(speed, "plateau ends", 1, terminal)


def _plateau(speed: float | None, name: str, direction: int, terminal: bool) -> Event:
    if speed is None:

        def relative(size: float) -> EventFunction:
            def function(t: Array, state: State) -> Array:
                coefficients = np.abs(state.beta).reshape(len(t), -1).max(axis=1)
                moving = np.asarray(state.speed) * np.abs(state.accelerated_time)
                return moving - _AT_REST * np.maximum(coefficients, size)

            return function

        return Event(relative(0.0), name, direction, terminal, of_size=relative)
    value = finite("speed", speed, above=0.0)
    return Event(lambda t, state: state.speed - value, name, direction, terminal)  # type: ignore[operator]


def as_events(
    events: Any, shapes: dict[str, tuple[int, ...]], rtol: float = 0.0, size: Callable[[], float] = float
) -> tuple[Event, ...]:
    """The events given by a caller: one or several, or functions, which may have SciPy's attributes.

    `shapes`: shapes of beta and of every weight at one time; `rtol`, `size`: the run's tolerance, and the size of
    coefficients estimated from the data, called if an event needs it.
    """
    if callable(events) or not isinstance(events, Iterable):
        events = (events,)
    out = []
    for each in events:
        if isinstance(each, Event):
            event = each
        elif callable(each):
            event = Event(
                each,
                getattr(each, "__name__", "event"),
                getattr(each, "direction", 0),
                bool(getattr(each, "terminal", False)),
            )
        else:
            raise ValueError(
                "`events` must hold events such as fs.events.crosses('beta', 0, 0.1), or functions of (t, state); "
                f"received {type(each).__name__}."
            )
        event.check(shapes)
        if event.of_size is not None:
            event = replace(event, function=event.of_size(size()), noise=_ERRS * rtol * size())
        out.append(event)
    return tuple(out)


@dataclass(frozen=True, eq=False)
class Occurrence:
    """One change of sign.

    Attributes
    ----------
    name : str
        Name of the event.
    component : int
        Column of the event's function; the coordinate, for :func:`crosses` without index.
    rising : bool
    t : float
        Time.
    accelerated_time, arclength : float
        The other two clocks.
    state : State
    """

    name: str
    component: int
    rising: bool
    t: float
    state: State

    __repr__ = one_line

    @property
    def accelerated_time(self) -> float:
        return float(self.state.accelerated_time)

    @property
    def arclength(self) -> float:
        return float(self.state.arclength)


@dataclass(frozen=True, eq=False, repr=False)
class Events(Sequence[Occurrence]):
    """The events of a run, in their order.

    ``events[3]`` is an :class:`Occurrence`, ``events["loss = 0.1"]`` all occurrences of an event, and ``events[mask]``
    or ``events[2:5]`` a part.

    Attributes
    ----------
    name : tuple of str
    component : array (E,) of int
    rising : array (E,) of bool
    states : State or None
        With leading axis E; None where no event occurred.
    """

    name: tuple[str, ...] = ()
    component: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rising: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))
    states: State | None = None

    @property
    def t(self) -> Array:
        return np.zeros(0) if self.states is None else self.states.t

    @property
    def accelerated_time(self) -> Array:
        return np.zeros(0) if self.states is None else self.states.accelerated_time

    @property
    def arclength(self) -> Array:
        return np.zeros(0) if self.states is None else self.states.arclength

    def to_dataframe(self) -> pandas.DataFrame:
        """One row an occurrence."""
        import pandas

        return pandas.DataFrame(
            {
                "name": list(self.name),
                "component": self.component,
                "rising": self.rising,
                "t": self.t,
                "accelerated_time": self.accelerated_time,
                "arclength": self.arclength,
            }
        )

    def __len__(self) -> int:
        return len(self.name)

    @overload
    def __getitem__(self, index: int) -> Occurrence: ...
    @overload
    def __getitem__(self, index: slice | str | NDArray[Any]) -> Events: ...
    def __getitem__(self, index: Any) -> Occurrence | Events:
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"event {index} of {len(self)}")
            assert self.states is not None
            state = self.states[int(index)]
            return Occurrence(
                self.name[index], int(self.component[index]), bool(self.rising[index]), float(state.t), state
            )
        if isinstance(index, str):
            index = np.array([name == index for name in self.name], dtype=bool)
        which = np.arange(len(self))[index]
        states = None if self.states is None or len(which) == 0 else self.states[which]
        return Events(tuple(self.name[i] for i in which), self.component[which], self.rising[which], states)

    def __iter__(self) -> Iterator[Occurrence]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name!r} at t = {t:.6g}" for name, t in zip(self.name[:6], self.t[:6], strict=True))
        return f"Events({shown}{', ...' if len(self) > 6 else ''})"
