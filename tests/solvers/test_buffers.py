"""Named tuples in two buffers: what Python writes is what compiled code reads, and no fields overlap."""

from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.compilation import compiled
from flowsim.solvers.multistep.buffers import Memory, in_buffers, packed, table_of
from flowsim.solvers.multistep.workspace import in_memory
from flowsim.solvers.separable.distance_steps import address_of
from flowsim.solvers.simd import view


@in_buffers(constants=("count",), indices=("order",))
class Sums(NamedTuple):
    values: Any
    order: Any
    count: Any
    factor: Any


@compiled()
def weighted(integers, numbers, out):
    sums = view(Sums, in_memory(integers, numbers))
    for i in range(sums.count):
        out[i] = sums.factor[0] * sums.values[sums.order[i]]


def test_compiled_code_reads_what_was_packed() -> None:
    given = {"values": [[1.0, 2.0], [3.0, 4.0]], "order": [3, 0, 2], "count": 3, "factor": [0.5], "unused": [7.0]}
    table, numbers = packed(Sums, given)
    out = np.empty(3)
    weighted(address_of(table), address_of(numbers), out)
    assert out.tolist() == [2.0, 0.5, 1.5]
    memory = Memory(numbers, table)
    memory.floats(Sums, "factor", 1)[:] = 2.0
    memory.indices(Sums, "order", 3)[:] = 1
    memory.write(Sums, count=1)
    weighted(address_of(table), address_of(numbers), out)
    assert out.tolist() == [4.0, 0.5, 1.5]


def test_fields_do_not_overlap() -> None:
    table, size = table_of(Sums, {"values": 4, "order": 3, "count": 3, "factor": 1})
    memory = Memory(np.zeros(size), table)
    for name, length in (("values", 4), ("factor", 1)):
        memory.floats(Sums, name, length)[:] += 1.0
    memory.indices(Sums, "order", 3)[:] = 9
    assert (memory.buffer == 1.0).all()
    assert size == 5
    assert table.tolist()[-3:] == [9, 9, 9]
    assert table[memory.entry(Sums, "count")] == 3
