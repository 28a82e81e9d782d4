"""Locks, so that of the processes that share a cache one compiles a function and the others wait for it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX: each process compiles for itself
    fcntl = None  # type: ignore[assignment]

#: Seconds between two attempts.
_PAUSE = 0.02


class Claim:
    """An advisory lock on a file, released when the process ends. Where files cannot be locked it is always granted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self, seconds: float = 0.0) -> bool:
        """Acquire the lock, waiting for at most `seconds`; returns whether it was acquired."""
        if fcntl is None or self._file is not None:
            return True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError:
            return True
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(_PAUSE)
                    continue
                os.close(file)
                return False
            except OSError:
                os.close(file)
                return True
            self._file = file
            return True

    def release(self) -> None:
        """Leave it to others."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
                os.close(self._file)
            self._file = None
