"""How Python calls a function of bare arrays, and compiled code one that is compiled by itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numba import typeof

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import INTEGERS, compiled_bare
from flowsim.solvers.matrices.bare_arrays import bare_arrays, bare_type
from flowsim.solvers.matrices.scratch import ALIGNED, SCRATCH

#: Entries of scratch memory at first.
_FIRST = 1 << 14


class Entry:
    """A compiled function of scratch memory and bare arrays, as Python calls it: with arrays alone.

    Arrays must be contiguous, and may be changed by the function; results are copies. `examples` returns arguments of
    the usual types, to compile it in advance.
    """

    def __init__(self, function: Any, examples: Callable[[], Sequence[Any]] = tuple) -> None:
        def call(memory, *arguments):
            return function(bare_arrays(memory), *bare_arrays(arguments))

        self.compiled = compiled_bare(call, function.py_func)
        self._examples, self._size = examples, _FIRST

    def __call__(self, *arguments: Any) -> Any:
        while True:
            memory = np.empty(self._size, np.int64)
            memory[0] = ALIGNED
            try:
                return _owned(self.compiled(memory, *arguments))
            except MemoryError:
                self._size = 2 * len(memory)

    @property
    def declared(self) -> Any:
        """The types of arguments, for :mod:`flowsim.solvers.precompile`."""
        return INTEGERS, typeof(self._examples())


class Separate:
    """A function of scratch memory and bare arrays, compiled by itself, that compiled code calls by its address.

    So code that is seldom needed is compiled when first needed, and different processes can compile parts of an
    integrator at the same time. It returns nothing; :func:`.bare_arrays.call_at` calls it with arguments of the types
    of `examples`.
    """

    def __init__(self, function: Any, examples: Callable[[], Sequence[Any]]) -> None:
        def call(work, *arguments):
            function(work, *arguments)

        self.compiled = compiled_bare(call, function.py_func, no_cpython_wrapper=True)
        self._examples = examples

    @property
    def declared(self) -> Any:
        """The types of arguments."""
        return SCRATCH, bare_type(self._examples())

    @cached_property
    def address(self) -> int:
        """Compiled now, if it is not yet."""
        declared = self.declared
        self.compiled.compile(declared)
        found = self.compiled.overloads[declared]
        return int(found.library.get_pointer_to_function(found.fndesc.llvm_func_name))

    @property
    def known_address(self) -> int:
        """The address, 0 if it has not been asked for."""
        return int(self.__dict__.get("address", 0))


def entry(examples: Callable[[], Sequence[Any]]) -> Callable[[Any], Entry]:
    """Decorator of a function that compiled code does not call."""
    return lambda function: Entry(function, examples)


def separate(examples: Callable[[], Sequence[Any]]) -> Callable[[Any], Separate]:
    """Decorator of a function that compiled code calls by its address."""
    return lambda function: Separate(function, examples)


def _owned(found: Any) -> Any:
    """Copies of bare arrays in tuples."""
    if not isinstance(found, tuple):
        return found
    if found and found[0] is None:
        _, address, number, *shape = found
        return _copied(address, type(number), tuple(shape))
    parts = [_owned(each) for each in found]
    return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)


def _copied(address: int, kind: Any, shape: tuple[int, ...]) -> Array:
    out = np.empty(shape, kind)
    ctypes.memmove(out.ctypes.data, address, out.nbytes)
    return out
