"""The functions that an experiment file may call, by name. No others are ever called."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsim.network import NAMED_NOISES

if TYPE_CHECKING:
    from flowsim.network import DiagonalNetwork, LinearNetwork
    from flowsim.problem import Problem

#: Public functions, by their names.
FUNCTIONS = ("gradient_descent", "gradient_flow", "saddle_to_saddle")
#: Keys of [problem] for reading its file.
FILE_OPTIONS = ("raw", "sep", "columns", "drop", "dropna", "index", "loss")
#: Arguments set by the sweep, and arguments that are functions, which a file cannot hold.
_FILLED = frozenset({"net", "problem", "progress", "events"})


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
    """The arguments an experiment may set."""
    return {key: value for key, value in inspect.signature(_load(name)).parameters.items() if key not in _FILLED}


def documented(name: str) -> dict[str, str]:
    """The description of each argument that an experiment may set, as one line of the function's docstring."""
    text = inspect.getdoc(_load(name)) or ""
    section = re.split(r"^Parameters\n-+\n", text, flags=re.MULTILINE)[-1]
    section = re.split(r"^\w+\n-+$", section, flags=re.MULTILINE)[0]
    entries = re.findall(r"^(\w[\w, ]*) : .*\n((?:(?: .*)?\n)*)", section + "\n", flags=re.MULTILINE)
    told = {each: " ".join(body.split()) for names, body in entries for each in names.split(", ")}
    return {key: told.get(key, "") for key in parameters_of(name)}


def make_problem(section: Mapping[str, Any]) -> Problem:
    """The problem of the keys of [problem]."""
    from flowsim import datasets

    options = {key: value for key, value in section.items() if value is not None and key != "sha256"}
    if "file" in options:
        reading = {key: options[key] for key in FILE_OPTIONS if key in options}
        return datasets.read_table(Path(options["file"]), options.get("target"), **reading)
    makers: dict[str, Callable[..., Problem]] = {
        "diabetes": datasets.diabetes,
        "sparse_regression": datasets.sparse_regression,
    }
    return makers[options.pop("dataset")](**options)


def make_network(section: Mapping[str, Any]) -> DiagonalNetwork | LinearNetwork:
    """The network of the keys of [network]."""
    from flowsim.network import DiagonalNetwork, LinearNetwork

    kind = section.get("noise") or ("gaussian" if section.get("eta") else None)
    noise = None
    if kind is not None:
        noise = NAMED_NOISES[kind](section.get("eta") or 0.0, multiplicative=bool(section.get("multiplicative")))
    if section.get("width") is not None:
        return LinearNetwork(section["width"], noise=noise, weight_decay=section.get("weight_decay") or 0.0)
    formula = section.get("formula")
    if formula is None and section.get("depth") is None:
        formula = "u*v"
    return DiagonalNetwork(
        formula, depth=section.get("depth"), noise=noise, weight_decay=section.get("weight_decay") or 0.0
    )


def run_point(
    *,
    function: str,
    problem: Mapping[str, Any],
    network: Mapping[str, Any],
    parameters: Mapping[str, Any],
    keep: str,
    **point: Any,
) -> Any:
    """One point of an experiment: its own values override those shared by all points."""
    sections = {"problem": dict(problem), "network": dict(network), "parameters": dict(parameters)}
    for name, value in point.items():
        section, _, key = name.rpartition(".")
        sections[section or "parameters"][key] = value
    result = _load(function)(
        net=make_network(sections["network"]), problem=make_problem(sections["problem"]), **sections["parameters"]
    )
    return _of_path(result) if function == "saddle_to_saddle" else _of_trajectory(result, keep)


def _load(name: str) -> Callable[..., Any]:
    import flowsim

    function: Callable[..., Any] = getattr(flowsim, name)
    return function


def _of_trajectory(trajectory: Any, keep: str) -> Any:
    """Every recorded time, or the last. Wall-clock times are left out: results must not depend on them."""
    data = trajectory.to_xarray()
    if keep == "end":
        data = data.isel(step=-1)
    stats = json.loads(data.attrs.pop("stats"))
    counts = {name: value for name, value in stats.items() if isinstance(value, int) and name not in data}
    return data.assign(counts)


def _of_path(path: Any) -> Any:
    import xarray

    shape = ("feature", "target")[: path.saddles.ndim - 1]  # of one beta
    return xarray.Dataset(
        {
            "jump_times": ("jump", path.jump_times),
            "saddles": (("saddle", *shape), path.saddles),
            "end": (shape, path.end),
        },
        {"feature": list(path.problem.feature_names)},
        {"complete": bool(path.complete), "message": path.message},
    )
