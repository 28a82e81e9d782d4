"""How Python calls a function of bare arrays, and compiled code one that is compiled by itself."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import numpy as np
from numba import typeof

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import INTEGERS, compiled_bare
from flowsim.solvers.matrices import interpreted
from flowsim.solvers.matrices.bare_arrays import bare_arrays, bare_type
from flowsim.solvers.matrices.scratch import ALIGNED, SCRATCH
from flowsim.solvers.precompile import compile_ahead

#: Entries of scratch memory at first.
_FIRST = 1 << 14
#: Entries of the arguments up to which a function that is not compiled yet is interpreted.
_SMALL = 50_000
#: Operations on numbers up to which a loop that is not compiled yet is.
_FEW_OPERATIONS = 4e6


class Allowance:
    """The processor time that a process may still spend on interpreted functions, whatever else the machine does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Less by what the block takes."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self.seconds -= time.thread_time() - begun


#: With ``FLOWSIM_INTERPRET=0`` there is none, and the digits of a first run are those of all others.
ALLOWANCE = Allowance(10.0 if os.environ.get("FLOWSIM_INTERPRET", "1") != "0" else 0.0)


class Entry:
    """A compiled function of scratch memory and bare arrays, as Python calls it: with arrays alone.

    Arrays must be contiguous, and may be changed by the function; results are copies. A :class:`Separate` stands for
    its address. `examples` returns arguments of the usual types, with which the function can be compiled in advance;
    until it is, it is interpreted (:mod:`.interpreted`) as long as that takes little.
    """

    def __init__(self, function: Any, examples: Callable[[], Sequence[Any]] | None = None) -> None:
        def call(memory, *arguments):
            return function(bare_arrays(memory), *bare_arrays(arguments))

        self.compiled = compiled_bare(call, function.py_func)
        self.function, self._examples, self._size = function, examples, _FIRST
        function.entry = self

    def __call__(self, *arguments: Any) -> Any:
        if self.is_interpreted(*arguments):
            with suppress(ArithmeticError, ValueError), ALLOWANCE.spent():
                return interpreted.call(self.function, None, *arguments)
        addresses = _addresses(arguments)
        while True:
            memory = np.empty(self._size, np.int64)
            memory[0] = ALIGNED
            try:
                return _owned(self.compiled(memory, *addresses))
            except MemoryError:
                self._size = 2 * len(memory)

    def is_interpreted(self, *arguments: Any) -> bool:
        """Whether a call with these arguments is."""
        if self._examples is None or self.compiled.overloads or ALLOWANCE.seconds <= 0.0:
            return False
        if self.compiled._cache.is_filled and all(each.is_compiled for each in _separate(arguments)):
            return False
        return _entries(arguments) <= _SMALL

    @property
    def declared(self) -> Any:
        """The types of arguments, for :mod:`flowsim.solvers.precompile`."""
        return INTEGERS, typeof(tuple(self._examples() if self._examples else ()))


def call_loop(loop: Any, operations: float, *arguments: Any) -> Any:
    """Call a compiled function of arrays, which is interpreted if it is not compiled yet and has few operations."""
    is_compiled = loop.overloads or loop._cache.is_filled
    if not is_compiled and operations <= _FEW_OPERATIONS and ALLOWANCE.seconds > 0.0:
        compile_ahead([f"{loop.__module__}:{loop.__name__}"], linear_algebra=True)
        with suppress(ArithmeticError, ValueError), ALLOWANCE.spent():
            return interpreted.call(loop, *arguments)
    return loop(*arguments)


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
        self.function, self._examples = function, examples

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
    def is_compiled(self) -> bool:
        """Whether it has its address, or code on disk."""
        return "address" in self.__dict__ or self.compiled._cache.is_filled


def _addresses(value: Any) -> Any:
    """The argument for compiled code."""
    if isinstance(value, Separate):
        return value.address
    return interpreted.rebuilt(value, [_addresses(each) for each in value]) if isinstance(value, tuple) else value


def _separate(value: Any) -> Iterator[Separate]:
    if isinstance(value, Separate):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _separate(each)


def _entries(value: Any) -> int:
    return sum(map(_entries, value)) if isinstance(value, tuple) else np.size(value)


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
    return interpreted.rebuilt(found, [_owned(each) for each in found])


def _copied(address: int, kind: Any, shape: tuple[int, ...]) -> Array:
    out = np.empty(shape, kind)
    ctypes.memmove(out.ctypes.data, address, out.nbytes)
    return out
