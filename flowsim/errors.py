"""The exceptions of flowsim; invalid arguments raise ``ValueError``."""

from __future__ import annotations

from typing import Any


class IntegrationError(RuntimeError):
    """A flow, descent or limit process that cannot be continued.

    Attributes
    ----------
    trajectory : Trajectory or None
        The result up to the failure, with ``success`` False; None if there is none.
    path : SaddlePath or None
        For a limit process: the saddles before the failure, with ``complete`` False.
    """

    def __init__(self, message: str, trajectory: Any = None, path: Any = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory
        self.path = path


class MissingFileError(FileNotFoundError, ValueError):
    """A file given by a caller does not exist."""
