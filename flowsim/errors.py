"""The errors of our own; everything a caller can mend is a ``ValueError``."""

from __future__ import annotations

from typing import Any


class IntegrationError(RuntimeError):
    """A flow, descent or limit process that cannot be continued.

    Attributes
    ----------
    trajectory : Trajectory or None
        What was computed before the failure, with ``success`` False; None if nothing was.
    path : SaddlePath or None
        Of a limit process: the saddles before the one that failed, with ``complete`` False.
    """

    def __init__(self, message: str, trajectory: Any = None, path: Any = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory
        self.path = path


class MissingFileError(FileNotFoundError, ValueError):
    """A file that a caller named and that is not there."""
