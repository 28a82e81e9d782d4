"""Eight floats as one value in compiled code: ``load(x, i) * load(y, i) + 2.0`` becomes vector instructions.

An automatically vectorised loop keeps no array of sums in registers and tests repeatedly whether its arrays
overlap. Here the eight numbers are an LLVM vector; results do not depend on the processor's register width.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import datamodel
from numba.core.imputils import lower_builtin
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, register_model

from flowsim.solvers.simd.pointers import entry

EIGHT = 8

_LLVM = ir.VectorType(ir.DoubleType(), EIGHT)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_CHOICE = ir.VectorType(ir.IntType(1), EIGHT)
_BITS = ir.VectorType(_INT64, EIGHT)
_compiled: Any = intrinsic
#: LLVM's flag for fused multiply-add.
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
    return builder.bitcast(entry(context, builder, kind, array, first), _LLVM.as_pointer())


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
        function = builder.module.declare_intrinsic("llvm.masked.load.v8f64.p0", fnty=kind)
        return builder.call(function, [address, _INT32(8), _below(builder, arguments[2]), _LLVM([0.0] * EIGHT)])

    return _eight(array, types.int64, types.int64), generate


@_compiled
def store_part(typing_context: Any, array: Any, first: Any, count: Any, value: Any) -> Any:
    """Store the first `count` of the eight."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, first, count, value = arguments
        address = _address(context, builder, signature.args[0], array, first)
        kind = ir.FunctionType(ir.VoidType(), [_LLVM, address.type, _INT32, _CHOICE])
        function = builder.module.declare_intrinsic("llvm.masked.store.v8f64.p0", fnty=kind)
        builder.call(function, [value, address, _INT32(8), _below(builder, count)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, _eight), generate


@_compiled
def gather(typing_context: Any, array: Any, places: Any, first: Any) -> Any:
    """``array[places[first : first + 8]]``, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, places, first = arguments
        value: Any = _LLVM(ir.Undefined)
        for lane in range(EIGHT):
            place = builder.load(entry(context, builder, signature.args[1], places, builder.add(first, _INT64(lane))))
            found = builder.load(entry(context, builder, signature.args[0], array, place))
            value = builder.insert_element(value, found, _INT32(lane))
        return value

    return _eight(array, places, types.int64), generate


@_compiled
def spread(typing_context: Any, array: Any, index: Any) -> Any:
    """Eight times ``array[index]``, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _everywhere(builder, builder.load(entry(context, builder, signature.args[0], *arguments)))

    return _eight(array, types.int64), generate


@_compiled
def constant(typing_context: Any, value: Any) -> Any:
    """Eight times the same number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _everywhere(builder, arguments[0])

    return _eight(types.float64), generate


@_compiled
def only(typing_context: Any, place: Any) -> Any:
    """The unit vector of one place, 0 to 7; zero for any other place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        here = builder.icmp_signed("==", _places(), _everywhere(builder, arguments[0]))
        return builder.select(here, _LLVM([1.0] * EIGHT), _LLVM([0.0] * EIGHT))

    return _eight(types.int64), generate


@_compiled
def add_up(typing_context: Any, value: Any) -> Any:
    """The sum of the eight, by pairwise summation."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _in_halves(builder, arguments[0], builder.fadd)

    return types.float64(_eight), generate


@_compiled
def greater(typing_context: Any, a: Any, b: Any) -> Any:
    """The greater of two, place by place; b where a is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return _eight(_eight, _eight), generate


@_compiled
def below(typing_context: Any, a: Any, b: Any, then: Any, other: Any) -> Any:
    """`then` where a < b, `other` elsewhere and where one is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, then, other = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), then, other)

    return _eight(_eight, _eight, _eight, _eight), generate


@_compiled
def magnitude(typing_context: Any, value: Any) -> Any:
    """Absolute values."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask = _BITS([(1 << 63) - 1] * EIGHT)
        return builder.bitcast(builder.and_(builder.bitcast(arguments[0], _BITS), mask), _LLVM)

    return _eight(_eight), generate


@_compiled
def largest(typing_context: Any, value: Any) -> Any:
    """The largest of the eight, none of them NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _in_halves(builder, arguments[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return types.float64(_eight), generate


@_compiled
def wider(typing_context: Any, a: Any, b: Any) -> Any:
    """The greater of two magnitudes, place by place; NaN is the greatest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        return builder.select(builder.icmp_signed(">", builder.bitcast(a, _BITS), builder.bitcast(b, _BITS)), a, b)

    return _eight(_eight, _eight), generate


@_compiled
def widest(typing_context: Any, value: Any) -> Any:
    """The greatest of eight magnitudes; NaN is the greatest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _BITS)
        most = _in_halves(builder, bits, lambda a, b: builder.select(builder.icmp_signed(">", a, b), a, b))
        return builder.bitcast(most, ir.DoubleType())

    return types.float64(_eight), generate


@_compiled
def times_power(typing_context: Any, value: Any, shifted: Any) -> Any:
    """``value * 2^k`` for the integers k in the low bits of `shifted`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, shifted = (builder.bitcast(argument, _BITS) for argument in arguments)
        return builder.bitcast(builder.add(value, builder.shl(shifted, _BITS([52] * EIGHT))), _LLVM)

    return _eight(_eight, _eight), generate


def _everywhere(builder: Any, value: Any) -> Any:
    undefined = ir.VectorType(value.type, EIGHT)(ir.Undefined)
    single = builder.insert_element(undefined, value, _INT32(0))
    return builder.shuffle_vector(single, undefined, ir.VectorType(_INT32, EIGHT)([0] * EIGHT))


def _in_halves(builder: Any, parts: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Reduce eight to one by combining halves."""
    count = EIGHT
    while count > 1:
        count //= 2
        low, high = (
            builder.shuffle_vector(parts, parts, ir.VectorType(_INT32, count)(list(range(first, first + count))))
            for first in (0, count)
        )
        parts = combine(low, high)
    return builder.extract_element(parts, _INT32(0))


def _places() -> Any:
    return ir.VectorType(_INT64, EIGHT)(list(range(EIGHT)))


def _below(builder: Any, count: Any) -> Any:
    """The mask of the places below `count`."""
    return builder.icmp_signed("<", _places(), _everywhere(builder, count))


def _define(symbol: Callable[..., Any], instruction: str) -> None:
    """An operator between two vectors, or a number and a vector.

    Declared by a typing rule and one instruction, not as an inlined function, whose every use would be typed anew.
    """

    @infer_global(symbol)
    class _Operator(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and args[1] is _eight and (args[0] is _eight or isinstance(args[0], types.Float)):
                return signature(_eight, *args)
            return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = args
        if sig.args[0] is not _eight:
            left = _everywhere(builder, context.cast(builder, left, sig.args[0], types.float64))
        return getattr(builder, instruction)(left, right, flags=_FLAGS)

    lower_builtin(symbol, _eight, _eight)(generate)
    lower_builtin(symbol, types.Float, _eight)(generate)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")
