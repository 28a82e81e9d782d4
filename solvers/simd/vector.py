"""Eight floats as one value in compiled code: ``load(x, i) * load(y, i) + 2.0`` becomes vector instructions.

A loop that Numba is left to vectorise keeps no array of sums in registers and asks again and again whether its arrays
overlap. Here the eight numbers are one of LLVM's own vectors; the processor's register width does not change a result.

Lifetimes: a pointer keeps nothing alive. A :func:`pointer` may only be taken of arrays that the
compiled function was *given*, which its caller keeps; never of one that it has made itself, which is freed after its
last use as an array. A test reads the sources for that.
"""

from __future__ import annotations

import math
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
from numba.np import arrayobj

from flowsim.solvers.compilation import bare

__all__ = [
    "EIGHT", "add_up", "at_address", "below", "call", "call_on_arrays", "constant", "exponential",
    "exponential_within", "gather", "greater", "largest", "load", "load_part", "magnitude", "only", "pointer", "spread",
    "store", "store_part", "view", "wider", "widest",
]  # fmt: skip

EIGHT = 8

_LLVM = ir.VectorType(ir.DoubleType(), EIGHT)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_CHOICE = ir.VectorType(ir.IntType(1), EIGHT)
_BITS = ir.VectorType(_INT64, EIGHT)
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


