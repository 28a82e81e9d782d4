"""Trajectories as labelled datasets and as files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from flowsim.json_values import plain
from flowsim.results.events import Events
from flowsim.results.netcdf import Labelled
from flowsim.results.state import ARRAYS, TIMES, State

TRAJECTORY = "flowsim-trajectory-1"
_OPTIONAL = ("imbalance_departure", "error_estimate")


def labelled(trajectory: Any) -> Labelled:
    """All fields of a trajectory with the names of their axes, units and long names."""
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
    coordinates = {name: ("step", getattr(trajectory, name)) for name in TIMES}
    attrs = {
        "format": TRAJECTORY,
        "success": int(trajectory.success),
        "message": trajectory.message,
        "imbalance_drift": trajectory.imbalance_drift,
        "invariants": json.dumps(trajectory.invariants),
        "weights": json.dumps(list(trajectory.weights)),
        "events": json.dumps(happened.name),
        "stats": json.dumps(trajectory.stats, default=plain),
        "info": json.dumps(trajectory.info, default=plain),
    }
    data = Labelled.of(variables, {**coordinates, "feature": ("feature", features)}, attrs)
    return replace(
        data, variables={name: each._replace(attrs=_described(name)) for name, each in data.variables.items()}
    )


#: All variables are dimensionless: loss and network determine the units of weights and times.
_MEANING = {
    "t": "time",
    "accelerated_time": "accelerated time",
    "arclength": "arc length, d arclength = d accelerated_time + ||d beta||",
    "beta": "predictor",
    "loss": "training loss",
    "log_loss": "logarithm of the training loss",
    "levels": "levels of the directions: 1 + ln(size) / ln(1/alpha)",
    "imbalance": "conserved quantities",
    "log_imbalance": "logarithm of |conserved quantities|",
    "imbalance_departure": "relative departure of the conserved quantities from their law",
    "error_estimate": "estimated global error of beta, largest entry",
    "speed": "||d beta|| / d accelerated_time",
    "component": "column of the event's function",
    "rising": "whether the event's function rises",
}


def _described(name: str) -> dict[str, str]:
    """`long_name` and `units` of a variable; empty for labels."""
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


def read_trajectory(path: str | os.PathLike[str], data: Labelled) -> dict[str, Any]:
    """The fields of a trajectory that was saved to a file, from what the file holds; ValueError for another kind."""
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
    except Exception as error:  # any missing or invalid field
        raise ValueError(f"`path` must be a trajectory file; {path} cannot be read as one ({error}).") from error


def _variables(state: State, axis: str, prefix: str) -> dict[str, Any]:
    """Variables of a dataset, without the times."""
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


def _states(data: Labelled, prefix: str) -> dict[str, Any]:
    """The fields of a State, read back."""
    fields: dict[str, Any] = {name: data[f"{prefix}{name}"].values for name in ARRAYS}
    names = json.loads(data.attrs["weights"])
    fields["weights"] = {name: data[f"{prefix}weight_{name}"].values for name in names}
    fields["log_abs_weights"] = {name: data[f"{prefix}log_abs_weight_{name}"].values for name in names}
    for name in ("speed", "log_loss", "levels"):
        if f"{prefix}{name}" in data:
            fields[name] = data[f"{prefix}{name}"].values
    return fields


def _events(data: Labelled) -> Events:
    names = tuple(json.loads(data.attrs.get("events", "[]")))
    if not names:
        return Events()
    rising = data["event_rising"].values.astype(bool)
    return Events(names, data["event_component"].values, rising, State(**_states(data, "event_")))
