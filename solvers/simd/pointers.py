"""Pointers in compiled code, named tuples of them, and calls by address.

Lifetimes: a pointer does not keep its array alive. A :func:`pointer` may only be taken of arrays that the
compiled function was *given*, which its caller keeps; never of one that it has made itself, which is freed after its
last use as an array. A test reads the sources for that.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, datamodel
from numba.core.errors import TypingError
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, register_model
from numba.np import arrayobj

_INT64 = ir.IntType(64)
_compiled: Any = intrinsic
_AttributeTemplate: Any = AttributeTemplate


def entry(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = array if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


@_compiled
def pointer(typing_context: Any, array: Any, first: Any) -> Any:
    """The address of ``array[first:]``: one argument of a call, where an array takes seven. See `Lifetimes` above.

    Entries are read and written by index, without bounds checks; all functions here accept it in place of the array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return entry(context, builder, signature.args[0], *arguments)

    return types.CPointer(array.dtype)(array, types.int64), generate


class _View(types.Type):
    """The named tuple `cls` in a workspace: its type is two pointers, and an attribute is one load."""

    def __init__(self, cls: Any, workspace: Any) -> None:
        self.cls, self.workspace = cls, workspace
        super().__init__(name=f"View({cls.__name__}, {workspace})")


@register_model(_View)
class _ViewModel(datamodel.models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, list(zip(("buffer", "table"), kind.workspace.types, strict=True)))


@infer_getattr
class _Fields(_AttributeTemplate):
    key = _View

    def generic_resolve(self, kind: Any, name: str) -> Any:
        element = {"floats": types.CPointer(types.float64), "indices": types.CPointer(types.int64)}
        return element.get(_holds(kind.cls, name), types.int64) if name in kind.cls._fields else None


def _holds(cls: Any, name: str) -> str:
    return cls.HOLDS if isinstance(cls.HOLDS, str) else cls.HOLDS[name]


@lower_getattr_generic(_View)
def _field(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    cls = kind.cls
    buffer, table = (builder.extract_value(value, number) for number in range(2))
    found = builder.load(builder.gep(table, [_INT64(cls.PLACE + cls._fields.index(name))]))
    holds = _holds(cls, name)
    if holds != "numbers":
        found.set_metadata("invariant.load", builder.module.add_metadata([]))
    if holds in ("floats", "indices"):
        found = builder.gep(buffer if holds == "floats" else table, [found])
    return found


@_compiled
def view(typing_context: Any, kind: Any, workspace: Any) -> Any:
    """The named tuple `kind` in a workspace ``(buffer of floats, table of integers)``, both pointers.

    ``kind.PLACE`` is its position in the table. ``kind.HOLDS``, one for all fields or one for each, is "floats"
    (pointers into the buffer, at the offsets stored there), "indices" (pointers into the table, likewise),
    "constants" (the entries themselves) or, for all, "numbers" (the same, but variable). All but the last are loaded
    once where the compiler can prove it.
    """
    cls = kind.instance_class
    lazy = _View(cls, workspace)
    result = types.NamedUniTuple(types.int64, len(cls._fields), cls) if cls.HOLDS == "numbers" else lazy

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if cls.HOLDS != "numbers":
            return arguments[1]
        values = [_field(context, builder, lazy, arguments[1], name) for name in cls._fields]
        return context.make_tuple(builder, signature.return_type, values)

    return result(kind, workspace), generate


@_compiled
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address with a tuple of numbers and pointers; it returns an int64.

    Code that is seldom needed is so kept out of its callers and compiled when first needed.
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
    """A pointer to entry `first` of an array at an address, of integers or floats like the number `kind`.

    The caller must keep the array alive.
    """
    element = types.float64 if isinstance(kind, types.Float) else types.int64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return builder.gep(base, [arguments[1]])

    return types.CPointer(element)(types.int64, types.int64, kind), generate


@_compiled
def call_on_arrays(typing_context: Any, address: Any, arrays: Any, size: Any) -> Any:
    """Call a compiled function ``void(float64[::1], ...)`` by its address, on arrays of equal size.

    `arrays` is a tuple of pointers. By Numba's own calling convention: its C wrapper takes longer to pass arrays
    than eight exponentials.
    """
    kind = types.float64[::1]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, packed, size = values
        parts = []
        for number in range(len(signature.args[1])):
            array = context.make_array(kind)(context, builder)
            arrayobj.populate_array(
                array,
                data=builder.extract_value(packed, number),
                shape=[size],
                strides=[_INT64(8)],
                itemsize=_INT64(8),
                meminfo=None,
            )
            parts.append(array._getvalue())
        return _called(context, builder, address, [kind] * len(parts), parts)

    return types.void(types.int64, arrays, types.int64), generate


def caller(*kinds: Any) -> Any:
    """What calls compiled functions ``void(*kinds)`` in compiled code: by their address, with a tuple of arguments."""

    expected = types.Tuple(kinds)

    @_compiled
    def call_at(typing_context: Any, address: Any, arguments: Any) -> Any:
        if arguments != expected:
            raise TypingError(f"a function of {expected} cannot be called with {arguments}")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _called(context, builder, values[0], kinds, cgutils.unpack_tuple(builder, values[1], len(kinds)))

        return types.void(types.int64, expected), generate

    return call_at


def _called(context: Any, builder: Any, address: Any, kinds: Any, parts: Any) -> Any:
    """By Numba's own calling convention; errors are not looked for."""
    function = context.call_conv.get_function_type(types.void, kinds)
    returned, failed = (cgutils.alloca_once(builder, slot.pointee) for slot in function.args[:2])
    flat = context.get_arg_packer(kinds).as_arguments(builder, parts)
    builder.call(builder.inttoptr(address, function.as_pointer()), [returned, failed, *flat])
    return context.get_dummy_value()
