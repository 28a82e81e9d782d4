"""Loading of saved trajectories and paths."""

from __future__ import annotations

import os
from typing import Any

from flowsim.limits import LinearSaddlePath, SaddlePath
from flowsim.limits.files import PATH, read_fields
from flowsim.limits.linear_files import LINEAR_PATH, read_linear_fields
from flowsim.results import Trajectory
from flowsim.results.files import read_trajectory
from flowsim.results.netcdf import read


def load(path: str | os.PathLike[str]) -> Any:
    """Read what :meth:`Trajectory.save` or :meth:`SaddlePath.save` wrote. Nothing in the file is executed.

    Returns
    -------
    Trajectory, SaddlePath or LinearSaddlePath
        The object in the file.

    Notes
    -----
    A trajectory comes without its dense output, a path of general formulas without its orbits.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or changed in a single bit, or of another kind.
    """
    data = read(path, "trajectory or path")
    if data.attrs.get("format") == PATH:
        return SaddlePath(**read_fields(path, data))
    if data.attrs.get("format") == LINEAR_PATH:
        return LinearSaddlePath(**read_linear_fields(path, data))
    return Trajectory(**read_trajectory(path, data))
