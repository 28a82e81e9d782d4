"""Results of functions as named arrays, and their encoding as bytes, without pickle.

A payload is a header (length, then JSON) followed by one ``.npy`` stream per array.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: NumPy kinds that are stored: booleans, integers, floats, complex, text, bytes, times.
_KINDS = "biufcUSmM"
#: Name of an unnamed result.
VALUE = "value"


@dataclass(frozen=True)
class Variable:
    dims: tuple[str, ...]
    values: NDArray[Any]
    is_coordinate: bool = False


@dataclass(frozen=True)
class Record:
    """One point's result."""

    variables: dict[str, Variable]
    attrs: dict[str, Any] = field(default_factory=dict)


def record(result: Any) -> Record:
    """The record of a result: a number, text, an array, a mapping of those, a dataset, or an object with
    ``to_xarray()``.

    Raises ValueError for other types.
    """
    if hasattr(result, "to_xarray"):
        result = result.to_xarray()
    if _is_xarray(result, "DataArray"):
        result = result.to_dataset(name=result.name or VALUE)
    if _is_xarray(result, "Dataset"):
        variables = {
            str(name): Variable(
                tuple(str(dim) for dim in array.dims), _array(str(name), array.values), name in result.coords
            )
            for name, array in result.variables.items()
        }
        return Record(variables, {str(name): _attribute(value) for name, value in result.attrs.items()})
    if not isinstance(result, Mapping):
        result = {VALUE: result}
    variables = {}
    for name, value in _flat(result):
        if name in variables:
            raise ValueError(f"the function's result gives {name!r} twice.")
        if _is_xarray(value, "DataArray"):
            variables[name] = Variable(tuple(str(dim) for dim in value.dims), _array(name, value.values))
        else:
            array = _array(name, value)
            variables[name] = Variable(tuple(f"{name}_dim_{axis}" for axis in range(array.ndim)), array)
    if not variables:
        raise ValueError("the function's result must hold at least one value; received an empty mapping.")
    return Record(variables)


def encode(record: Record) -> bytes:
    """A record as bytes: equal records give equal bytes."""
    header = {
        "attrs": record.attrs,
        "variables": [[name, list(v.dims), v.is_coordinate] for name, v in record.variables.items()],
    }
    text = json.dumps(header).encode()
    out = io.BytesIO()
    out.write(len(text).to_bytes(4, "little"))
    out.write(text)
    for variable in record.variables.values():
        np.save(out, variable.values, allow_pickle=False)
    return out.getvalue()


def decode(payload: bytes) -> Record:
    """The inverse of :func:`encode`.

    Raises ValueError if the bytes are not a payload.
    """
    try:
        source = io.BytesIO(payload)
        header = json.loads(source.read(int.from_bytes(source.read(4), "little")))
        variables = {}
        for name, dims, is_coordinate in header["variables"]:
            values = _read_array(source)
            if values.ndim != len(dims):
                raise ValueError(f"{name!r} has {values.ndim} dimensions and {len(dims)} names")
            variables[str(name)] = Variable(tuple(str(dim) for dim in dims), values, bool(is_coordinate))
        return Record(variables, dict(header["attrs"]))
    except Exception as error:  # NumPy's header reader alone raises five types
        raise ValueError(f"a stored point cannot be read ({error}).") from error


def _read_array(source: io.BytesIO) -> NDArray[Any]:
    start = source.tell()
    version = np.lib.format.read_magic(source)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"array format {version}")
    shape, _, dtype = read_header[version](source)
    left = source.getbuffer().nbytes - source.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > left:  # before anything of that size is allocated
        raise ValueError(f"an array of shape {shape} and type {dtype} does not fit the payload")
    source.seek(start)
    return np.load(source, allow_pickle=False)


def _is_xarray(value: Any, kind: str) -> bool:
    xarray = sys.modules.get("xarray")  # imported, if a dataset exists
    return xarray is not None and isinstance(value, getattr(xarray, kind))


def _flat(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"the function's result must be named by text; received the name {name!r}.")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"the function's result {name!r} is a masked array; fill it first.")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"the function's result {name!r} is not an array of one shape ({error}).") from None
    if array.dtype.kind in "OT" and array.size and all(isinstance(entry, str) for entry in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in _KINDS:
        raise ValueError(
            f"the function's result {name!r} must be numbers, text or arrays of them; "
            f"received {type(value).__name__} of type {array.dtype}."
        )
    return array


def _attribute(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
