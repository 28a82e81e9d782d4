"""Compiled code on disk that cannot be stale.

Numba's own cache depends on one source file: an edit of a function called from another file goes unnoticed, and files
left in a package's folder shadow the next installation. Here code is kept in the user's cache folder, under a digest of
*all* compiled sources and of Numba's version. Only functions of this package are affected, not what a user compiles
with Numba.

A function is compiled by one process at a time: others that need it wait, and load the stored code.
"""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path
from typing import Any

from flowsim.solvers.cache_folder import cache_folder, folder_of_digest
from flowsim.solvers.compilation.claims import Claim

#: Seconds to wait for another process that compiles a function, before compiling it here as well.
_PATIENCE = 120.0


@cache
def _cache_class() -> Any:
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
    from numba.core.runtime import rtsys

    class Locator(_CacheLocator):
        def __init__(self, function: Any) -> None:
            self._py_file = function.__code__.co_filename
            self._line = function.__code__.co_firstlineno
            self._folder = folder_of_digest(cache_folder()) / function.__module__

        def get_cache_path(self) -> str:
            return str(self._folder)

        def get_source_stamp(self) -> str:
            # The digest is in the folder's name.
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

        def __init__(self, function: Any) -> None:
            super().__init__(function)
            self.claim = Claim(Path(self._cache_path) / f"{self._impl.filename_base}.lock")

        @property
        def is_filled(self) -> bool:
            """Whether the function has been compiled, by any process."""
            return (Path(self._cache_path) / f"{self._impl.filename_base}.nbi").exists()

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            found = self._found(sig, target_context)
            if found is None and not self.claim.take():
                self.claim.take(_PATIENCE)
                found = self._found(sig, target_context)
                if found is not None:
                    self.claim.release()
            return found

        def save_overload(self, sig: Any, data: Any) -> None:
            try:
                super().save_overload(sig, data)
            finally:
                self.claim.release()

        def _found(self, sig: Any, target_context: Any) -> Any:
            # Numba would load all that a compilation needs, half a second, before it opens a file of compiled code.
            rtsys.initialize(target_context)
            try:
                with self._guard_against_spurious_io_errors():
                    return self._load_overload(sig, target_context)
                return None
            except (EOFError, pickle.UnpicklingError, ValueError, KeyError, IndexError, AttributeError):
                # A damaged file: compile anew.
                self.flush()
                return None

    return DiskCache


def disk_cache(function: Any) -> Any:
    """The cache from which Numba's dispatcher of a function loads compiled code."""
    return _cache_class()(function)
