"""Compiled functions as plain Python on NumPy's arrays.

An integrator takes seconds to compile, which a first run of a small problem does not need: it takes less than a second
as Python (:class:`.calls.Entry` decides). It is the same source, but for products, factorisations and the longest
loops over entries (:func:`stands_for`), which are NumPy's: results agree to rounding. So this is also a reference for
tests of compiled code.
"""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.matrices import algebra, bare_arrays, scratch

_Names = dict[str, Any]


def _shaped(array: Any, first: int, shape: tuple[int, ...], number: Any) -> Any:
    return array.reshape(-1)[first : first + math.prod(shape)].reshape(shape)


def _call(separate: Any, arguments: tuple[Any, ...]) -> None:
    interpreted(separate.function)(*arguments)


def _copy(X: Array, out: Array) -> None:
    out.reshape(-1)[:] = X.reshape(-1)


def _add(X: Array, scale: float, Y: Array) -> None:
    X += (scale * Y).reshape(X.shape)


def _scale(X: Array, factor: float) -> None:
    X *= factor


def _add_product(A: Array, B: Array, out: Array) -> None:
    out += A @ B


def _add_combinations(out: Array, factor: float, weights: Array, X: Array) -> None:
    parts, _, count = weights.shape
    moved = (factor * weights) @ X.reshape(count, parts, -1).swapaxes(0, 1)
    out += moved.swapaxes(0, 1).reshape(out.shape)


def _scale_blocks(X: Array, factors: Array) -> None:
    n, m = factors.shape
    X.reshape(n, len(X) // n, m, -1)[...] *= factors[:, None, :, None]


def _invert(work: Any, M: Array) -> None:
    M[...] = np.linalg.inv(M)


def _orthonormal(work: Any, matrix: Array) -> tuple[Array, Array]:
    Q, triangle = np.linalg.qr(matrix)
    signs = np.where(np.diag(triangle) < 0.0, -1.0, 1.0)
    return np.ascontiguousarray(Q * signs), signs[:, None] * triangle


def _eigen(work: Any, matrix: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(matrix)
    return values, np.ascontiguousarray(vectors)


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
    (algebra.copy, _copy),
    (algebra.add, _add),
    (algebra.scale, _scale),
    (algebra.norm, np.linalg.norm),
    (algebra.inner, np.vdot),
    (algebra.add_combinations, _add_combinations),
    (algebra.scale_blocks, _scale_blocks),
    (algebra.complex_combinations, lambda work, weights, X: np.tensordot(weights, X, axes=1)),
    (algebra.real_combinations, lambda work, weights, X: np.tensordot(weights, X, axes=1).real.copy()),
    (algebra.add_product, _add_product),
    (algebra.product, lambda work, A, B: A @ B),
    (algebra.product_tn, lambda work, A, B: A.T @ B),
    (algebra.product_nt, lambda work, A, B: A @ B.T),
    (algebra.solve, lambda work, matrix, right: np.linalg.solve(matrix, right)),
    (algebra.invert, _invert),
    (algebra.orthonormal, _orthonormal),
    (algebra.eigen, _eigen),
]
_replacements = {id(each): by for each, by in _REPLACED}
_functions: dict[int, Any] = {}
_namespaces: dict[int, _Names] = {}


def stands_for(function: Any) -> Any:
    """Decorator: a function of NumPy's arrays takes the place of a compiled one that loops over entries."""

    def register(by: Any) -> Any:
        _replacements[id(function)] = by
        return by

    return register


def interpreted(function: Any) -> Any:
    """A compiled function as plain Python, which calls others, imported by their names, as plain Python."""
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
    """Call a compiled function as plain Python, with arrays; for scratch memory None.

    Arrays among the arguments are changed as by compiled code.

    Raises
    ------
    ArithmeticError, ValueError
        Where Python raises and compiled code gives infinity or NaN; the arguments are as before.
    """
    copies: list[tuple[Array, Array]] = []
    values = tuple(_given(each, copies) for each in arguments)
    with np.errstate(all="ignore"):
        found = interpreted(function)(*values)
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
