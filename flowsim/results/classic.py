"""NetCDF's classic binary form, by SciPy: what it has no types for is encoded, and comes back as it was.

The 64-bit offset form is read by every NetCDF library and holds variables below 2 GiB. Integers have 32 bits, truth
values are bytes, text is characters along one more axis, as in xarray; wider integers are floats, or text where floats
are not exact, and the attribute ``dtype`` keeps what they were. Axes of length 0 stand for others in this form:
variables along one are listed in the attribute ``empty_variables``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.io import netcdf_file

MAGIC = b"CDF"
#: Bytes of a variable.
LARGEST = 2**31 - 4
#: Integers up to this are exact as floats.
_EXACT = 2**53
_EMPTY, _ENCODING, _KIND = "empty_variables", "_Encoding", "dtype"


class NamedArray(NamedTuple):
    """An array with names of its axes, and attributes."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: Mapping[str, Any]


class _Unswapped(np.ndarray[Any, Any]):
    """An array whose bytes are put in the order of the file when they are written; SciPy holds all arrays twice."""

    def tobytes(self, order: Any = "C") -> Any:
        return np.array(self, self.dtype.newbyteorder(">"), order=order).reshape(-1).view("u1").data


@cache
def _netcdf_file() -> Any:
    """SciPy's class, of its own file if that is found: importing all of `scipy.io` takes longer than writing."""
    import scipy

    try:
        spec: Any = spec_from_file_location("_netcdf", Path(str(scipy.__file__)).with_name("io") / "_netcdf.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.netcdf_file
    except (OSError, ImportError, AttributeError):
        from scipy.io import netcdf_file

        return netcdf_file


def write_classic(file: Path, variables: Mapping[str, NamedArray], attrs: Mapping[str, Any]) -> None:
    """Write variables and attributes.

    Raises ValueError if a variable is neither real numbers nor text, or too large, or an axis has two lengths.
    """
    stored = {name: _stored(name, each) for name, each in variables.items() if each.values.size}
    empty = {
        name: [each.dims, each.values.shape, each.values.dtype.str]
        for name, each in variables.items()
        if not each.values.size
    }
    with _netcdf_file()(file, "w", version=2) as out:
        _write_attributes(out, {**attrs, _EMPTY: json.dumps(empty)} if empty else attrs)
        for name, each in stored.items():
            _add_axes(out, each)
            variable = out.createVariable(_latin(name), each.values.dtype, [_latin(axis) for axis in each.dims])
            variable.__dict__["data"] = each.values.view(_Unswapped)  # as SciPy does, whose attributes are the file's
            _write_attributes(variable, each.attrs)


def read_classic(file: Path) -> tuple[dict[str, NamedArray], dict[str, Any]]:
    """Variables and attributes that :func:`write_classic` wrote.

    Raises ValueError, TypeError, KeyError, IndexError if the file holds something else.
    """
    with _netcdf_file()(file, "r", mmap=False) as found:
        attrs = _attributes(found)
        variables = {_unicode(name): _restored(each) for name, each in found.variables.items()}
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


def _restored(variable: Any) -> NamedArray:
    values, dims, attrs = variable.data, tuple(_unicode(axis) for axis in variable.dimensions), _attributes(variable)
    if attrs.pop(_ENCODING, None) is not None:
        texts = values.view(f"S{values.shape[-1]}").reshape(values.shape[:-1])
        dims, values = dims[:-1], np.array(np.char.decode(texts, "utf-8"))
    wanted = attrs.pop(_KIND, "int64" if values.dtype.kind == "i" else values.dtype.newbyteorder("="))
    return NamedArray(dims, values.astype(wanted), attrs)


def _add_axes(out: netcdf_file, variable: NamedArray) -> None:
    if variable.values.nbytes > LARGEST:
        raise ValueError(
            f"`path` must end in .nc4 (extra `hdf5`) for arrays beyond 2 GiB; received one of "
            f"{variable.values.nbytes / 2**30:.2g} GiB. Fewer times, `t_eval`, make a smaller file."
        )
    for axis, size in zip(map(_latin, variable.dims), variable.values.shape, strict=True):
        if axis not in out.dimensions:
            out.createDimension(axis, size)
        elif out.dimensions[axis] != size:
            raise ValueError(f"axis `{axis}` must have one length; received {out.dimensions[axis]} and {size}.")


def _write_attributes(owner: Any, attrs: Mapping[str, Any]) -> None:
    """Attributes of a file or a variable: text in UTF-8, numbers of 32 or 64 bits, the rest as JSON."""
    for name, value in attrs.items():
        if hasattr(owner, name):
            raise ValueError(f"an attribute must not be called {name!r}: NetCDF files have one of their own.")
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "biuf":
            setattr(owner, name, (value if isinstance(value, str) else json.dumps(value, default=str)).encode())
        elif numbers.dtype.kind != "f" and np.abs(numbers.astype(float)).max(initial=0) < 2**31:
            setattr(owner, name, numbers.astype("i4"))
        else:
            setattr(owner, name, numbers.astype("f8"))


def _attributes(owner: Any) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in owner._attributes.items()}


def _attribute(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if np.ndim(value) == 0 else value.astype(value.dtype.newbyteorder("="))


def _latin(name: str) -> str:
    """SciPy writes names in Latin-1; so written, their bytes are UTF-8, as the format asks for."""
    return name.encode().decode("latin1")


def _unicode(name: str) -> str:
    return name.encode("latin1").decode()
