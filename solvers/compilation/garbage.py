"""Pause the garbage collector while Numba compiles.

A compilation makes millions of objects that live until it ends, which the collector traverses again and again: about
a tenth of a first run.
"""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

from numba.core import event


class _Pause(event.Listener):
    """Compilations nest: the outermost one disables the collector, and enables it again if it was enabled before."""

    def __init__(self) -> None:
        self.depth = 0
        self.ran = False

    def on_start(self, event: Any) -> None:
        if self.depth == 0:
            self.ran = gc.isenabled()
            gc.disable()
        self.depth += 1

    def on_end(self, event: Any) -> None:
        self.depth -= 1
        if self.depth == 0 and self.ran:
            gc.enable()


@cache
def uncollected_while_compiling() -> None:
    """Install the pause, once per process. Numba emits the event of a compilation while it holds its own lock."""
    event.register("numba:compile", _Pause())
