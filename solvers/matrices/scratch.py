"""Memory for the matrices that a compiled function makes.

A workspace is taken from its beginning; what a part of the computation no longer needs is given back by
:func:`release`. It belongs to the :class:`.calls.Entry` by which Python calls the function, which enlarges it when it
does not suffice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from flowsim.solvers.compilation import bare
from flowsim.solvers.matrices.bare_arrays import BareArray, entries, shaped

#: Entries to which the beginning of every array is aligned.
_ALIGNED = 8


class Scratch(NamedTuple):
    """Memory, and the number of entries in use, (1,)."""

    memory: Any
    used: Any


#: Its type in compiled code.
SCRATCH = types.NamedTuple([BareArray(types.float64, 1), BareArray(types.int64, 1)], Scratch)


@bare()
def _reserve(work, count):
    """The first of `count` entries."""
    first = work.used[0]
    last = first + (count + _ALIGNED - 1) // _ALIGNED * _ALIGNED
    if last > len(work.memory):
        raise MemoryError
    work.used[0] = last
    return first


@bare()
def empty(work, shape):
    """An uninitialised bare array of a shape, a tuple."""
    return shaped(work.memory, _reserve(work, entries(shape)), shape, 0.0)


@bare()
def empty_complex(work, shape):
    return shaped(work.memory, _reserve(work, 2 * entries(shape)), shape, 0.0j)


@bare()
def empty_integers(work, count):
    return shaped(work.memory, _reserve(work, count), (count,), 0)


@bare()
def full(work, shape, value):
    """With all entries equal."""
    first, count = work.used[0], entries(shape)
    out = empty(work, shape)
    for i in range(first, first + count):
        work.memory[i] = value
    return out


@bare()
def zeros(work, shape):
    return full(work, shape, 0.0)


@bare()
def zeros_complex(work, shape):
    first, count = work.used[0], entries(shape)
    out = empty_complex(work, shape)
    for i in range(first, first + 2 * count):
        work.memory[i] = 0.0
    return out


@bare()
def in_use(work):
    """For :func:`release`."""
    return work.used[0]


@bare()
def release(work, used):
    """Give back what was taken since :func:`in_use`."""
    work.used[0] = used
