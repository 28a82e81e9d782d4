"""How every function here is compiled."""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import cfunc, njit
from numba.core.options import DefaultOptions

from flowsim.solvers.compilation.parts import pipeline

__all__ = ["FAST", "LANES", "bare", "compiled", "compiled_callback", "padded", "part"]

#: Reassociated sums vectorise; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}
#: Doubles in the widest vector register.
LANES = 8

#: Division by zero gives infinity, and other threads may run meanwhile.
compiled = partial(njit, cache=True, nogil=True, error_model="numpy")
#: Parts of compiled functions, without entry points for Python.
part = partial(
    njit, nogil=True, error_model="numpy", **pipeline(), no_cpython_wrapper=True, no_cfunc_wrapper=True
)  # fmt: skip
#: The same without reference counts, for functions that make no arrays: counting the arguments of a call, atomically,
#: takes longer than the work on a vector of ten.
_uncounted: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}
bare = partial(part, **_uncounted)
#: A C function, called by its address.
compiled_callback = partial(cfunc, cache=True, error_model="numpy")


@bare()
def padded(m):
    """The next multiple of LANES."""
    return (m + LANES - 1) // LANES * LANES
