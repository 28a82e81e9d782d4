"""Memory for the matrices that a compiled function makes.

Scratch memory `work` is a bare array of integers: the number of entries in use, then the entries, which are taken from
the beginning; what a part of the computation no longer needs is given back by :func:`release`. It belongs to the
:class:`.calls.Entry` by which Python calls the function, which enlarges it when it does not suffice.
"""

from __future__ import annotations

from numba import types

from flowsim.solvers.compilation import bare
from flowsim.solvers.matrices.bare_arrays import BareArray, entries, shaped

#: Its type in compiled code.
SCRATCH = BareArray(types.int64, 1)
#: Entries to which the beginning of every array is aligned; the first of them are the number in use.
ALIGNED = 8


@bare()
def _reserve(work, count):
    """The first of `count` entries."""
    first = work[0]
    last = first + (count + ALIGNED - 1) // ALIGNED * ALIGNED
    if last > len(work):
        raise MemoryError
    work[0] = last
    return first


@bare()
def empty(work, shape):
    """An uninitialised bare array of a shape, a tuple."""
    return shaped(work, _reserve(work, entries(shape)), shape, 0.0)


@bare()
def empty_complex(work, shape):
    return shaped(work, _reserve(work, 2 * entries(shape)), shape, 0.0j)


@bare()
def empty_integers(work, count):
    return shaped(work, _reserve(work, count), (count,), 0)


@bare()
def full(work, shape, value):
    """With all entries equal."""
    out = empty(work, shape)
    entry = shaped(out, 0, (out.size,), 0.0)
    for i in range(len(entry)):
        entry[i] = value
    return out


@bare()
def zeros(work, shape):
    return full(work, shape, 0.0)


@bare()
def zeros_complex(work, shape):
    out = empty_complex(work, shape)
    entry = shaped(out, 0, (2 * out.size,), 0.0)
    for i in range(len(entry)):
        entry[i] = 0.0
    return out


@bare()
def in_use(work):
    """For :func:`release`."""
    return work[0]


@bare()
def release(work, used):
    """Give back what was taken since :func:`in_use`."""
    work[0] = used
