"""Saying that Numba compiles: seconds of silence at a first use would look like a hang."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

NOTE = "compiling, once: kept for later runs"
_SAID: list[bool] = []
_EXPECTED: list[bool] = []


def expect() -> None:
    """Another process compiles for this one."""
    _EXPECTED.append(True)


@contextlib.contextmanager
def compiling_note(shown: bool) -> Iterator[None]:
    """Within the block, one line on standard error as soon as Numba compiles; nothing where its cache has the code."""
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
            """Nothing: only the beginning is announced."""

    with event.install_listener("numba:compile", Note()):
        yield


def _say() -> None:
    if not _SAID:
        _SAID.append(True)
        print(NOTE, file=sys.stderr, flush=True)
