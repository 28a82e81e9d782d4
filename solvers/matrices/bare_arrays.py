"""Contiguous arrays in compiled code that are a pointer and their extents.

Numba passes an array as seven values, counts its references and allows for strides and negative indices, which makes
most of the code of a function on many small matrices, and takes most of the time of its compilation. A *bare array* has
none of these. Its memory belongs to an argument of the function that Python called (see `Lifetimes` in
:mod:`flowsim.solvers.simd.pointers`): an array that was passed, or :mod:`.scratch`
memory. Indices are not checked.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils, datamodel
from numba.core.imputils import lower_getattr
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import box, intrinsic, lower_builtin, register_model

_INT64 = ir.IntType(64)
_compiled: Any = intrinsic
_AttributeTemplate: Any = AttributeTemplate
_AbstractTemplate: Any = AbstractTemplate


class BareArray(types.Type):
    """Of entries of a type, with one to four extents."""

    is_bare = True

    def __init__(self, dtype: Any, ndim: int) -> None:
        self.dtype, self.ndim = dtype, ndim
        super().__init__(name=f"BareArray({dtype}, {ndim})")


@register_model(BareArray)
class _Model(datamodel.models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        extents = [(f"n{axis}", types.int64) for axis in range(kind.ndim)]
        super().__init__(manager, kind, [("data", types.CPointer(kind.dtype)), *extents])


def _made(context: Any, builder: Any, kind: Any, data: Any, extents: Any) -> Any:
    made = ir.Constant(context.get_value_type(kind), ir.Undefined)
    for number, each in enumerate((data, *extents)):
        made = builder.insert_value(made, each, number)
    return made


def _data(builder: Any, value: Any) -> Any:
    return builder.extract_value(value, 0)


def _extents(builder: Any, kind: Any, value: Any, first: int = 0) -> list[Any]:
    """From one on."""
    return [builder.extract_value(value, axis + 1) for axis in range(first, kind.ndim)]


def _product(builder: Any, factors: Any) -> Any:
    return reduce(builder.mul, factors)


# Attributes: `shape`, `size`, and the length.


@infer_getattr
class _Attributes(_AttributeTemplate):
    key = BareArray

    def resolve_shape(self, kind: Any) -> Any:
        return types.UniTuple(types.int64, kind.ndim)

    def resolve_size(self, kind: Any) -> Any:
        return types.int64


@lower_getattr(BareArray, "shape")
def _shape(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return cgutils.pack_array(builder, _extents(builder, kind, value))


@lower_getattr(BareArray, "size")
def _size(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return _product(builder, _extents(builder, kind, value))


@infer_global(len)
class _Length(_AbstractTemplate):
    key = len

    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.int64, *args) if isinstance(args[0], BareArray) else None


@lower_builtin(len, BareArray)
def _length(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.extract_value(args[0], 1)


# Entries `X[i, j]`, and the array `X[i]` of those with a first index.


def _members(kind: Any) -> list[Any]:
    return list(kind)


def _indexed(kind: Any, index: Any) -> Any:
    """The type of ``X[index]`` and the number of indices; None if it is neither an entry nor an array."""
    if isinstance(index, types.Integer):
        count = 1
    elif isinstance(index, types.BaseTuple) and all(isinstance(each, types.Integer) for each in _members(index)):
        count = len(index)
    else:
        return None
    if count == kind.ndim:
        return kind.dtype, count
    return (BareArray(kind.dtype, kind.ndim - count), count) if count < kind.ndim else None


@infer_global(operator.getitem)
class _GetItem(_AbstractTemplate):
    key = operator.getitem

    def generic(self, args: Any, kws: Any) -> Any:
        if not isinstance(args[0], BareArray) or (found := _indexed(*args)) is None:
            return None
        return signature(found[0], args[0], _index_type(args[1]))


@infer_global(operator.setitem)
class _SetItem(_AbstractTemplate):
    key = operator.setitem

    def generic(self, args: Any, kws: Any) -> Any:
        kind, index, _ = args
        if not isinstance(kind, BareArray) or (found := _indexed(kind, index)) is None or found[1] != kind.ndim:
            return None
        return signature(types.none, kind, _index_type(index), kind.dtype)


def _index_type(index: Any) -> Any:
    return types.int64 if isinstance(index, types.Integer) else types.UniTuple(types.int64, len(index))


def _place(builder: Any, kind: Any, value: Any, index_type: Any, index: Any) -> tuple[Any, list[Any]]:
    """The address, and the extents behind the indices."""
    indices = [index] if index_type == types.int64 else cgutils.unpack_tuple(builder, index, len(index_type))
    extents = _extents(builder, kind, value, 1)
    offset = indices[0]
    for each, extent in zip(indices[1:], extents, strict=False):
        offset = builder.add(builder.mul(offset, extent), each)
    left = extents[len(indices) - 1 :]
    return builder.gep(_data(builder, value), [reduce(builder.mul, left, offset)]), left


@lower_builtin(operator.getitem, BareArray, types.Any)
def _get(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, left = _place(builder, sig.args[0], args[0], sig.args[1], args[1])
    if left:
        return _made(context, builder, sig.return_type, place, left)
    return context.unpack_value(builder, sig.return_type, place)


@lower_builtin(operator.setitem, BareArray, types.Any, types.Any)
def _set(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, _ = _place(builder, sig.args[0], args[0], sig.args[1], args[1])
    context.pack_value(builder, sig.args[2], args[2], place)
    return context.get_dummy_value()


# From Numba's arrays, from memory, and to Python.


def _bare_type(kind: Any) -> Any:
    if isinstance(kind, types.Array):
        if kind.layout != "C":
            raise TypeError(f"a bare array is contiguous, found {kind}")
        return BareArray(kind.dtype, kind.ndim)
    if isinstance(kind, types.BaseTuple):
        members = [_bare_type(each) for each in _members(kind)]
        named = getattr(kind, "instance_class", None)
        return types.NamedTuple(members, named) if named else types.Tuple(members)
    return kind


def _bare_value(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        extents = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
        return _made(context, builder, _bare_type(kind), array.data, extents)
    if isinstance(kind, types.BaseTuple):
        parts = cgutils.unpack_tuple(builder, value, len(kind))
        made = [_bare_value(context, builder, *each) for each in zip(_members(kind), parts, strict=True)]
        return context.make_tuple(builder, _bare_type(kind), made)
    return value


@_compiled
def bare_arrays(typing_context: Any, value: Any) -> Any:
    """The bare array of an argument, or the tuple of those in a tuple; numbers stay."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _bare_value(context, builder, sig.args[0], args[0])

    return _bare_type(value)(value), generate


