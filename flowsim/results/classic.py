"""NetCDF's classic binary form: a header, then each variable as one block of big-endian numbers.

The 64-bit offset form (CDF-2) holds variables below 4 GiB and is read by SciPy and by every NetCDF library; a file with
a larger one takes the 64-bit data form (CDF-5). Integers have 32 bits, truth values are bytes, text is characters along
one more axis, as in xarray; wider integers are floats, or text where floats are not exact, and the attribute ``dtype``
keeps what they were. An axis of length 0 has no place in either form: variables along
one stand in the attribute ``empty_variables``.

Source: Unidata, NetCDF file format specifications.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAGIC = b"CDF"
_OFFSET_FORM, _DATA_FORM = 2, 5
_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
_TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}
_CODES = {"i1": 1, "S1": 2, "i4": 4, "f4": 5, "f8": 6}
#: Bytes of a variable of the 64-bit offset form.
_LARGEST = 2**32 - 4
#: Integers up to this are exact as floats.
_EXACT = 2**53
#: Numbers that are turned into big-endian ones at a time.
_BLOCK = 1 << 17
_EMPTY, _ENCODING, _KIND = "empty_variables", "_Encoding", "dtype"


class NamedArray(NamedTuple):
    """An array with names of its axes, and attributes."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: Mapping[str, Any]


def write_classic(
    file: Path, variables: Mapping[str, NamedArray], attrs: Mapping[str, Any], largest: int = _LARGEST
) -> None:  # fmt: skip
    """Write variables and attributes.

    Raises
    ------
    ValueError
        If a variable is neither real numbers nor text.
    """
    stored = {name: _stored(name, each) for name, each in variables.items() if each.values.size}
    empty = {
        name: [each.dims, each.values.shape, each.values.dtype.str]
        for name, each in variables.items() if not each.values.size
    }  # fmt: skip
    attrs = {**attrs, _EMPTY: json.dumps(empty)} if empty else attrs
    form = _OFFSET_FORM if all(each.values.nbytes <= largest for each in stored.values()) else _DATA_FORM
    begins, end = {}, len(_header(stored, attrs, form, dict.fromkeys(stored, 0)))
    for name, each in stored.items():
        begins[name], end = end, end + _padded(each.values.nbytes)
    with file.open("wb") as out:
        out.write(_header(stored, attrs, form, begins))
        for each in stored.values():
            for block in _blocks(each.values):
                out.write(block)
            out.write(bytes(_padded(each.values.nbytes) - each.values.nbytes))


def read_classic(file: Path) -> tuple[dict[str, NamedArray], dict[str, Any]]:
    """Variables and attributes that :func:`write_classic` wrote.

    Raises
    ------
    ValueError, struct.error, KeyError, IndexError
        If the file holds something else.
    """
    with file.open("rb") as opened:
        if opened.read(3) != MAGIC:
            raise ValueError("it is not NetCDF")
        reader = _Reader(opened, opened.read(1)[0])
        reader.count()  # of records: there are none
        dims = [(reader.name(), reader.count()) for _ in reader.entries()]
        attrs = reader.attributes()
        described = [reader.variable(dims) for _ in reader.entries()]
        variables = {name: _restored(opened, *rest) for name, *rest in described}
    for name, (axes, shape, kind) in json.loads(attrs.pop(_EMPTY, "{}")).items():
        variables[name] = NamedArray(tuple(axes), np.empty(shape, kind), {})
    return variables, attrs


def _stored(name: str, variable: NamedArray) -> NamedArray:
    """As one of the format's types, in the byte order of this machine."""
    dims, values, attrs = variable
    kind = values.dtype.kind
    if kind == "b":
        return NamedArray(dims, values.astype("i1"), {**attrs, _KIND: "bool"})
    if kind == "f":
        return NamedArray(dims, values.astype("f4" if values.itemsize == 4 else "f8", copy=False), attrs)
    if kind in "iu":
        low, high = int(values.min()), int(values.max())
        if low >= -(2**31) and high < 2**31:
            return NamedArray(dims, values.astype("i4", copy=False), attrs)
        if low >= -_EXACT and high <= _EXACT:
            return NamedArray(dims, values.astype("f8"), {**attrs, _KIND: values.dtype.name})
        text = _stored(name, NamedArray(dims, values.astype(str), attrs))
        return text._replace(attrs={**text.attrs, _KIND: values.dtype.name})
    if kind == "U" or (kind == "O" and all(isinstance(each, str) for each in values.flat)):
        texts = np.array([str(each).encode() for each in values.flat])
        width = max(1, texts.itemsize)
        characters = texts.astype(f"S{width}").view("S1").reshape(*values.shape, width)
        return NamedArray((*dims, f"string{width}"), characters, {**attrs, _ENCODING: "utf-8"})
    raise ValueError(f"`{name}` must be numbers or text to be written as NetCDF; received {values.dtype}.")


def _restored(file: BinaryIO, dims: Any, shape: Any, attrs: dict[str, Any], kind: str, begin: int) -> NamedArray:
    file.seek(begin)
    count = math.prod(shape)
    values: NDArray[Any] = np.fromfile(file, kind, count)
    if len(values) != count:
        raise ValueError("it ends too early")
    values = values.reshape(shape)
    if attrs.pop(_ENCODING, None) is not None:
        width = shape[-1]
        texts = values.view(f"S{width}").reshape(shape[:-1])
        dims, values = dims[:-1], np.array(np.char.decode(texts, "utf-8"))
    wanted = attrs.pop(_KIND, "int64" if values.dtype.kind == "i" else values.dtype.newbyteorder("="))
    return NamedArray(dims, values.astype(wanted, copy=False), attrs)


