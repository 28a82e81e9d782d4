"""How every function of this package is compiled, and where the result is kept.

`disk` keeps compiled code under a digest of all sources, `claims` lets one process at a time compile a function,
`parts` spares Numba repeated work on functions that only compiled code calls, `garbage` pauses the collector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import float64, int64, njit, types
from numba.core.options import DefaultOptions

from flowsim.solvers.compilation.disk import disk_cache
from flowsim.solvers.compilation.garbage import PAUSE
from flowsim.solvers.compilation.parts import pipelines

__all__ = [
    "FAST",
    "INTEGERS",
    "LANES",
    "TABLE",
    "TERMS",
    "VECTOR",
    "address_of",
    "bare",
    "compiled",
    "compiled_bare",
    "compiled_callback",
    "padded",
    "part",
]

#: LLVM's fast-math flags: sums may be reassociated, so that they vectorise; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}
#: Doubles in the widest vector register.
LANES = 8
#: Types of contiguous arrays.
VECTOR, TABLE, INTEGERS = float64[::1], float64[:, ::1], int64[::1]
#: The type of exponentials: four arrays (K, w).
TERMS = types.UniTuple(TABLE, 4)


_pipelines = pipelines()
_uncounted: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}


def compiled(
    signature: Any = None,
    *,
    once: bool = False,
    explicit: bool = False,
    counted: bool = True,
    declared: Any = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, or at once for a signature, and keep the result on disk.

    Division by zero gives infinity, and other threads may run meanwhile, unless the options of Numba's ``njit`` say
    otherwise. Only a function with a signature can be called by its address. With `once`, LLVM goes over it once and
    does not unroll loops; with `explicit`, moreover, vectors are written out (see :mod:`flowsim.solvers.simd`) and it
    does not vectorise them. A function that is not `counted` counts no references, and allocates no arrays. `declared`
    are its argument types, for :mod:`flowsim.solvers.precompile`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        pipeline = _pipelines.explicit if explicit else _pipelines.once if once else _pipelines.whole
        pipeline = pipeline | ({} if counted else _uncounted)
        dispatcher = _dispatcher(function, function, pipeline | {"no_cfunc_wrapper": signature is None} | options)
        dispatcher.declared = declared
        if signature is not None:
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        return dispatcher

    return decorate


def compiled_bare(function: Callable[..., Any], stored_as: Callable[..., Any], **options: Any) -> Any:
    """Compile a function of bare arrays (:mod:`flowsim.solvers.matrices`), stored on disk as another, of a module.

    LLVM goes over it once and does not unroll loops: these functions are large.
    """
    return _dispatcher(function, stored_as, _pipelines.once | _uncounted | {"no_cfunc_wrapper": True} | options)


def _dispatcher(function: Callable[..., Any], stored_as: Callable[..., Any], options: dict[str, Any]) -> Any:
    chosen: dict[str, Any] = {"nogil": True, "error_model": "numpy"} | options
    made: Any = njit(**chosen)(function)
    made._cache = disk_cache(stored_as)
    return made


def compiled_callback(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with C calling convention, to be called by its address."""

    def decorate(function: Callable[..., Any]) -> Any:
        from numba.core import sigutils
        from numba.core.ccallback import CFunc
        from numba.core.compiler_lock import global_compiler_lock

        found: Any = CFunc(
            function, sigutils.normalize_signature(signature), {}, {"error_model": "numpy"}, **_pipelines.whole
        )
        found._cache = disk_cache(function)
        with global_compiler_lock, PAUSE:
            found.compile()
        return found

    return decorate


def address_of(function: Any, *kinds: Any) -> int:
    """Of a compiled function ``void(*kinds)`` of arrays of these types, for compiled code."""
    found = function.get_compile_result(types.void(*kinds))
    return int(found.library.get_pointer_to_function(found.fndesc.llvm_func_name))


#: Decorator of functions that only compiled code calls: no entry point for Python. With `forceinline` a function is
#: copied to all its callers; set here, since what such a function calls would otherwise inherit it.
part = partial(
    njit,
    nogil=True,
    error_model="numpy",
    **_pipelines.part,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    forceinline=False,
)
#: The same without reference counting, for functions that allocate no arrays: counting the arguments of a call
#: atomically takes longer than the work on a vector of ten.
bare = partial(part, **_uncounted)


@bare()
def padded(m):
    """The next multiple of LANES."""
    return (m + LANES - 1) // LANES * LANES
