"""Loading of saved trajectories and paths."""

from __future__ import annotations

import os
from typing import Any

from flowsim.limits.files import PATH
from flowsim.limits.linear_files import LINEAR_PATH
from flowsim.limits.linear_path import read_linear_path
from flowsim.limits.path import read_path
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
        return read_path(path, data)
    if data.attrs.get("format") == LINEAR_PATH:
        return read_linear_path(path, data)
    return Trajectory(**read_trajectory(path, data))
