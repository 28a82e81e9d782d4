"""Compiled code on disk that cannot be stale.

Numba keeps what it compiles beside the source and recognises it by that one file: an edit of a function that it calls
from another file goes unseen, and what is left in a package's folder shadows the next installation. Here it is kept in
the user's cache folder, under a digest of *all* sources that are compiled and of Numba's version. Only functions of
this package are kept so; what a user compiles with Numba is none of our business.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

from flowsim.solvers.cache_folder import cache_folder

#: So many digests, the last used ones, are kept: branches and versions side by side, not every edit.
_KEPT = 8
_SOLVERS = Path(__file__).resolve().parents[1]


@cache
def digest_of_sources() -> str:
    """Of the files here, those of flowsim that compile, and what compiles them."""
    import llvmlite
    import numba

    total = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in sorted(_SOLVERS.rglob("*.py")):
        total.update(path.relative_to(_SOLVERS).as_posix().encode() + b"\0" + path.read_bytes())
    top = Path(str(sys.modules[__name__.partition(".")[0]].__file__)).resolve().parent
    for path in sorted(top.rglob("*.py")):
        if path.is_relative_to(top / "solvers"):
            continue
        content = path.read_bytes()
        if b"solvers.compilation" in content or b"njit" in content:
            total.update(path.relative_to(top).as_posix().encode() + b"\0" + content)
    return total.hexdigest()[:20]


@cache
def folder_of_digest(parent: Path) -> Path:
    """The folder of this digest; others beyond the last few are removed when it is new."""
    home = parent / "compiled"
    folder = home / digest_of_sources()
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted((each for each in home.iterdir() if each != folder), key=_last_used, reverse=True)
        for old in others[_KEPT - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.utime(folder)
    return folder


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@cache
def _cache_class() -> Any:
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

    class Locator(_CacheLocator):
        def __init__(self, function: Any) -> None:
            self._py_file = function.__code__.co_filename
            self._line = function.__code__.co_firstlineno
            self._folder = folder_of_digest(cache_folder()) / function.__module__

        def get_cache_path(self) -> str:
            return str(self._folder)

        def get_source_stamp(self) -> str:
            # The folder's name holds the digest.
            return ""

        def get_disambiguator(self) -> str:
            return str(self._line)

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            return cls(py_func)

    class Implementation(CompileResultCacheImpl):
        def __init__(self, py_func: Any) -> None:
            self._lineno = py_func.__code__.co_firstlineno
            self._locator = Locator(py_func)
            self._filename_base = self.get_filename_base(py_func.__qualname__, "")

    class DiskCache(FunctionCache):
        _impl_class = Implementation

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except (EOFError, pickle.UnpicklingError, ValueError, KeyError, IndexError, AttributeError):
                # Damaged: compiled anew.
                self.flush()
                return None

    return DiskCache


def disk_cache(function: Any) -> Any:
    """What gives Numba's dispatcher of a function code that is compiled already."""
    return _cache_class()(function)
