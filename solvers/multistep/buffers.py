"""Named tuples whose fields lie in two buffers, of integers and of floats: their layout, and how Python fills them.

The integers begin with one entry for each field: a constant, or the offset of an array in the integers ("indices") or
in the floats. Compiled code reads the fields with :func:`flowsim.solvers.simd.view`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.array_kinds import Array, Index


def in_buffers(constants: Collection[str] = (), indices: Collection[str] = ()) -> Callable[[Any], Any]:
    """Decorator of a named tuple that says which fields are constants and arrays of integers; all others are floats."""

    def declare(kind: Any) -> Any:
        kind.PLACE = 0
        kind.HOLDS = {
            name: "constants" if name in constants else "indices" if name in indices else "floats"
            for name in kind._fields
        }
        return kind

    return declare


def table_of(kind: Any, sizes: Mapping[str, int]) -> tuple[Index, int]:
    """The integers, and the number of floats, for arrays of these sizes and the constants among them."""
    entries, ends = [], {"indices": len(kind._fields), "floats": 0}
    for name, holds in kind.HOLDS.items():
        entries.append(ends.get(holds, sizes[name]))
        if holds in ends:
            ends[holds] += sizes[name]
    table = np.zeros(ends["indices"], dtype=np.int64)
    table[: len(entries)] = entries
    return table, ends["floats"]


def packed(kind: Any, values: Mapping[str, Any]) -> tuple[Index, Array]:
    """The two buffers with the constants and copies of the arrays; `values` may name more than the fields."""
    entries: list[int] = []
    parts: dict[str, list[Any]] = {"indices": [], "floats": []}
    ends = {"indices": len(kind._fields), "floats": 0}
    for name, holds in kind.HOLDS.items():
        if holds == "constants":
            entries.append(values[name])
            continue
        array = np.ravel(values[name])
        entries.append(ends[holds])
        parts[holds].append(array)
        ends[holds] += len(array)
    return np.concatenate([entries, *parts["indices"]], dtype=np.int64), np.concatenate(parts["floats"], dtype=float)


class Memory(NamedTuple):
    """A workspace in Python: its arrays and numbers by the names of :mod:`flowsim.solvers.multistep.workspace`."""

    buffer: Array
    table: Index

    def entry(self, kind: Any, name: str) -> int:
        """The position in the table of a field of a tuple."""
        return int(kind.PLACE + kind._fields.index(name))

    def floats(self, kind: Any, name: str, size: int) -> Array:
        """The first entries of an array of floats, which may be written."""
        first = self.table[self.entry(kind, name)]
        return self.buffer[first : first + size]

    def indices(self, kind: Any, name: str, size: int) -> Index:
        """The first entries of an array of integers."""
        first = self.table[self.entry(kind, name)]
        return self.table[first : first + size]

    def write(self, kind: Any, **numbers: int) -> None:
        """Write constants or numbers."""
        for name, number in numbers.items():
            self.table[self.entry(kind, name)] = number