def _blocks(values: NDArray[Any]) -> Iterator[Any]:
    """The bytes of an array, big-endian, a few rows at a time: parts of larger arrays are not copied as a whole."""
    rows = values.reshape(-1) if values.flags.c_contiguous else values
    step = max(1, _BLOCK // rows[0].size)
    for first in range(0, len(rows), step):
        block = rows[first : first + step]
        yield block.astype(block.dtype.newbyteorder(">"), order="C", copy=False).data


def _padded(size: int) -> int:
    return -(-size // 4) * 4


def _header(
    variables: Mapping[str, NamedArray], attrs: Mapping[str, Any], form: int, begins: Mapping[str, int]
) -> bytes:
    pack = _Packer(form)
    sizes: dict[str, int] = {}
    for each in variables.values():
        for axis, size in zip(each.dims, each.values.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(f"axis `{axis}` must have one length; received {sizes[axis]} and {size}.")
    numbers = {name: number for number, name in enumerate(sizes)}
    parts = [MAGIC, bytes([form]), pack.count(0), pack.list(_DIMENSION, len(sizes))]
    parts += [pack.name(name) + pack.count(size) for name, size in sizes.items()]
    parts.append(pack.attributes(attrs))
    parts.append(pack.list(_VARIABLE, len(variables)))
    for name, each in variables.items():
        parts += [pack.name(name), pack.count(each.values.ndim), *(pack.count(numbers[axis]) for axis in each.dims)]
        parts += [pack.attributes(each.attrs), struct.pack(">i", _CODES[each.values.dtype.str[1:]])]
        parts += [pack.size(_padded(each.values.nbytes)), struct.pack(">q", begins[name])]
    return b"".join(parts)


class _Packer:
    """Parts of a header; counts have 64 bits in the 64-bit data form."""

    def __init__(self, form: int) -> None:
        self._wide = form == _DATA_FORM

    def count(self, value: int) -> bytes:
        return struct.pack(">q" if self._wide else ">i", value)

    def size(self, value: int) -> bytes:
        return struct.pack(">q" if self._wide else ">I", value)

    def name(self, text: str) -> bytes:
        encoded = text.encode()
        return self.count(len(encoded)) + encoded.ljust(_padded(len(encoded)), b"\0")

    def list(self, tag: int, length: int) -> bytes:
        return struct.pack(">i", tag if length else 0) + self.count(length)

    def attributes(self, attrs: Mapping[str, Any]) -> bytes:
        return b"".join([self.list(_ATTRIBUTE, len(attrs)), *(self._attribute(*each) for each in attrs.items())])

    def _attribute(self, name: str, value: Any) -> bytes:
        if isinstance(value, str):
            code, content, length = _CODES["S1"], value.encode(), len(value.encode())
        else:
            numbers = np.atleast_1d(np.asarray(value))
            if numbers.dtype.kind not in "biuf":
                return self._attribute(name, json.dumps(value, default=str))
            small = numbers.dtype.kind != "f" and np.abs(numbers.astype(float)).max(initial=0) < 2**31
            code, length = (4, numbers.size) if small else (6, numbers.size)
            content = numbers.astype(_TYPES[code]).tobytes()
        padded = content.ljust(_padded(len(content)), b"\0")
        return self.name(name) + struct.pack(">i", code) + self.count(length) + padded


class _Reader:
    """Parts of a header, in the order in which they stand there."""

    def __init__(self, file: BinaryIO, form: int) -> None:
        if form not in (_OFFSET_FORM, _DATA_FORM):
            raise ValueError(f"form {form} of NetCDF is not one that flowsim writes")
        self._file, self._wide = file, form == _DATA_FORM

    def _number(self, kind: str) -> int:
        return int(struct.unpack(kind, self._file.read(struct.calcsize(kind)))[0])

    def count(self) -> int:
        return self._number(">q" if self._wide else ">i")

    def name(self) -> str:
        length = self.count()
        return self._file.read(_padded(length))[:length].decode()

    def entries(self) -> range:
        """Of a list: its kind, and how many there are."""
        self._number(">i")
        return range(self.count())

    def attributes(self) -> dict[str, Any]:
        return dict(self._attribute() for _ in self.entries())

    def _attribute(self) -> tuple[str, Any]:
        name, kind, length = self.name(), np.dtype(_TYPES[self._number(">i")]), self.count()
        content = self._file.read(_padded(length * kind.itemsize))[: length * kind.itemsize]
        if kind.kind == "S":
            return name, content.decode()
        numbers = np.frombuffer(content, kind)
        return name, numbers[0].item() if length == 1 else numbers.astype(kind.newbyteorder("="))

    def variable(self, dims: list[tuple[str, int]]) -> tuple[Any, ...]:
        """Name, axes, shape, attributes, type, and where its numbers begin."""
        name, axes = self.name(), [dims[self.count()] for _ in range(self.count())]
        attrs, kind = self.attributes(), _TYPES[self._number(">i")]
        self._number(">q" if self._wide else ">I")
        return name, tuple(axis for axis, _ in axes), tuple(size for _, size in axes), attrs, kind, self._number(">q")
