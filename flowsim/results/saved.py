"""One file for any result: arrays as variables, results inside it under prefixes, all else as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowsim.json_values import plain
from flowsim.results.netcdf import Labelled, write

RESULT = "flowsim-result-1"


class Saved:
    """A result with :meth:`save`. Its own fields are written, unless it overrides how it is :meth:`_labelled`."""

    #: Fields that are dataclasses of plain values, or tuples of such: their classes.
    _PLAIN: ClassVar[dict[str, type]] = {}

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
        variables: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        inside: dict[str, Any] = {}
        attrs: dict[str, Any] = {"format": RESULT, "class": type(self).__name__}
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            parts = value if isinstance(value, tuple) else (value,)
            if isinstance(value, np.ndarray):
                variables[each.name] = on_own_axes(each.name, value)
            elif parts and all(isinstance(part, Saved) for part in parts):
                inside[each.name] = len(parts) if isinstance(value, tuple) else None
                for number, part in enumerate(parts):
                    data, prefix = part._labelled(), f"{each.name}.{number}."
                    attrs |= {prefix + name: attr for name, attr in data.attrs.items()}
                    for name, array in data.variables.items():
                        variables[prefix + name] = (tuple(prefix + axis for axis in array.dims), array.values)
            else:
                plain[each.name] = value
        attrs |= {"plain": json.dumps(plain, default=_as_plain), "inside": json.dumps(inside)}
        return Labelled.of(variables, {}, attrs)


def read_fields_of(kind: type[Saved], data: Labelled, read: Any) -> dict[str, Any]:
    """The fields of a result from its file; `read` makes a result of the data of one inside it."""
    found: dict[str, Any] = {name: array.values for name, array in data.variables.items() if "." not in name}
    for name, value in json.loads(data.attrs["plain"]).items():
        made = kind._PLAIN.get(name, lambda **values: values)
        if name in kind._PLAIN:
            value = [made(**part) for part in value] if isinstance(value, list) else made(**value)
        found[name] = tuple(value) if isinstance(value, list) else value
    for name, count in json.loads(data.attrs["inside"]).items():
        parts = tuple(read(_inside(data, f"{name}.{number}.")) for number in range(count or 1))
        found[name] = parts[0] if count is None else parts
    return found


def on_own_axes(name: str, values: Any) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
    """A variable with dimensions of its own."""
    array = np.asarray(values)
    return tuple(f"{name}_{axis}" for axis in range(array.ndim)), array


def _inside(data: Labelled, prefix: str) -> Labelled:
    variables = {
        name.removeprefix(prefix): array._replace(dims=tuple(axis.removeprefix(prefix) for axis in array.dims))
        for name, array in data.variables.items()
        if name.startswith(prefix)
    }
    attrs = {name.removeprefix(prefix): value for name, value in data.attrs.items() if name.startswith(prefix)}
    return Labelled(variables, (), attrs)


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not `asdict`, which copies what is inside as well.
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return plain(value)
