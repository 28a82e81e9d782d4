"""Sums of one to four vectors at a time, as tuples: a constant number of them, each in two sums to hide latency."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from flowsim.solvers.simd.pointers import entry
from flowsim.solvers.simd.vector import EIGHT, EIGHTS, FLAGS, everywhere

_literally: Any = intrinsic(prefer_literal=True)
_VECTOR = ir.VectorType(ir.DoubleType(), EIGHT)


def _address(builder: Any, first: Any, number: int) -> Any:
    """Of the vector of that number from an address on."""
    return builder.bitcast(builder.gep(first, [ir.IntType(64)(number * EIGHT)]), _VECTOR.as_pointer())


@_literally
def two_sums(typing_context: Any, count: Any, array: Any, first: Any) -> Any:
    """`count` vectors of ``array[first:]``, an integer constant, and as many zeros."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = types.UniTuple(EIGHTS, count.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = entry(context, builder, array, *arguments[1:])
        loaded = [builder.load(_address(builder, begin, number), align=8) for number in range(len(kind))]
        parts = [context.make_tuple(builder, kind, each) for each in (loaded, [_VECTOR([0.0] * EIGHT)] * len(kind))]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(kind, 2)(count, array, types.int64), generate


@_literally
def less(typing_context: Any, sums: Any, number: Any, array: Any, first: Any) -> Any:
    """Vectors minus a number times those of ``array[first:]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, factor, base, index = arguments
        begin, factor, new = entry(context, builder, array, base, index), everywhere(builder, factor), []
        for place in range(len(sums)):
            term = builder.fmul(factor, builder.load(_address(builder, begin, place), align=8), flags=FLAGS)
            new.append(builder.fsub(builder.extract_value(values, place), term, flags=FLAGS))
        return context.make_tuple(builder, sums, new)

    return sums(sums, types.float64, array, types.int64), generate


@_literally
def store_both(typing_context: Any, array: Any, first: Any, one: Any, other: Any) -> Any:
    """Store the sums of two tuples of vectors in ``array[first:]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = entry(context, builder, array, *arguments[:2])
        for place in range(len(one)):
            parts = [builder.extract_value(values, place) for values in arguments[2:]]
            builder.store(builder.fadd(*parts, flags=FLAGS), _address(builder, begin, place), align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, one, other), generate
