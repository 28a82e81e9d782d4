"""Grids and lists of parameter points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Absent:
    """The value of a parameter that a listed point does not give, but another one does."""

    def __repr__(self) -> str:
        return ""


ABSENT = _Absent()


@dataclass(frozen=True)
class Points:
    """The points of a sweep: every combination of the axes, or a list."""

    #: of the labelled result: one dimension per axis of a grid, or the one dimension ``point`` of a list
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    #: dict name -> list, values along the parameter's own dimension; of a list, along ``point``
    axes: dict[str, list[Any]]
    constants: dict[str, Any]  #: parameters that are equal in all points
    is_list: bool = False

    @classmethod
    def read(cls, grid: Any) -> Points:
        """Read a mapping (a grid) or a sequence of mappings (a list of points).

        Raises ValueError for an empty grid, list or axis, and for names that are not text.
        """
        if isinstance(grid, Mapping):
            return cls._from_axes(grid)
        if isinstance(grid, Sequence) and not isinstance(grid, str | bytes):
            return cls._from_list(grid)
        raise ValueError(f"`grid` must map parameters to lists of values; received {type(grid).__name__}.")

    @classmethod
    def _from_axes(cls, grid: Mapping[Any, Any]) -> Points:
        _check_names(grid, "`grid`")
        if not grid:
            raise ValueError("`grid` must name at least one parameter; received an empty mapping.")
        axes: dict[str, list[Any]] = {}
        constants: dict[str, Any] = {}
        for name, value in grid.items():
            values = _axis(name, value)
            if values is None:
                constants[name] = value
            elif not values:
                raise ValueError(f"`grid[{name!r}]` must hold at least one value; received an empty list.")
            else:
                axes[name] = values
        return cls(tuple(axes), tuple(len(values) for values in axes.values()), axes, constants)

    @classmethod
    def _from_list(cls, points: Sequence[Any]) -> Points:
        if not points:
            raise ValueError("`grid` must hold at least one point; received an empty list.")
        for index, point in enumerate(points):
            if not isinstance(point, Mapping):
                raise ValueError(f"`grid[{index}]` must map parameters to values; received {type(point).__name__}.")
            _check_names(point, f"`grid[{index}]`")
        names = dict.fromkeys(name for point in points for name in point)
        axes = {name: [_plain(point.get(name, ABSENT)) for point in points] for name in names}
        return cls(("point",), (len(points),), axes, {}, is_list=True)

    def all(self) -> list[dict[str, Any]]:
        """The parameters of each point, in C order of the result."""
        if self.is_list:
            rows = [dict(zip(self.axes, row, strict=True)) for row in zip(*self.axes.values(), strict=True)]
            rows = rows or [{} for _ in range(self.shape[0])]
            return [{name: value for name, value in row.items() if value is not ABSENT} for row in rows]
        return [
            {**self.constants, **dict(zip(self.axes, row, strict=True))}
            for row in itertools.product(*self.axes.values())
        ]

    def coordinates(self) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        """Labels of every parameter, as (dims, values)."""
        return {
            name: (self.dims if self.is_list else (name,), _labels(values)) for name, values in self.axes.items()
        } | {name: ((), _labels([value])[0]) for name, value in self.constants.items()}


def describe(value: Any) -> str:
    """A parameter in one short line."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def _check_names(mapping: Mapping[Any, Any], where: str) -> None:
    for name in mapping:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where} must name parameters by text; received {name!r}.")
        if name == "error":
            raise ValueError(f"{where} cannot name a parameter 'error': the errors of the points go by that name.")


def _axis(name: str, value: Any) -> list[Any] | None:
    """The values of an axis, or None for a constant."""
    if isinstance(value, list | tuple | range):
        return [_plain(entry) for entry in value]
    if hasattr(value, "__array__") and np.ndim(value) > 0:  # arrays, and pandas and xarray columns
        array = np.asarray(value)
        if array.ndim > 1:
            raise ValueError(
                f"`grid[{name!r}]` must be a vector of values; received shape {array.shape} "
                "(write [array] to keep an array as one value)."
            )
        return [_plain(entry) for entry in array]
    if isinstance(value, set | frozenset) or hasattr(value, "__next__"):
        raise ValueError(f"`grid[{name!r}]` must have an order, as a list has; received {type(value).__name__}.")
    return None


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's, so that 0.1 is one point however it was made."""
    if isinstance(value, np.bool_ | np.integer | np.floating | np.complexfloating | np.str_):
        return value.item() if value.dtype.itemsize <= 16 or isinstance(value, np.str_) else value
    return value


def _labels(values: list[Any]) -> NDArray[Any]:
    if all(isinstance(value, bool) for value in values):
        return np.array(values)
    numbers = all(
        (isinstance(value, int | float) and not isinstance(value, bool)) or value is ABSENT for value in values
    )
    if numbers and any(value is not ABSENT for value in values):
        if any(value is ABSENT or isinstance(value, float) for value in values):
            return np.array([math.nan if value is ABSENT else value for value in values], dtype=float)
        if all(abs(value) < 2**63 for value in values):
            return np.array(values, dtype=np.int64)
    texts = [describe(value) for value in values]
    first: dict[str, Any] = {}
    for index, (text, value) in enumerate(zip(texts, values, strict=True)):
        # Different objects may print alike; labels must tell them apart.
        if not isinstance(value, str) and value is not ABSENT and first.setdefault(text, value) is not value:
            same = isinstance(value, int | float | complex) and value == first[text]
            texts[index] = text if same else f"{text} ({index})"
    return np.array(texts)
