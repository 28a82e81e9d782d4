"""Pause the garbage collector while Numba compiles.

A compilation makes millions of objects that live until it ends, which the collector traverses again and again: about
a tenth of a first run. What is left counts as old afterwards.
"""

from __future__ import annotations

import gc
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
            if not gc.get_freeze_count():
                gc.freeze()  # from the youngest generation, which is searched at once, ...
                gc.unfreeze()  # ... to the oldest
            gc.enable()

    def __enter__(self) -> None:
        self.on_start(None)

    def __exit__(self, *_: object) -> None:
        self.on_end(None)


#: To be entered while Numba's lock is held, as it is when Numba emits the event of a compilation.
PAUSE = _Pause()
event.register("numba:compile", PAUSE)
