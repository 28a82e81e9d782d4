"""The state of a flow at one time, or at many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from flowsim.arrays import Array, Index

Clock = Literal["time", "accelerated", "arclength", "log_loss"]
#: Clocks on which every run can be read, and all clocks.
TIME_CLOCKS: tuple[Clock, ...] = ("time", "accelerated", "arclength")
CLOCKS: tuple[Clock, ...] = (*TIME_CLOCKS, "log_loss")

CLOCK_NAMES: dict[Clock, str] = {
    "time": "time",
    "accelerated": "accelerated time",
    "arclength": "arc length",
    "log_loss": "ln(1/L)",
}

#: Fields of a State that are arrays with a leading time axis, the clocks first.
TIMES = ("t", "accelerated_time", "arclength")
_FIELD_OF: dict[Clock, str] = dict(zip(TIME_CLOCKS, TIMES, strict=True))
ARRAYS = (*TIMES, "beta", "loss", "imbalance", "log_imbalance")


def nothing() -> None:
    """The default of a field that may be computed on first access: one on the class would hide it."""


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """The state at one time, or at an array of times (then with a leading axis).

    Attributes carry the names and, behind the time axis, the shapes of :class:`Trajectory`.
    """

    t: Array
    accelerated_time: Array
    arclength: Array
    beta: Array
    weights: Mapping[str, Array]
    log_abs_weights: Mapping[str, Array]
    loss: Array
    imbalance: Array
    log_imbalance: Array
    speed: Array | None = field(default_factory=nothing, kw_only=True)
    #: ``ln loss``, finite far below the range of floats; the logarithm of the loss where no better formula exists
    log_loss: Array | None = field(default_factory=nothing, kw_only=True)
    #: for a LinearNetwork: ``1 + l_j / gamma`` of its directions, descending
    levels: Array | None = field(default_factory=nothing, kw_only=True)

    def __post_init__(self) -> None:
        if self.log_loss is None:
            del self.__dict__["log_loss"]

    @classmethod
    def of(cls, later: Callable[[str], Any], **values: Any) -> Self:
        """A state with some fields, and others computed by their name when they are first asked for.

        Most runs never need every weight at every step.
        """
        made = object.__new__(cls)
        made.__dict__.update(values, _later=later)
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            later = self.__dict__.get("_later")
            if name not in type(self).__dataclass_fields__ or (later is None and name != "log_loss"):
                told = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(told, name=name, obj=self)
            value = None if later is None else later(name)
            if value is None and name == "log_loss":
                with np.errstate(divide="ignore", invalid="ignore"):
                    value = np.log(self.loss)
            self.__dict__[name] = value
            return value

    @property
    def singular_values(self) -> Array:
        """Singular values of a matrix-valued beta, descending."""
        if np.ndim(self.beta) - np.ndim(self.t) != 2:
            raise ValueError("`singular_values` are those of the matrix beta of a LinearNetwork.")
        return np.asarray(np.linalg.svd(self.beta, compute_uv=False), dtype=np.float64)

    def clock_values(self, clock: Clock) -> Array:
        """The times on one of the clocks."""
        if clock not in CLOCKS:
            raise ValueError(f"`clock` must be one of {', '.join(CLOCKS)}; received {clock!r}.")
        if clock == "log_loss":
            assert self.log_loss is not None
            return -self.log_loss
        # Not through a table of all values: an arc length takes many readings inside the steps.
        values: Array = getattr(self, _FIELD_OF[clock])
        return values

    def __getstate__(self) -> dict[str, Any]:
        """All is computed: another process does not have the run."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __repr__(self) -> str:
        if np.ndim(self.t) == 0:
            return f"State(t={float(self.t):.6g}, loss={float(self.loss):.6g})"
        return f"State({len(self.t)} times)"

    def __getitem__(self, index: Any) -> State:
        """Select along the leading time axis, each field when it is asked for."""
        return State.of(lambda name: _select(getattr(self, name), index), t=self.t[index])


class Dense(Protocol):
    """The dense output of a run."""

    def __call__(self, values: Array, clock: Clock) -> State:
        """The states at values of a clock, between those of `span`."""

    def some(self, values: Array, clock: Clock, only: Index) -> Array:
        """beta of the coordinates `only`, shape (K, len(only)): with many features, much less work."""
        ...

    def span(self, clock: Clock) -> tuple[float, float]:
        """The first and the last value of a clock, whatever times were requested."""


def _select(values: Any, index: Any) -> Any:
    """A part of an array, or of every one of a mapping; weights made on demand stay unmade."""
    if values is None:
        return None
    if hasattr(values, "select"):
        return values.select(index)
    return {key: each[index] for key, each in values.items()} if isinstance(values, Mapping) else values[index]
