"""Assembly of finished points into one labelled dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowsim.sweep.codec import Record, Variable, decode
from flowsim.sweep.grid import Points
from flowsim.sweep.store import Outcome

if TYPE_CHECKING:
    import pandas
    import xarray

#: Largest integer that is exact as a float.
_EXACT = 2**53


def assemble(
    points: Points, outcomes: Sequence[Outcome], seeds: Sequence[int] | None, attrs: dict[str, Any]
) -> xarray.Dataset:
    """One dataset: the grid's dimensions first, then those of a point's result.

    Results of different lengths are padded with NaN (empty text, NaT); integers and booleans that need padding
    become floats. Attributes of the points that agree become the dataset's; the others become variables.
    """
    import xarray

    records = [decode(o.payload) if o.status == "done" else Record({}) for o in outcomes]
    errors = ["" if o.status == "done" else str(json.loads(o.payload)["error"]) for o in outcomes]
    coordinates: dict[str, Any] = dict(points.coordinates())
    coordinates["error"] = (points.dims, np.array(errors).reshape(points.shape))
    if seeds is not None:
        coordinates["seed"] = (points.dims, np.array(seeds, dtype=np.int64).reshape(points.shape))

    records, shared = _attributes_as_variables(records)
    taken = {*coordinates, *points.dims}
    data: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record.variables):
        columns = [record.variables.get(name) for record in records]
        present = [column for column in columns if column is not None]
        label = f"{name}_result" if name in taken else name
        if len(present[0].dims) == 1 and present[0].dims[0] == name and _all_equal(present):
            # A labelled axis that is equal in all points is an axis of the result.
            coordinates[label] = (label, present[0].values)
            continue
        dims, values = _stack(columns, points.shape, name)
        dims = tuple(f"{dim}_result" if dim in taken else dim for dim in dims)
        if label in dims:  # an axis whose labels differ from point to point
            label = f"{label}_labels"
        target = coordinates if present[0].is_coordinate else data
        target[label] = ((*points.dims, *dims), values)
    _same_length_everywhere(coordinates, data)
    return xarray.Dataset(data, coordinates, {**shared, **attrs})


def to_dataframe(dataset: xarray.Dataset) -> pandas.DataFrame:
    """A tidy table: one row for each point, its parameters, its seed, its scalar results and its error.

    Parameters
    ----------
    dataset : xarray.Dataset
        The result of :func:`flowsim.sweep.sweep`. ``dataset.to_dataframe()`` is the long table with one row for
        each entry of the array-valued results too.
    """
    import pandas

    points = dict(dataset["error"].sizes)
    scalar = [name for name in dataset.variables if set(dataset[name].dims) <= set(points)]
    coordinates = [name for name in scalar if name in dataset.coords and name not in ("seed", "error")]
    last = [name for name in ("seed",) if name in dataset.coords]
    order = [*coordinates, *last, *(name for name in scalar if name in dataset.data_vars), "error"]
    return pandas.DataFrame({name: np.ravel(dataset[name].variable.set_dims(points).values) for name in order})


def _attributes_as_variables(records: list[Record]) -> tuple[list[Record], dict[str, Any]]:
    done = [record for record in records if record.variables]
    names = dict.fromkeys(name for record in done for name in record.attrs)
    shared: dict[str, Any] = {}
    changed = [Record(dict(record.variables)) for record in records]
    for name in names:
        values = [record.attrs.get(name) for record in done]
        texts = {json.dumps(value) for value in values}
        if len(texts) == 1:
            plain = isinstance(values[0], int | float | str)
            value = values[0] if plain else json.dumps(values[0])
            shared[name] = int(value) if isinstance(value, bool) else value  # NetCDF attributes have no booleans
            continue
        kinds = {type(value) for value in values}
        plain = kinds <= {bool, int} or kinds <= {int, float} or kinds == {str}
        for record, target in zip(records, changed, strict=True):
            if name in record.attrs and name not in record.variables:
                value = record.attrs[name]
                target.variables[name] = Variable((), np.asarray(value if plain else json.dumps(value)))
    return changed, shared


def _all_equal(columns: list[Variable]) -> bool:
    first = columns[0].values
    return all(c.values.dtype == first.dtype and np.array_equal(c.values, first) for c in columns[1:])


def _stack(columns: list[Variable | None], shape: tuple[int, ...], name: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """One array over all points, padded where a point has no value."""
    present = [column for column in columns if column is not None]
    ranks = {column.values.ndim for column in present}
    if len(ranks) > 1 or len({column.dims for column in present}) > 1:
        raise ValueError(f"the function's result {name!r} has different dimensions in different points.")
    dims = present[0].dims
    sizes = tuple(max(column.values.shape[axis] for column in present) for axis in range(len(dims)))
    ragged = len(present) < len(columns) or any(column.values.shape != sizes for column in present)
    dtype = _common_dtype([column.values.dtype for column in present], name)
    fill: Any = None
    if ragged:
        dtype, fill = _filled(dtype, present)
    values = np.empty((len(columns), *sizes), dtype=dtype)
    if ragged:
        values[...] = fill
    for index, column in enumerate(columns):
        if column is not None:
            corner = tuple(slice(size) for size in column.values.shape)
            values[index, ...][corner] = column.values
    return dims, values.reshape((*shape, *sizes))


def _common_dtype(dtypes: list[np.dtype[Any]], name: str) -> np.dtype[Any]:
    families = {"text" if dtype.kind in "US" else "time" if dtype.kind in "mM" else "number" for dtype in dtypes}
    if len(families) > 1:
        raise ValueError(f"the function's result {name!r} is {' and '.join(sorted(families))} in different points.")
    return np.result_type(*set(dtypes))


def _filled(dtype: np.dtype[Any], present: list[Variable]) -> tuple[np.dtype[Any], Any]:
    if dtype.kind in "US":
        return dtype, dtype.type()
    if dtype.kind in "mM":
        return dtype, np.array("NaT", dtype=dtype)
    if dtype.kind in "fc":
        return dtype, np.nan
    large = any(
        abs(int(entry)) > _EXACT for c in present if c.values.size for entry in (c.values.min(), c.values.max())
    )
    return (np.dtype(object), None) if large else (np.dtype(float), np.nan)


def _same_length_everywhere(coordinates: dict[str, Any], data: dict[str, Any]) -> None:
    """Rename dimensions that are shared by results of different lengths, so that labels fit."""
    sizes: dict[str, int] = {}
    for group in (coordinates, data):
        for name, (dims, values) in list(group.items()):
            dims = (dims,) if isinstance(dims, str) else tuple(dims)
            renamed = tuple(
                dim if sizes.setdefault(dim, size) == size else f"{name}_{dim}"
                for dim, size in zip(dims, np.shape(values), strict=True)
            )
            group[name] = (renamed, values)
