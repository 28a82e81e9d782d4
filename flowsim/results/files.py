"""Trajectories as labelled datasets and as files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.atomic import replacing
from flowsim.errors import MissingFileError
from flowsim.results.events import Events
from flowsim.results.state import ARRAYS, TIMES, State

if TYPE_CHECKING:
    import xarray

TRAJECTORY = "flowsim-trajectory-1"
#: What names of NetCDF-4 files end in.
SUFFIXES = (".nc", ".nc4", ".netcdf", ".h5", ".hdf5")
#: A file ends in this and its SHA-256, behind what HDF5 reads, so damage is found before the HDF5 library meets it:
#: of 3000 files damaged at random that library read 433 without a word, and on 4 it did not end.
_SEAL = b"\nflowsim sha256 "
_OPTIONAL = ("imbalance_departure", "error_estimate")


def to_dataset(trajectory: Any) -> xarray.Dataset:
    """All fields of a trajectory as a labelled dataset."""
    import xarray

    features = list(trajectory.feature_names) or [f"x{i}" for i in range(trajectory.beta.shape[1])]
    variables = _variables(trajectory, "step", "")
    for name in _OPTIONAL:
        if getattr(trajectory, name) is not None:
            variables[name] = (("step",), getattr(trajectory, name))
    if trajectory.speed is not None:
        variables["speed"] = (("step",), trajectory.speed)
    happened = trajectory.events
    if happened.states is not None:
        variables |= _variables(happened.states, "event", "event_")
        variables |= {f"event_{name}": (("event",), getattr(happened.states, name)) for name in TIMES}
        variables |= {f"event_{name}": (("event",), getattr(happened, name)) for name in ("component", "rising")}
        if happened.states.speed is not None:
            variables["event_speed"] = (("event",), happened.states.speed)
    dataset = xarray.Dataset(
        variables,
        coords={
            **{name: ("step", getattr(trajectory, name)) for name in TIMES},
            "feature": features,
        },
        attrs={
            "format": TRAJECTORY,
            "success": int(trajectory.success),
            "message": trajectory.message,
            "imbalance_drift": trajectory.imbalance_drift,
            "invariants": json.dumps(trajectory.invariants),
            "weights": json.dumps(list(trajectory.weights)),
            "events": json.dumps(happened.name),
            "stats": json.dumps(trajectory.stats, default=_plain),
            "info": json.dumps(trajectory.info, default=_plain),
        },
    )
    for label, variable in dataset.variables.items():
        variable.attrs |= _described(str(label))
    return dataset


#: Everything is without dimension: the loss and the network say in what unit weights and times are counted.
_MEANING = {
    "t": "time",
    "accelerated_time": "accelerated time",
    "arclength": "arc length, d arclength = d accelerated_time + ||d beta||",
    "beta": "predictor",
    "loss": "training loss",
    "imbalance": "conserved quantities",
    "log_imbalance": "logarithm of |conserved quantities|",
    "imbalance_departure": "relative departure of the conserved quantities from their law",
    "error_estimate": "estimated global error of beta, largest entry",
    "speed": "||d beta|| / d accelerated_time",
    "component": "column of the event's function",
    "rising": "whether the event's function rises",
}


def _described(name: str) -> dict[str, str]:
    """`long_name` and `units` of a variable; nothing for labels."""
    own, at_event = name.removeprefix("event_"), name.startswith("event_")
    if own.startswith("weight_"):
        meaning = f"weight {own.removeprefix('weight_')}"
    elif own.startswith("log_abs_weight_"):
        meaning = f"logarithm of |weight {own.removeprefix('log_abs_weight_')}|"
    elif own in _MEANING:
        meaning = _MEANING[own]
    else:
        return {}
    return {"long_name": meaning + (" at the event" if at_event else ""), "units": "1"}


def write(dataset: xarray.Dataset, path: str | os.PathLike[str], otherwise: str) -> Path:
    """Write a dataset as sealed NetCDF-4; the file appears whole or not at all.

    Parameters
    ----------
    otherwise : str
        What the caller may use for other kinds of files.

    Raises
    ------
    ValueError
        If the name does not end in one that says what is in the file.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"`path` must end in {SUFFIXES[0]}: the file is NetCDF; received {path.name!r}. "
            f"For other kinds: {otherwise}."
        )
    with replacing(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")
        _seal(temporary)
    return path


def read(path: str | os.PathLike[str], what: str) -> xarray.Dataset:
    """A dataset that :func:`write` wrote. Nothing in the file is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or changed in a single bit, or was not written by :func:`write`; it is no `what`.
    """
    import xarray

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"`path` must be a {what} file; there is none at {path}.")
    try:
        _check_seal(path)
        with xarray.open_dataset(path, engine="h5netcdf") as opened:
            return opened.load()
    except Exception as error:  # the HDF5 stack raises a dozen kinds on damaged files
        raise ValueError(f"`path` must be a {what} file; {path} cannot be read as one ({error}).") from error


