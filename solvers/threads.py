"""One thread for BLAS, where more cost more than they give."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    """Of the libraries in memory: looking for them takes milliseconds."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread(wanted: bool = True) -> Iterator[None]:
    """BLAS of NumPy and SciPy works in one thread meanwhile, if wanted."""
    if not wanted:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield
