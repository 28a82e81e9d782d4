"""Generated source on disk, so that Numba can cache compiled code between processes.

Numba caches compiled code of functions in files only. A file is written once, atomically, under a
name that hashes its inputs; it contains a checksum, so that damage is detected and the file written again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from flowsim.solvers.cache_folder import cache_folder, temporary_folder

_CHECKSUM = "# sha256 "
_lock = threading.RLock()
_loaded: dict[tuple[str, str], ModuleType] = {}


def digest(text: str) -> str:
    """A digest of a text, of twenty hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def load_generated(source: str | Callable[[], str], stem: str, key: str | None = None) -> ModuleType:
    """Import generated source through a file in the user's cache folder.

    The same object for the same stem and key within a process; ``module.SOURCE`` holds the text.
    `source`: python source. A function is called only if no intact file for `key` exists; `stem`: prefix of the file's
    name; `key`: digest of the inputs of the source; default: a hash of the source, which must then be text.
    """
    if key is None:
        if not isinstance(source, str):
            raise ValueError("`key` must be given when `source` is a function.")
        key = digest(source)
    folder = cache_folder()
    name = f"{stem}_{key}"
    with _lock:
        known = _loaded.get((str(folder), name))
        if known is not None:
            return known
        path = folder / f"{name}.py"
        text = _read(path)
        if text is None:
            text = source if isinstance(source, str) else source()
            folder = _publish(path, text).parent
            path = folder / f"{name}.py"
        module = _import(f"flowsim_generated_{name}", path)
        module.SOURCE = text  # type: ignore[attr-defined]
        _loaded[str(folder), name] = module
        return module


def _read(path: Path) -> str | None:
    """The source in a file whose checksum holds, else None."""
    try:
        head, _, text = path.read_bytes().decode().partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if head == _CHECKSUM + hashlib.sha256(text.encode()).hexdigest() else None


def _publish(path: Path, text: str) -> Path:
    """Write a file atomically; the first of several processes wins.

    Linking, unlike replacing, fails where another process was first: an intact file never changes.
    """
    content = f"{_CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode()
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    except OSError:
        path = temporary_folder() / path.name
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if path.exists() and _read(path) is None:
            os.replace(temporary, path)
            return path
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return path


def _import(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
