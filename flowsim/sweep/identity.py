"""Who computed what: digests of functions and of parameters.

A finished point may be used again only if nothing that made it has changed. What made it is the function's code
with the functions, classes and constants it reaches, the versions of the packages it imports, and its parameters.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Calls that write into a list, dict or set.
_WRITES = frozenset({"append", "add", "extend", "insert", "update", "setdefault", "pop", "remove", "clear", "discard"})
#: Types without parts; subclasses are objects.
_LEAVES = (bool, int, float, complex, str, bytes, bytearray, type(Ellipsis))
_UTF8 = ("utf-8", "surrogatepass")
_INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Identity:
    """What made a result."""

    name: str  #: ``module:qualname`` of the function
    code: str  #: digest of all that its results rest on, parameters apart
    packages: dict[str, str]  #: version of every installed package it reaches


def identify(function: Any) -> Identity:
    """The identity of a function, bound method, ``functools.partial`` or callable object.

    Notes
    -----
    Code that is being written (a script, a notebook, a package outside site-packages) counts by its content;
    installed packages count by their version. Variables that the function itself writes to, such as a counter
    or a log, are not part of it.
    """
    reader = _Reader(strict=False)
    code = reader.of(function).hex()
    return Identity(_name(function), code, dict(sorted(reader.packages.items())))


def digest(value: Any) -> str:
    """A digest of a parameter: equal values have equal digests, in every process.

    Raises ValueError if the value holds something without content of its own, such as an open file.
    """
    return _Reader(strict=True).of(value).hex()


def _name(function: Any) -> str:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__") or hasattr(function, "py_func"):
            function = getattr(function, "py_func", None) or function.__wrapped__
        else:
            break
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(owner, '__module__', None) or 'builtins'}:{owner.__qualname__}"


class _Reader:
    """Digests of values, by content: a tag before every part, so that no two values read alike."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.packages: dict[str, str] = {}
        self._packages: dict[str, tuple[str | None, str | None]] = {}
        self._open: dict[int, int] = {}
        self._known: dict[int, tuple[bytes, Any]] = {}  # the object too: its id stays taken while it lives

    def of(self, value: Any) -> bytes:
        if value is None or type(value) in _LEAVES:
            content = bytes(value) if isinstance(value, bytes | bytearray) else repr(value).encode(*_UTF8)
            return _hash(type(value).__name__, content)
        if id(value) in self._known:
            return self._known[id(value)][0]
        if id(value) in self._open:  # a circle: say how far up it leads
            return _hash("circle", str(len(self._open) - self._open[id(value)]).encode())
        self._open[id(value)] = len(self._open)
        found = self._compound(value)
        del self._open[id(value)]
        self._known[id(value)] = (found, value)
        return found

    def _parts(self, tag: str, values: Iterable[Any]) -> bytes:
        return _hash(tag, *(self.of(value) for value in values))

    def _compound(self, value: Any) -> bytes:
        kind = type(value)
        if kind is np.ndarray:
            shape = f"{value.dtype.str}{value.shape}".encode()
            if value.dtype.hasobject:
                return _hash("objects", shape, self._parts("entries", value.ravel().tolist()))
            return _hash("array", shape, np.ascontiguousarray(value).tobytes())
        if kind in (list, tuple):
            return self._parts(kind.__name__, value)
        if kind in (set, frozenset):
            return _hash("set", *sorted(self.of(entry) for entry in value))
        if kind is dict:
            return _hash("dict", *sorted(self.of(key) + self.of(entry) for key, entry in value.items()))
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self._parts("method", (value.__self__, value.__func__))
        if isinstance(value, types.ModuleType):
            return _hash("module", value.__name__.encode(), self._package(value.__name__) or b"")
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, functools.partial):
            return self._parts("partial", (value.func, value.args, value.keywords))
        inner = getattr(value, "py_func", None) or (callable(value) and getattr(value, "__wrapped__", None))
        if inner:  # compiled by Numba, or cached
            return self._parts(f"{kind.__module__}:{kind.__qualname__}", (inner,))
        if isinstance(value, types.BuiltinFunctionType | np.ufunc):
            owner = getattr(value, "__module__", None) or kind.__module__
            return _hash("builtin", value.__name__.encode(), self._package(owner) or b"")
        return self._object(value)

    def _object(self, value: Any) -> bytes:
        """Anything that can be pickled, by the parts that pickle would write."""
        cls = type(value)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            if self.strict:
                raise ValueError(f"a {cls.__name__} has no content that can be compared ({error})") from None
            return _hash("opaque", f"{cls.__module__}:{cls.__qualname__}".encode())
        if isinstance(reduced, str):
            return _hash("global", f"{cls.__module__}:{reduced}".encode())
        make, arguments, state, entries, items = (*reduced, None, None, None)[:5]
        if isinstance(state, dict):
            state = {
                name: entry
                for name, entry in state.items()
                if not isinstance(inspect.getattr_static(cls, name, None), functools.cached_property)
            }
        return self._parts("object", (make, arguments, state, list(entries or ()), list(items or ())))

    def _function(self, function: types.FunctionType) -> bytes:
        name = f"{function.__module__}:{function.__qualname__}".encode()
        package = self._package(function.__module__ or "builtins")
        reached: dict[str, Any] = {}
        for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell may not be bound yet
                reached[free] = cell.cell_contents
        parts = [name, package or b""]
        if package is None:
            parts.append(self._code(function.__code__))
            for instruction in _instructions(function.__code__):
                if instruction.opname == "IMPORT_NAME":
                    parts.append(self._package(instruction.argval) or b"")
                elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval in function.__globals__:
                    reached[instruction.argval] = function.__globals__[instruction.argval]
        # A package's functions count as part of it, but what they enclose or default to is made at run time.
        written = _written_names(function)
        parts += [_hash(key, self.of(reached[key])) for key in sorted(reached) if key not in written]
        return _hash("function", *parts, self.of(function.__defaults__), self.of(function.__kwdefaults__))

    def _code(self, code: types.CodeType) -> bytes:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        shape = (code.co_argcount, code.co_kwonlyargcount, code.co_flags, names)
        return _hash("code", code.co_code, self.of(shape), self.of(code.co_consts))

    def _class(self, cls: type) -> bytes:
        name = f"{cls.__module__}:{cls.__qualname__}".encode()
        package = self._package(cls.__module__)
        if package is not None:
            return _hash("class", name, package)
        members = []
        for key, member in sorted(vars(cls).items()):
            member = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
            if isinstance(member, types.FunctionType | tuple) or type(member) in _LEAVES:
                members.append(_hash(key, self.of(member)))
        return _hash("class", name, self._parts("bases", cls.__bases__), *members)

    def _package(self, module: str) -> bytes | None:
        """What stands for a module's package; None for a script, whose functions count one by one."""
        top = module.partition(".")[0]
        if top not in self._packages:
            self._packages[top] = _package_token(top)
        token, version = self._packages[top]
        if version is not None:
            self.packages[top] = version
        return None if token is None else _hash("package", top.encode(), token.encode())


