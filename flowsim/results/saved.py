"""One file for any result: arrays as variables named by their place in it, all else as JSON.

Objects are told by their class and fields; what occurs twice is written once. They are made again by known functions
alone: nothing in a file is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowsim.json_values import plain
from flowsim.results.fields import fields_of
from flowsim.results.netcdf import Labelled, write

RESULT = "flowsim-result-2"


class Saved:
    """A result with :meth:`save`. Its own fields are written, unless it overrides how it is :meth:`_labelled`."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write as NetCDF what :func:`flowsim.load` reads; the file appears whole or not at all.

        A trajectory comes back without its dense output, a limit path without its fractions (``exact``).

        Raises
        ------
        ValueError
            If `path` ends in anything but .nc or .netcdf (the classic form), .nc4, .h5 or .hdf5 (that of HDF5), or
            for a limit path whose X is a LinearOperator or whose loss is one of your own.
        MissingExtraError
            For HDF5 without the extra of that name.
        """
        return write(self._labelled(), path, "to_dataframe()" if hasattr(self, "to_dataframe") else "its arrays")

    def _labelled(self) -> Labelled:
        writer = _Writer()
        told = writer.told(self, "")
        return Labelled.of(writer.variables, {}, {"format": RESULT, "result": json.dumps(told), **writer.attrs})


class _Writer:
    """Tells values as JSON, and collects their arrays."""

    def __init__(self) -> None:
        self.variables: dict[str, Any] = {}
        self.attrs: dict[str, Any] = {}
        self._known: dict[int, tuple[Any, str]] = {}  # the object too: its id stays taken while it lives

    def told(self, value: Any, place: str) -> Any:
        """A value at a place, the names of the fields that lead to it."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if id(value) in self._known:
            return {"same": self._known[id(value)][1]}
        self._known[id(value)] = value, place
        inner = f"{place}." if place else ""
        if isinstance(value, np.ndarray):
            return {"array": self._put(place, value)}
        if isinstance(value, tuple) and _are_vectors(value):
            return {"parts": self._put(place, np.concatenate(value)), "lengths": [len(part) for part in value]}
        if isinstance(value, list | tuple):
            parts = [self.told(part, f"{inner}{number}") for number, part in enumerate(value)]
            return {type(value).__name__: parts}
        if isinstance(value, Mapping):
            return {"dict": {str(name): self.told(part, f"{inner}{name}") for name, part in value.items()}}
        if isinstance(value, Saved) and type(value)._labelled is not Saved._labelled:
            data = value._labelled()
            self.attrs |= {inner + name: attr for name, attr in data.attrs.items()}
            for name, array in data.variables.items():
                self.variables[inner + name] = (tuple(inner + axis for axis in array.dims), array.values)
            return {"inside": inner}
        fields = fields_of(value)
        if fields is None:
            return plain(value)
        told = {name: self.told(part, f"{inner}{name}") for name, part in fields.items()}
        return {"class": type(value).__name__, "fields": told}

    def _put(self, place: str, values: np.ndarray[Any, Any]) -> str:
        self.variables[place] = (tuple(f"{place}_{axis}" for axis in range(values.ndim)), values)
        return place


def _are_vectors(parts: tuple[Any, ...]) -> bool:
    """Whether there are some, all of them vectors of one type."""
    vectors = [part.dtype for part in parts if isinstance(part, np.ndarray) and part.ndim == 1]
    return len(vectors) == len(parts) and len(set(vectors)) == 1


def read_result(data: Labelled, makers: Mapping[str, Callable[..., Any]], read: Callable[[Labelled], Any]) -> Any:
    """What :meth:`Saved.save` wrote.

    `makers`: functions of the fields, by the names of classes; `read` makes a result of the data of one inside it.
    """
    found: dict[str, Any] = {}

    def made(told: Any, place: str) -> Any:
        inner = f"{place}." if place else ""
        match told:
            case {"same": first}:
                return found[first]
            case {"array": name}:
                value: Any = data[name].values
            case {"parts": name, "lengths": lengths}:
                value = tuple(np.split(data[name].values, np.cumsum(lengths)[:-1]))
            case {"list": parts} | {"tuple": parts}:
                value = [made(part, f"{inner}{number}") for number, part in enumerate(parts)]
                value = value if "list" in told else tuple(value)
            case {"dict": parts}:
                value = {name: made(part, f"{inner}{name}") for name, part in parts.items()}
            case {"inside": prefix}:
                value = read(_inside(data, prefix))
            case {"class": name, "fields": fields}:
                value = makers[name](**{each: made(part, f"{inner}{each}") for each, part in fields.items()})
            case _:
                return told
        found[place] = value
        return value

    return made(json.loads(data.attrs["result"]), "")


def _inside(data: Labelled, prefix: str) -> Labelled:
    variables = {
        name.removeprefix(prefix): array._replace(dims=tuple(axis.removeprefix(prefix) for axis in array.dims))
        for name, array in data.variables.items()
        if name.startswith(prefix)
    }
    attrs = {name.removeprefix(prefix): value for name, value in data.attrs.items() if name.startswith(prefix)}
    return Labelled(variables, (), attrs)
