"""Eight floats as one value in compiled code: ``load(x, i) * load(y, i) + 2.0`` becomes vector instructions.

A loop that Numba is left to vectorise keeps no array of sums in registers and asks again and again whether its arrays
overlap. Here the eight numbers are one of LLVM's own vectors; the processor's register width does not change a result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import datamodel
from numba.extending import intrinsic, overload, register_model

__all__ = ["EIGHT", "add_up", "constant", "load", "load_part", "spread", "store", "store_part"]

EIGHT = 8

_LLVM = ir.VectorType(ir.DoubleType(), EIGHT)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_CHOICE = ir.VectorType(ir.IntType(1), EIGHT)
_compiled: Any = intrinsic
#: A product may be rounded together with the sum it enters.
_FLAGS = ("contract",)


class _Eight(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Eight")


_eight = _Eight()


@register_model(_Eight)
class _EightModel(datamodel.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM)


def _address(context: Any, builder: Any, kind: Any, array: Any, first: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [first]), _LLVM.as_pointer())


@_compiled
def load(typing_context: Any, array: Any, first: Any) -> Any:
    """``array[first : first + 8]`` of a flat contiguous array, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=8)

    return _eight(array, types.int64), generate


@_compiled
def store(typing_context: Any, array: Any, first: Any, value: Any) -> Any:
    """``array[first : first + 8] = value``, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, first, value = arguments
        builder.store(value, _address(context, builder, signature.args[0], array, first), align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, _eight), generate


@_compiled
def load_part(typing_context: Any, array: Any, first: Any, count: Any) -> Any:
    """The first `count` of ``array[first : first + 8]``, zeros for the others, which are not read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments[:2])
        kind = ir.FunctionType(_LLVM, [address.type, _INT32, _CHOICE, _LLVM])
        function = builder.module.declare_intrinsic("llvm.masked.load.v8f64.p0v8f64", fnty=kind)
        return builder.call(function, [address, _INT32(8), _below(builder, arguments[2]), _LLVM([0.0] * EIGHT)])

    return _eight(array, types.int64, types.int64), generate


@_compiled
def store_part(typing_context: Any, array: Any, first: Any, count: Any, value: Any) -> Any:
    """Store the first `count` of the eight."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, first, count, value = arguments
        address = _address(context, builder, signature.args[0], array, first)
        kind = ir.FunctionType(ir.VoidType(), [_LLVM, address.type, _INT32, _CHOICE])
        function = builder.module.declare_intrinsic("llvm.masked.store.v8f64.p0v8f64", fnty=kind)
        builder.call(function, [value, address, _INT32(8), _below(builder, count)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, _eight), generate


@_compiled
def spread(typing_context: Any, array: Any, index: Any) -> Any:
    """Eight times ``array[index]``, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        return _everywhere(builder, builder.load(builder.gep(data, [index])))

    return _eight(array, types.int64), generate


@_compiled
def constant(typing_context: Any, value: Any) -> Any:
    """Eight times the same number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _everywhere(builder, arguments[0])

    return _eight(types.float64), generate


@_compiled
def add_up(typing_context: Any, value: Any) -> Any:
    """The sum of the eight, in halves."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts, count = arguments[0], EIGHT
        while count > 1:
            count //= 2
            low, high = (
                builder.shuffle_vector(parts, parts, ir.VectorType(_INT32, count)(list(range(first, first + count))))
                for first in (0, count)
            )
            parts = builder.fadd(low, high)
        return builder.extract_element(parts, _INT32(0))

    return types.float64(_eight), generate


def _everywhere(builder: Any, value: Any) -> Any:
    undefined = ir.VectorType(value.type, EIGHT)(ir.Undefined)
    single = builder.insert_element(undefined, value, _INT32(0))
    return builder.shuffle_vector(single, undefined, ir.VectorType(_INT32, EIGHT)([0] * EIGHT))


def _below(builder: Any, count: Any) -> Any:
    """Which of the eight places lie below `count`."""
    places = ir.VectorType(_INT64, EIGHT)(list(range(EIGHT)))
    return builder.icmp_signed("<", places, _everywhere(builder, count))


def _define(symbol: Callable[..., Any], instruction: str) -> None:
    @_compiled
    def combine(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=_FLAGS)

        return _eight(_eight, _eight), generate

    @overload(symbol, inline="always")
    def _combine(a, b):
        if a is _eight and b is _eight:
            return lambda a, b: combine(a, b)
        if b is _eight and isinstance(a, types.Float):
            return lambda a, b: combine(constant(a), b)
        return None


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