@_compiled
def shaped(typing_context: Any, array: Any, first: Any, shape: Any, number: Any) -> Any:
    """The memory of a bare array from entry `first` on, as a bare array of a shape and of numbers like `number`."""
    kind = BareArray(types.unliteral(number), len(shape))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = builder.gep(_data(builder, args[0]), [args[1]])
        data = builder.bitcast(data, context.get_value_type(types.CPointer(kind.dtype)))
        return _made(context, builder, kind, data, cgutils.unpack_tuple(builder, args[2], kind.ndim))

    return kind(array, types.int64, types.UniTuple(types.int64, len(shape)), number), generate


@_compiled
def entries(typing_context: Any, shape: Any) -> Any:
    """The product of extents."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _product(builder, cgutils.unpack_tuple(builder, args[0], len(sig.args[0])))

    return types.int64(types.UniTuple(types.int64, len(shape))), generate


@_compiled
def call_at(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call a :class:`.calls.Separate` function at its address, with a tuple of arguments; errors are passed on.

    Only functions without an entry point for Python may call it.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kinds = sig.args[1].types
        parts = cgutils.unpack_tuple(builder, args[1], len(kinds))
        function = context.call_conv.get_function_type(types.none, kinds)
        returned, error = function.args[0].pointee, builder.function.args[1]
        flat = context.get_arg_packer(kinds).as_arguments(builder, parts)
        called = builder.inttoptr(args[0], function.as_pointer())
        code = builder.call(called, [cgutils.alloca_once(builder, returned), error, *flat])
        with cgutils.if_unlikely(builder, builder.icmp_signed("!=", code, ir.IntType(32)(0))):
            builder.ret(code)
        return context.get_dummy_value()

    return types.none(types.int64, arguments), generate


def bare_type(value: Any) -> Any:
    """The type in compiled code of an argument: of an array that of its bare array."""
    return _bare_type(typeof(value))


@box(BareArray)
def _boxed(kind: Any, value: Any, c: Any) -> Any:
    """For Python a tuple: None, the address, a number of the entries' type, the extents (:class:`.calls.Entry`)."""
    data, extents = _data(c.builder, value), _extents(c.builder, kind, value)
    packed = types.Tuple([types.none, types.int64, kind.dtype, *[types.int64] * kind.ndim])
    zero = c.context.get_constant_generic(c.builder, kind.dtype, 0)
    address = c.builder.ptrtoint(data, _INT64)
    made = c.context.make_tuple(c.builder, packed, [c.context.get_dummy_value(), address, zero, *extents])
    return c.box(packed, made)
