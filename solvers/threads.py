"""One thread for BLAS, where matrices are too small for several to pay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    """The controller of the loaded BLAS libraries, cached: finding them takes milliseconds."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread(wanted: bool = True) -> Iterator[None]:
    """Context in which BLAS of NumPy and SciPy uses one thread, if `wanted`."""
    if not wanted:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield
