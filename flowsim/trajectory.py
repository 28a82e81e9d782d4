"""The result object of every flow and every descent."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.events import Events

if TYPE_CHECKING:
    import xarray

__all__ = ["CLOCKS", "Clock", "Deferred", "State", "Trajectory", "load"]

Array = NDArray[np.float64]
Clock = Literal["time", "accelerated", "arclength"]
CLOCKS: tuple[Clock, ...] = ("time", "accelerated", "arclength")

_FORMAT = "flowsim-trajectory-1"
#: A file ends in this and its SHA-256, behind what HDF5 reads, so damage is found before the HDF5 library meets it:
#: of 3000 files damaged at random that library read 433 without a word, and 4 kept it busy for ever.
_SEAL = b"\nflowsim sha256 "


class Deferred:
    """A field that is computed when it is first looked at: most runs never ask for every weight at every step."""

    __slots__ = ("compute",)

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


@dataclass(frozen=True, eq=False)
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

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if type(value) is Deferred:
            value = value.compute()
            object.__setattr__(self, name, value)
        return value

    def __getitem__(self, index: Any) -> State:
        """Select along the leading time axis."""
        fields: dict[str, Any] = {name: getattr(self, name)[index] for name in _ARRAYS}
        fields["speed"] = None if self.speed is None else self.speed[index]
        for name in _MAPPINGS:
            fields[name] = _select(getattr(self, name), index)
        return State(**fields)


def _select(mapping: Mapping[str, Array], index: Any) -> Mapping[str, Array]:
    """Weights made on demand stay unmade."""
    if hasattr(mapping, "select"):
        return mapping.select(index)
    return {key: value[index] for key, value in mapping.items()}


_TIMES = ("t", "accelerated_time", "arclength")
_ARRAYS = (*_TIMES, "beta", "loss", "imbalance", "log_imbalance")
_MAPPINGS = ("weights", "log_abs_weights")
_OPTIONAL = ("imbalance_departure", "error_estimate")


@dataclass(frozen=True, eq=False)
class Trajectory(State):
    """A flow or a descent, sampled at T times.

    Attributes
    ----------
    t, accelerated_time, arclength : array (T,)
        The three clocks. ``accelerated_time = t / ln(1/alpha)`` for two-layer networks and
        ``t * alpha**(L - 2)`` for homogeneous degree L >= 3, where t is infinite if it leaves the range of floats;
        ``d arclength = d accelerated_time + ||d beta||``.
    beta : array (T, d), or (T, D, m) for a LinearNetwork
        The predictor.
    weights : mapping name -> array (T, d)
        Weights as floats: 0.0 where they leave the range of floats (see ``log_abs_weights``).
    log_abs_weights : mapping name -> array (T, d)
        ``ln |weight|``, finite at every alpha; -inf where a weight is exactly zero.
    loss : array (T,)
        Training loss ``L(beta)``, without the noise term.
    imbalance : array (T, pairs, d), or (T, k, k) for a LinearNetwork
        The conserved quantities named by ``invariants``: ``w_1^2 - w_l^2`` for products of weights.
    log_imbalance : array, as imbalance
        ``ln |imbalance|``.
    speed : array (T,) or None
        ``||d beta|| / d accelerated_time``: far below 1 on a plateau, of order ln(1/alpha) in a jump of a two-layer
        network. None for a descent.
    imbalance_drift : float
        Largest departure of the imbalance from its exact law, relative to its value at 0 (to the size of its
        terms at 0 where that value is 0).
    invariants : tuple of str
        What each pair of ``imbalance`` is.
    success : bool
    message : str
    stats : dict
        steps, rejected, nfev, njev, seconds, and what else the method counts.
    info : dict
        Network, alpha, noise, method, coordinates, clock, tolerances, versions: plain JSON values.
    imbalance_departure : array (T,) or None
        That departure at each time, the largest over coordinates.
    error_estimate : array (T,) or None
        Estimated global error of beta in the largest-entry norm, if it was asked for.
    events : Events
        What happened of the events that were asked for: a sequence of :class:`flowsim.events.Occurrence`.
    """

    imbalance_drift: float
    success: bool
    message: str
    stats: dict[str, Any]
    invariants: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    imbalance_departure: Array | None = None
    error_estimate: Array | None = None
    events: Events = field(default_factory=Events)
    #: maps (values of a clock, which clock) to the state there; None when the trajectory was loaded from a file
    dense: Callable[[Array, Clock], State] | None = None

    def __len__(self) -> int:
        return len(self.t)

    def at(self, t: ArrayLike, clock: Clock = "time") -> State:
        """The state at any time inside the run, by the integrator's dense output.

        Parameters
        ----------
        t : float or array (K,)
            Values of `clock`.
        clock : {"time", "accelerated", "arclength"}

        Returns
        -------
        State
            With a leading axis K if `t` is an array.

        Raises
        ------
        ValueError
            If `t` lies outside the run or is not finite, or if the trajectory has no dense output.
        """
        if clock not in CLOCKS:
            raise ValueError(f"`clock` must be one of {', '.join(CLOCKS)}; received {clock!r}.")
        if self.dense is None:
            raise ValueError(
                "this trajectory has no dense output: it was loaded from a file or is a descent; "
                "its recorded points are in `t` and `beta`."
            )
        values = np.asarray(t, dtype=float)
        if values.ndim > 1:
            raise ValueError(f"`t` must be a number or a vector; received shape {values.shape}.")
        own = self.clock_values(clock)
        # Rounding of the caller's own arithmetic at the two ends is forgiven; nothing is extrapolated.
        slack = 1e-12 * max(abs(float(own[-1])), np.finfo(float).tiny)
        bad = ~((values >= own[0] - slack) & (values <= own[-1] + slack))
        if bad.any():
            first = np.atleast_1d(values)[np.atleast_1d(bad)][0]
            raise ValueError(f"`t` must lie in the run, [{own[0]:.6g}, {own[-1]:.6g}] in {clock}; received {first}.")
        state = self.dense(np.clip(np.atleast_1d(values), own[0], own[-1]), clock)
        return state[0] if values.ndim == 0 else state

    def clock_values(self, clock: Clock) -> Array:
        """The recorded times on one of the three clocks."""
        return {"time": self.t, "accelerated": self.accelerated_time, "arclength": self.arclength}[clock]

    def to_xarray(self) -> xarray.Dataset:
        """All fields as a labelled dataset; `info` and `stats` as JSON attributes."""
        import xarray

        features = list(self.feature_names) or [f"x{i}" for i in range(self.beta.shape[1])]
        variables = _variables(self, "step", "")
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                variables[name] = (("step",), getattr(self, name))
        happened = self.events
        if happened.states is not None:
            variables |= _variables(happened.states, "event", "event_")
            variables |= {f"event_{name}": (("event",), getattr(happened.states, name)) for name in _TIMES}
            variables |= {f"event_{name}": (("event",), getattr(happened, name)) for name in ("component", "rising")}
            if happened.states.speed is not None:
                variables["event_speed"] = (("event",), happened.states.speed)
        return xarray.Dataset(
            variables,
            coords={
                **{name: ("step", getattr(self, name)) for name in _TIMES},
                "feature": features,
            },
            attrs={
                "format": _FORMAT,
                "success": int(self.success),
                "message": self.message,
                "imbalance_drift": self.imbalance_drift,
                "invariants": json.dumps(self.invariants),
                "weights": json.dumps(list(self.weights)),
                "events": json.dumps(happened.name),
                "stats": json.dumps(self.stats, default=_plain),
                "info": json.dumps(self.info, default=_plain),
            },
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything but the dense output as NetCDF-4; the file appears whole or not at all."""
        path = Path(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        os.close(handle)
        try:
            self.to_xarray().to_netcdf(temporary, engine="h5netcdf")
            _seal(temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return path


def load(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory that :meth:`Trajectory.save` wrote. Nothing in the file is executed.

    Raises
    ------
    ValueError
        If the file is missing, damaged or changed in a single bit, or not a trajectory.
    """
    import xarray

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path` must be a trajectory file; there is none at {path}.")
    try:
        _check_seal(path)
        with xarray.open_dataset(path, engine="h5netcdf") as opened:
            data = opened.load()
        if data.attrs.get("format") != _FORMAT:
            raise ValueError(f"format {data.attrs.get('format')!r}")
        optional: dict[str, Any] = {name: data[name].values for name in _OPTIONAL if name in data}
        return Trajectory(
            **_states(data, ""),
            **optional,
            events=_events(data),
            imbalance_drift=float(data.attrs["imbalance_drift"]),
            success=bool(data.attrs["success"]),
            message=str(data.attrs["message"]),
            stats=json.loads(data.attrs["stats"]),
            invariants=tuple(json.loads(data.attrs["invariants"])),
            feature_names=tuple(str(name) for name in data["feature"].values),
            info=json.loads(data.attrs["info"]),
        )
    except Exception as error:  # the HDF5 stack raises a dozen kinds on damaged files
        raise ValueError(f"`path` must be a trajectory file; {path} cannot be read as one ({error}).") from error


def _variables(state: State, axis: str, prefix: str) -> dict[str, Any]:
    """Variables of a dataset, all but the times."""
    matrix_valued = state.beta.ndim == 3
    body = ("feature", "target") if matrix_valued else ("feature",)
    sides = ("direction", "direction_") if matrix_valued else ("pair", "feature")
    variables: dict[str, Any] = {
        f"{prefix}beta": ((axis, *body), state.beta),
        f"{prefix}loss": ((axis,), state.loss),
        f"{prefix}imbalance": ((axis, *sides), state.imbalance),
        f"{prefix}log_imbalance": ((axis, *sides), state.log_imbalance),
    }
    for kind, mapping in (("weight", state.weights), ("log_abs_weight", state.log_abs_weights)):
        # Weights of a wide LinearNetwork are written in the basis of the row space of their start.
        for name, values in getattr(mapping, "stored", mapping).items():
            dims = (axis, f"{name}_row", f"{name}_column") if values.ndim == 3 else (axis, "feature")
            variables[f"{prefix}{kind}_{name}"] = (dims, values)
    return variables


def _states(data: xarray.Dataset, prefix: str) -> dict[str, Any]:
    """The fields of a State, read back."""
    fields: dict[str, Any] = {name: data[f"{prefix}{name}"].values for name in _ARRAYS}
    names = json.loads(data.attrs["weights"])
    fields["weights"] = {name: data[f"{prefix}weight_{name}"].values for name in names}
    fields["log_abs_weights"] = {name: data[f"{prefix}log_abs_weight_{name}"].values for name in names}
    if f"{prefix}speed" in data:
        fields["speed"] = data[f"{prefix}speed"].values
    return fields


def _events(data: xarray.Dataset) -> Events:
    names = tuple(json.loads(data.attrs.get("events", "[]")))
    if not names:
        return Events()
    rising = data["event_rising"].values.astype(bool)
    return Events(names, data["event_component"].values, rising, State(**_states(data, "event_")))


def _seal(path: str) -> None:
    with open(path, "r+b") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + checksum.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _check_seal(path: Path) -> None:
    length = len(_SEAL) + 64 + 1
    left = path.stat().st_size - length
    content = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            content.update(block)
            left -= len(block)
        seal = file.read()
    if not seal.startswith(_SEAL) or len(seal) != length:
        raise ValueError("it has no checksum at its end: it was cut short, or written by something else")
    if seal != _SEAL + content.hexdigest().encode() + b"\n":
        raise ValueError("its checksum does not match: it was damaged or changed")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
