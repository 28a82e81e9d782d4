"""A note that Numba compiles, which takes seconds at a first use."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

NOTE = "compiling, once: kept for later runs"
_SAID: list[bool] = []
_EXPECTED: list[bool] = []


def expect() -> None:
    """Print the note where another process compiles for this one."""
    _EXPECTED.append(True)


@contextlib.contextmanager
def compiling_note(shown: bool) -> Iterator[None]:
    """Print one line on standard error as soon as Numba compiles within the block; nothing with cached code."""
    if not shown or _SAID:
        yield
        return
    if _EXPECTED:
        _say()
    from numba.core import event

    class Note(event.Listener):
        def on_start(self, event: Any) -> None:
            _say()

        def on_end(self, event: Any) -> None:
            """Nothing: only the start is reported."""

    with event.install_listener("numba:compile", Note()):
        yield


def _say() -> None:
    if not _SAID:
        _SAID.append(True)
        print(NOTE, file=sys.stderr, flush=True)
