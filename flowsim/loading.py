"""Loading of saved results."""

from __future__ import annotations

import os
from typing import Any

from flowsim.certificates.certify import Certificates
from flowsim.flows.stochastic import StochasticFlow
from flowsim.limits import LinearSaddlePath, SaddlePath
from flowsim.limits.files import PATH, read_fields
from flowsim.limits.linear_files import LINEAR_PATH, read_linear_fields
from flowsim.results import Trajectory
from flowsim.results.files import read_trajectory
from flowsim.results.netcdf import Labelled, read
from flowsim.results.saved import RESULT, Saved, read_fields_of
from flowsim.studies.limit_study import LimitStudy

_CLASSES: dict[str, type[Saved]] = {kind.__name__: kind for kind in (Certificates, LimitStudy, StochasticFlow)}


def load(path: str | os.PathLike[str]) -> Any:
    """Read what ``save`` of a result wrote. Nothing in the file is executed.

    Returns
    -------
    Trajectory, SaddlePath, LinearSaddlePath, StochasticFlow, LimitStudy or Certificates
        The object in the file.

    Notes
    -----
    A trajectory comes without its dense output, a path of general formulas without its orbits; arrays among the
    details of a certificate come as lists.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or changed in a single bit, or of another kind.
    """
    return _read(path, read(path, "trajectory, path or other result"))


def _read(path: str | os.PathLike[str], data: Labelled) -> Any:
    kind = data.attrs.get("format")
    if kind == PATH:
        return SaddlePath(**read_fields(path, data))
    if kind == LINEAR_PATH:
        return LinearSaddlePath(**read_linear_fields(path, data))
    if kind != RESULT:
        return Trajectory(**read_trajectory(path, data))
    try:
        cls = _CLASSES[data.attrs["class"]]
        return cls(**read_fields_of(cls, data, lambda inside: _read(path, inside)))
    except Exception as error:  # any missing or invalid field
        raise ValueError(f"`path` must be a result file; {path} cannot be read as one ({error}).") from error
