"""Eight floats as one value in compiled code: ``load(x, i) * load(y, i) + 2.0`` becomes vector instructions.

An automatically vectorised loop keeps no array of sums in registers and tests repeatedly whether its arrays
overlap. Here the eight numbers are an LLVM vector; results do not depend on the processor's register width.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

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
FLAGS = ("contract",)


class _Eight(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Eight")


#: The type of vectors.
EIGHTS = _Eight()


@register_model(_Eight)
class _EightModel(datamodel.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM)


class _Code(NamedTuple):
    """Where the instructions of a function go, and the types of its arguments."""

    context: Any
    builder: Any
    kinds: Any

    def entry(self, number: int, array: Any, index: Any) -> Any:
        """The address of an entry of the argument of that number."""
        return entry(self.context, self.builder, self.kinds[number], array, index)

    def vector(self, array: Any, first: Any) -> Any:
        """The address of eight entries of the first argument."""
        return self.builder.bitcast(self.entry(0, array, first), _LLVM.as_pointer())


def _instructions(result: Any, *kinds: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of what makes the instructions of a compiled function, from a `_Code` and the values of its arguments.

    `kinds` are the types of these; None takes any array.
    """

    def decorate(make: Callable[..., Any]) -> Any:
        @wraps(make)
        def typed(typing_context: Any, *given: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                made = make(_Code(context, builder, signature.args), *arguments)
                return context.get_dummy_value() if result is types.void else made

            own = [any_kind if kind is None else kind for kind, any_kind in zip(kinds, given, strict=True)]
            return result(*own), generate

        return _compiled(typed)

    return decorate


@_instructions(EIGHTS, None, types.int64)
def load(code: _Code, array: Any, first: Any) -> Any:
    """``array[first : first + 8]`` of a flat contiguous array, unchecked."""
    return code.builder.load(code.vector(array, first), align=8)


@_instructions(types.void, None, types.int64, EIGHTS)
def store(code: _Code, array: Any, first: Any, value: Any) -> None:
    """``array[first : first + 8] = value``, unchecked."""
    code.builder.store(value, code.vector(array, first), align=8)


@_instructions(EIGHTS, None, types.int64, types.int64)
def load_part(code: _Code, array: Any, first: Any, count: Any) -> Any:
    """The first `count` of ``array[first : first + 8]``, zeros for the others, which are not read."""
    builder, address = code.builder, code.vector(array, first)
    kind = ir.FunctionType(_LLVM, [address.type, _INT32, _CHOICE, _LLVM])
    function = builder.module.declare_intrinsic("llvm.masked.load.v8f64.p0", fnty=kind)
    return builder.call(function, [address, _INT32(8), _below(builder, count), _LLVM([0.0] * EIGHT)])


@_instructions(types.void, None, types.int64, types.int64, EIGHTS)
def store_part(code: _Code, array: Any, first: Any, count: Any, value: Any) -> None:
    """Store the first `count` of the eight."""
    builder, address = code.builder, code.vector(array, first)
    kind = ir.FunctionType(ir.VoidType(), [_LLVM, address.type, _INT32, _CHOICE])
    function = builder.module.declare_intrinsic("llvm.masked.store.v8f64.p0", fnty=kind)
    builder.call(function, [value, address, _INT32(8), _below(builder, count)])


@_instructions(EIGHTS, None, None, types.int64)
def gather(code: _Code, array: Any, places: Any, first: Any) -> Any:
    """``array[places[first : first + 8]]``, unchecked."""
    builder, value = code.builder, _LLVM(ir.Undefined)
    for lane in range(EIGHT):
        place = builder.load(code.entry(1, places, builder.add(first, _INT64(lane))))
        value = builder.insert_element(value, builder.load(code.entry(0, array, place)), _INT32(lane))
    return value


@_instructions(EIGHTS, None, types.int64)
def spread(code: _Code, array: Any, index: Any) -> Any:
    """Eight times ``array[index]``, unchecked."""
    return everywhere(code.builder, code.builder.load(code.entry(0, array, index)))


@_instructions(EIGHTS, types.float64)
def constant(code: _Code, value: Any) -> Any:
    """Eight times the same number."""
    return everywhere(code.builder, value)


@_instructions(EIGHTS, types.int64)
def only(code: _Code, place: Any) -> Any:
    """The unit vector of one place, 0 to 7; zero for any other place."""
    here = code.builder.icmp_signed("==", _places(), everywhere(code.builder, place))
    return code.builder.select(here, _LLVM([1.0] * EIGHT), _LLVM([0.0] * EIGHT))


@_instructions(types.float64, EIGHTS)
def add_up(code: _Code, value: Any) -> Any:
    """The sum of the eight, by pairwise summation."""
    return _in_halves(code.builder, value, code.builder.fadd)


@_instructions(EIGHTS, EIGHTS, EIGHTS)
def greater(code: _Code, a: Any, b: Any) -> Any:
    """The greater of two, place by place; b where a is NaN."""
    return code.builder.select(code.builder.fcmp_ordered(">", a, b), a, b)


@_instructions(EIGHTS, EIGHTS, EIGHTS, EIGHTS, EIGHTS)
def below(code: _Code, a: Any, b: Any, then: Any, other: Any) -> Any:
    """`then` where a < b, `other` elsewhere and where one is NaN."""
    return code.builder.select(code.builder.fcmp_ordered("<", a, b), then, other)


@_instructions(EIGHTS, EIGHTS)
def magnitude(code: _Code, value: Any) -> Any:
    """Absolute values."""
    mask = _BITS([(1 << 63) - 1] * EIGHT)
    return code.builder.bitcast(code.builder.and_(code.builder.bitcast(value, _BITS), mask), _LLVM)


@_instructions(types.float64, EIGHTS)
def largest(code: _Code, value: Any) -> Any:
    """The largest of the eight, none of them NaN."""
    builder = code.builder
    return _in_halves(builder, value, lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@_instructions(EIGHTS, EIGHTS, EIGHTS)
def wider(code: _Code, a: Any, b: Any) -> Any:
    """The greater of two magnitudes, place by place; NaN is the greatest."""
    builder = code.builder
    return builder.select(builder.icmp_signed(">", builder.bitcast(a, _BITS), builder.bitcast(b, _BITS)), a, b)


@_instructions(types.float64, EIGHTS)
def widest(code: _Code, value: Any) -> Any:
    """The greatest of eight magnitudes; NaN is the greatest."""
    builder, bits = code.builder, code.builder.bitcast(value, _BITS)
    most = _in_halves(builder, bits, lambda a, b: builder.select(builder.icmp_signed(">", a, b), a, b))
    return builder.bitcast(most, ir.DoubleType())


@_instructions(EIGHTS, EIGHTS, EIGHTS)
def times_power(code: _Code, value: Any, shifted: Any) -> Any:
    """``value * 2^k`` for the integers k in the low bits of `shifted`."""
    value, shifted = (code.builder.bitcast(each, _BITS) for each in (value, shifted))
    return code.builder.bitcast(code.builder.add(value, code.builder.shl(shifted, _BITS([52] * EIGHT))), _LLVM)


def everywhere(builder: Any, value: Any) -> Any:
    """Instructions for a vector of the same number."""
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
    return builder.icmp_signed("<", _places(), everywhere(builder, count))


def _define(symbol: Callable[..., Any], instruction: str) -> None:
    """An operator between two vectors, or a number and a vector.

    Declared by a typing rule and one instruction, not as an inlined function, whose every use would be typed anew.
    """

    @infer_global(symbol)
    class _Operator(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and args[1] is EIGHTS and (args[0] is EIGHTS or isinstance(args[0], types.Float)):
                return signature(EIGHTS, *args)
            return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = args
        if sig.args[0] is not EIGHTS:
            left = everywhere(builder, context.cast(builder, left, sig.args[0], types.float64))
        return getattr(builder, instruction)(left, right, flags=FLAGS)

    lower_builtin(symbol, EIGHTS, EIGHTS)(generate)
    lower_builtin(symbol, types.Float, EIGHTS)(generate)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")