def _entry(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = array if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _address(context: Any, builder: Any, kind: Any, array: Any, first: Any) -> Any:
    return builder.bitcast(_entry(context, builder, kind, array, first), _LLVM.as_pointer())


@_compiled
def pointer(typing_context: Any, array: Any, first: Any) -> Any:
    """Where ``array[first:]`` is: one argument of a call, where an array takes seven. See `Lifetimes` above.

    Entries are read and written by index, unchecked; all functions here take it for the array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _entry(context, builder, signature.args[0], *arguments)

    return types.CPointer(array.dtype)(array, types.int64), generate


@_compiled
def view(typing_context: Any, kind: Any, workspace: Any) -> Any:
    """The named tuple `kind` in a workspace ``(buffer of floats, table of integers)``, both pointers.

    ``kind.PLACE`` is where the table tells of it. ``kind.HOLDS`` is "floats" (pointers into the buffer, at the offsets
    that stand there), "indices" (pointers into the table, likewise), "constants" (which stand there themselves) or
    "numbers" (the same, but they change). All but those are loaded once where the compiler sees that.
    """
    cls = kind.instance_class
    count, holds = len(cls._fields), cls.HOLDS
    element = {"floats": types.CPointer(types.float64), "indices": types.CPointer(types.int64)}
    result = types.NamedUniTuple(element.get(holds, types.int64), count, cls)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        room, table = (builder.extract_value(arguments[1], number) for number in range(2))
        values = []
        for number in range(count):
            value = builder.load(builder.gep(table, [_INT64(cls.PLACE + number)]))
            if holds != "numbers":
                value.set_metadata("invariant.load", builder.module.add_metadata([]))
            if holds in element:
                value = builder.gep(room if holds == "floats" else table, [value])
            values.append(value)
        return context.make_tuple(builder, signature.return_type, values)

    return result(kind, workspace), generate


@_compiled
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address with a tuple of numbers and pointers; it returns an int64.

    What is seldom needed stays out of the code that calls it, and is compiled when it is first needed.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, packed = values
        kinds = signature.args[1].types
        parts = [builder.extract_value(packed, number) for number in range(len(kinds))]
        function = ir.FunctionType(_INT64, [part.type for part in parts])
        return builder.call(builder.inttoptr(address, function.as_pointer()), parts)

    return types.int64(types.int64, arguments), generate


@_compiled
def at_address(typing_context: Any, address: Any, first: Any, kind: Any) -> Any:
    """A pointer to entry `first` of an array at an address, of integers or floats as the number `kind` is.

    The caller keeps the array.
    """
    element = types.float64 if isinstance(kind, types.Float) else types.int64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return builder.gep(base, [arguments[1]])

    return types.CPointer(element)(types.int64, types.int64, kind), generate


@_compiled
def call_on_arrays(typing_context: Any, address: Any, arrays: Any, size: Any) -> Any:
    """Call a compiled function ``void(float64[::1], ...)`` by the address of its wrapper, on arrays of one size.

    `arrays` is a tuple of pointers.
    """
    kind = types.float64[::1]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, packed, size = values
        parts = []
        for number in range(len(signature.args[1])):
            array = context.make_array(kind)(context, builder)
            arrayobj.populate_array(
                array, data=builder.extract_value(packed, number), shape=[size], strides=[_INT64(8)],
                itemsize=_INT64(8), meminfo=None,
            )  # fmt: skip
            parts.append(array._getvalue())
        function = ir.FunctionType(context.get_value_type(types.void), [part.type for part in parts])
        builder.call(builder.inttoptr(address, function.as_pointer()), parts)
        return context.get_dummy_value()

    return types.void(types.int64, arrays, types.int64), generate


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
def gather(typing_context: Any, array: Any, places: Any, first: Any) -> Any:
    """``array[places[first : first + 8]]``, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, places, first = arguments
        value: Any = _LLVM(ir.Undefined)
        for lane in range(EIGHT):
            place = builder.load(_entry(context, builder, signature.args[1], places, builder.add(first, _INT64(lane))))
            entry = builder.load(_entry(context, builder, signature.args[0], array, place))
            value = builder.insert_element(value, entry, _INT32(lane))
        return value

    return _eight(array, places, types.int64), generate


@_compiled
def spread(typing_context: Any, array: Any, index: Any) -> Any:
    """Eight times ``array[index]``, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _everywhere(builder, builder.load(_entry(context, builder, signature.args[0], *arguments)))

    return _eight(array, types.int64), generate


@_compiled
def constant(typing_context: Any, value: Any) -> Any:
    """Eight times the same number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _everywhere(builder, arguments[0])

    return _eight(types.float64), generate


@_compiled
def only(typing_context: Any, place: Any) -> Any:
    """1 at one place, 0 at the others; all 0 for a place that is none of the eight."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        here = builder.icmp_signed("==", _places(), _everywhere(builder, arguments[0]))
        return builder.select(here, _LLVM([1.0] * EIGHT), _LLVM([0.0] * EIGHT))

    return _eight(types.int64), generate


@_compiled
def add_up(typing_context: Any, value: Any) -> Any:
    """The sum of the eight, in halves."""

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
def _times_power(typing_context: Any, value: Any, shifted: Any) -> Any:
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
    """The first half of eight with the second, and so on, down to one."""
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
    """Which of the eight places lie below `count`."""
    return builder.icmp_signed("<", _places(), _everywhere(builder, count))


def _define(symbol: Callable[..., Any], instruction: str) -> None:
    """An operator between two vectors, or a number and a vector.

    As a rule of typing and one instruction, not as an inlined function: every use of one would be typed anew.
    """

    @infer_global(symbol)
    class _Operator(AbstractTemplate):  # type: ignore[misc]
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


#: exp is taken of numbers up to this size, larger ones count as that.
_LARGEST = 700.0
_LOG2_E = 1.4426950408889634
#: Adding it rounds to an integer, which then stands in the low bits.
_ROUND = 6755399441055744.0
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1.0 / math.factorial(k) for k in range(2, 14))


@bare()
def exponential(x):
    """``exp(x)`` to 1 unit in the last place, of x cut to size."""
    return exponential_within(
        constant(0.0) - greater(constant(0.0) - greater(x, constant(-_LARGEST)), constant(-_LARGEST))
    )


@bare()
def exponential_within(x):
    """The same of numbers up to 700 in size: ``exp(x) = 2^k exp(r)``, ``|r| <= ln(2)/2``, by Taylor's polynomial."""
    shifted = _LOG2_E * x + constant(_ROUND)
    k = shifted - constant(_ROUND)
    r = x - _LN2_HIGH * k - _LN2_LOW * k
    tail = constant(_C12) + _C13 * r
    tail = constant(_C11) + tail * r
    tail = constant(_C10) + tail * r
    tail = constant(_C9) + tail * r
    tail = constant(_C8) + tail * r
    tail = constant(_C7) + tail * r
    tail = constant(_C6) + tail * r
    tail = constant(_C5) + tail * r
    tail = constant(_C4) + tail * r
    tail = constant(_C3) + tail * r
    tail = constant(_C2) + tail * r
    return _times_power(constant(1.0) + r * (constant(1.0) + r * tail), shifted)