def _hash(tag: str, *parts: bytes) -> bytes:
    content = hashlib.sha256(tag.encode(*_UTF8))
    for part in parts:
        content.update(f":{len(part)}:".encode())
        content.update(part)
    return content.digest()


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


def _written_names(function: types.FunctionType) -> set[str]:
    """Names outside the function that its body assigns or writes into (``calls.append(x)``, ``seen[x] = 1``)."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return set()
    written: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            written.update(node.names)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.value, ast.Name):
            calls_writer = isinstance(node, ast.Attribute) and node.attr in _WRITES
            if calls_writer or isinstance(node.ctx, ast.Store | ast.Del):
                written.add(node.value.id)
    return written


def _package_token(top: str) -> tuple[str | None, str | None]:
    """(what stands for the package, its version): the version if it is installed, a digest of its files if it is a
    package under development, None for a script or single module, whose functions count one by one."""
    if top == "__main__":
        return None, None
    if top in sys.stdlib_module_names:
        return "", None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return None, None
    version = _version(top)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    places = folders or [Path(spec.origin or top)]
    if any(_INSTALLED & set(place.parts) for place in places):
        return version or "installed", version
    return (_content(top, folders), version) if folders else (None, version)


def _version(top: str) -> str | None:
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(top), "__version__", None)
        return version if isinstance(version, str) else None


def _content(top: str, folders: list[Path]) -> str:
    roots = [(top, folder) for folder in folders]
    for finder in sys.meta_path:
        # Editable installs may map parts of a package to folders elsewhere.
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", {})
        roots += [(name, Path(place)) for name, place in mapping.items() if name.startswith(f"{top}.")]
    content = hashlib.sha256()
    for name, folder in sorted(set(roots)):
        for path in sorted(folder.rglob("*.py")):
            content.update(f"{name}/{path.relative_to(folder).as_posix()}\0".encode())
            content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()
