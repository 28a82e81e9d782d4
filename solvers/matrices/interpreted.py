"""Functions of bare arrays as plain Python on NumPy's arrays.

An integrator takes seconds to compile, which a first run of a small problem does not need: it takes less than a second
as Python (:class:`.calls.Entry` decides). The operations and their order are the same, but where fast-math flags let
compiled code reassociate sums: results agree to rounding. So this is also a reference for tests of compiled code.
"""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.matrices import bare_arrays, scratch

_Names = dict[str, Any]


def _shaped(array: Any, first: int, shape: tuple[int, ...], number: Any) -> Any:
    return array.reshape(-1)[first : first + math.prod(shape)].reshape(shape)


def _call(separate: Any, arguments: tuple[Any, ...]) -> None:
    interpreted(separate.function)(*arguments)


#: What plain Python has in place of operations on memory; arrays are made anew, so that none need be released. NumPy's
#: functions of numbers give NaN and infinity where those of :mod:`math` raise.
_REPLACED = [
    (bare_arrays.shaped, _shaped),
    (bare_arrays.entries, math.prod),
    (bare_arrays.call_at, _call),
    (scratch.empty, lambda work, shape: np.empty(shape)),
    (scratch.empty_complex, lambda work, shape: np.empty(shape, complex)),
    (scratch.empty_integers, lambda work, count: np.empty(count, np.int64)),
    (scratch.zeros, lambda work, shape: np.zeros(shape)),
    (scratch.zeros_complex, lambda work, shape: np.zeros(shape, complex)),
    (scratch.full, lambda work, shape, value: np.full(shape, value)),
    (scratch.in_use, lambda work: 0),
    (scratch.release, lambda work, used: None),
    (math, np),
]
_replacements = {id(each): by for each, by in _REPLACED}
_functions: dict[int, Any] = {}
_namespaces: dict[int, _Names] = {}


def interpreted(function: Any) -> Any:
    """A compiled function as plain Python, which calls others as plain Python; it takes what :func:`given` returns."""
    known = _functions.get(id(function))
    if known is None:
        own = function.py_func
        known = FunctionType(own.__code__, _namespace(own.__globals__), own.__name__, own.__defaults__, own.__closure__)
        _functions[id(function)] = known
    return known


def _namespace(names: _Names) -> _Names:
    """A module's names, with plain Python for compiled functions."""
    known = _namespaces.get(id(names))
    if known is None:
        known = _namespaces[id(names)] = dict(names)
        known.update({name: _plain(value) for name, value in names.items()})
    return known


def _plain(value: Any) -> Any:
    if id(value) in _replacements:
        return _replacements[id(value)]
    return interpreted(value) if isinstance(value, Dispatcher) else value


def call(function: Any, *arguments: Any) -> Any:
    """Call a compiled function of scratch memory and bare arrays as plain Python, with arrays.

    Arrays among the arguments are changed as by compiled code.

    Raises
    ------
    ArithmeticError, ValueError
        Where Python raises and compiled code gives infinity or NaN; the arguments are as before.
    """
    copies: list[tuple[Array, Array]] = []
    values = tuple(_given(each, copies) for each in arguments)
    with np.errstate(all="ignore"):
        found = interpreted(function)(None, *values)
    result = _owned(found)
    for own, copy in copies:
        own[...] = copy
    return result


def _given(value: Any, copies: list[tuple[Array, Array]]) -> Any:
    """Copies of arrays, and numbers that do not raise for a division by zero."""
    if isinstance(value, np.ndarray):
        copies.append((value, value.copy()))
        return copies[-1][1]
    if isinstance(value, tuple):
        return rebuilt(value, [_given(each, copies) for each in value])
    if isinstance(value, float):
        return np.float64(value)
    return value


def _owned(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, tuple):
        return rebuilt(value, [_owned(each) for each in value])
    return value.item() if isinstance(value, np.generic) else value


def rebuilt(like: tuple[Any, ...], parts: list[Any]) -> Any:
    """A tuple, named as another is."""
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
