"""The state of a flow at one time, or at many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array

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

#: Fields of a State that are arrays with a leading time axis, the clocks first ...
TIMES = ("t", "accelerated_time", "arclength")
ARRAYS = (*TIMES, "beta", "loss", "imbalance", "log_imbalance")
#: ... and those that are mappings of such arrays.
MAPPINGS = ("weights", "log_abs_weights")


class Deferred:
    """A field computed on first access: most uses do not need every weight at every step."""

    __slots__ = ("compute",)

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


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
    speed: Array | None = field(default=None, kw_only=True)
    #: ``ln loss``, finite far below the range of floats; the logarithm of the loss where no better formula exists
    log_loss: Array | None = field(default=None, kw_only=True)
    #: for a LinearNetwork: ``1 + l_j / gamma`` of its directions, descending
    levels: Array | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A state with fields that may be :class:`Deferred`; faster than the constructor of a frozen class."""
        made = object.__new__(cls)
        made.__dict__.update(values)
        return made

    @property
    def singular_values(self) -> Array:
        """Singular values of a matrix-valued beta, descending."""
        if np.ndim(self.beta) - np.ndim(self.t) != 2:
            raise ValueError("`singular_values` are those of the matrix beta of a LinearNetwork.")
        return np.asarray(np.linalg.svd(self.beta, compute_uv=False), dtype=np.float64)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if value is None and name == "log_loss":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(self.loss)
        if type(value) is Deferred:
            value = value.compute()
            object.__setattr__(self, name, value)
        return value

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, with deferred fields computed: another process does not have the run."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __repr__(self) -> str:
        if np.ndim(self.t) == 0:
            return f"State(t={float(self.t):.6g}, loss={float(self.loss):.6g})"
        return f"State({len(self.t)} times)"

    def __getitem__(self, index: Any) -> State:
        """Select along the leading time axis."""
        parts: dict[str, Any] = {name: getattr(self, name)[index] for name in TIMES}
        parts |= {name: self._later(name, index) for name in (*ARRAYS[len(TIMES) :], *MAPPINGS)}
        parts["speed"] = None if self.speed is None else self.speed[index]
        parts["log_loss"] = Deferred(lambda: None if self.log_loss is None else self.log_loss[index])
        parts["levels"] = Deferred(lambda: None if self.levels is None else self.levels[index])
        return State(**parts)

    def _later(self, name: str, index: Any) -> Deferred:
        """A selection computed on access: weights of many features are most of the work."""
        return Deferred(lambda: _select(getattr(self, name), index))


class Dense(Protocol):
    """The dense output of a run."""

    def __call__(self, values: Array, clock: Clock) -> State:
        """The states at values of a clock, between those of `span`."""

    def some(self, values: Array, clock: Clock, only: NDArray[np.intp]) -> Array:
        """beta of the coordinates `only`, shape (K, len(only)): with many features, much less work."""
        ...

    def span(self, clock: Clock) -> tuple[float, float]:
        """The first and the last value of a clock, whatever times were requested."""


def _select(values: Any, index: Any) -> Any:
    """A selection of an array, or of every array of a mapping; weights computed on demand stay deferred."""
    if hasattr(values, "select"):
        return values.select(index)
    return {key: each[index] for key, each in values.items()} if isinstance(values, Mapping) else values[index]