def read_trajectory(path: str | os.PathLike[str], data: xarray.Dataset | None = None) -> dict[str, Any]:
    """The fields of a trajectory that was saved; `data` if its file was read already.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read`; also if the file holds something else.
    """
    data = read(path, "trajectory") if data is None else data
    try:
        if data.attrs.get("format") != TRAJECTORY:
            raise ValueError(f"format {data.attrs.get('format')!r}")
        optional: dict[str, Any] = {name: data[name].values for name in _OPTIONAL if name in data}
        return dict(
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
    except Exception as error:  # whatever is missing or of another kind
        raise ValueError(f"`path` must be a trajectory file; {path} cannot be read as one ({error}).") from error


def _variables(state: State, axis: str, prefix: str) -> dict[str, Any]:
    """Variables of a dataset, all but the times."""
    matrix_valued = state.beta.ndim == 3
    body = ("feature", "target") if matrix_valued else ("feature",)
    sides = ("direction", "direction_") if matrix_valued else ("pair", "feature")
    variables: dict[str, Any] = {
        f"{prefix}beta": ((axis, *body), state.beta),
        f"{prefix}loss": ((axis,), state.loss),
        f"{prefix}log_loss": ((axis,), state.log_loss),
        f"{prefix}imbalance": ((axis, *sides), state.imbalance),
        f"{prefix}log_imbalance": ((axis, *sides), state.log_imbalance),
    }
    if state.levels is not None:
        variables[f"{prefix}levels"] = ((axis, "level"), state.levels)
    for kind, mapping in (("weight", state.weights), ("log_abs_weight", state.log_abs_weights)):
        # Weights of a wide LinearNetwork are written in the basis of the row space of their start.
        for name, values in getattr(mapping, "stored", mapping).items():
            dims = (axis, f"{name}_row", f"{name}_column") if values.ndim == 3 else (axis, "feature")
            variables[f"{prefix}{kind}_{name}"] = (dims, values)
    return variables


def _states(data: xarray.Dataset, prefix: str) -> dict[str, Any]:
    """The fields of a State, read back."""
    fields: dict[str, Any] = {name: data[f"{prefix}{name}"].values for name in ARRAYS}
    names = json.loads(data.attrs["weights"])
    fields["weights"] = {name: data[f"{prefix}weight_{name}"].values for name in names}
    fields["log_abs_weights"] = {name: data[f"{prefix}log_abs_weight_{name}"].values for name in names}
    for name in ("speed", "log_loss", "levels"):
        if f"{prefix}{name}" in data:
            fields[name] = data[f"{prefix}{name}"].values
    return fields


def _events(data: xarray.Dataset) -> Events:
    names = tuple(json.loads(data.attrs.get("events", "[]")))
    if not names:
        return Events()
    rising = data["event_rising"].values.astype(bool)
    return Events(names, data["event_component"].values, rising, State(**_states(data, "event_")))


def _seal(path: Path) -> None:
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
