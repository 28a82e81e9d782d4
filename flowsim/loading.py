"""Loading of saved results."""

from __future__ import annotations

import os
from typing import Any

from flowsim.certificates.certificate import Certificate
from flowsim.certificates.certify import Certificates
from flowsim.flows.stochastic import StochasticFlow
from flowsim.limits import LinearSaddlePath, SaddlePath
from flowsim.limits.convex import Escape
from flowsim.limits.files import TabulatedMemory, make_curves
from flowsim.limits.linear_blocks import Block
from flowsim.limits.linear_losses import LossBlock, LossData
from flowsim.limits.linear_measurements import MeasuredBlock, MeasuredData
from flowsim.limits.linear_process import RankPlateau
from flowsim.network.linear_algebra import LinearData
from flowsim.problem import MatrixCompletion, MatrixSensing
from flowsim.problem.losses import LOSSES
from flowsim.results import Trajectory
from flowsim.results.fields import make_problem
from flowsim.results.files import read_trajectory
from flowsim.results.netcdf import Labelled, read
from flowsim.results.saved import RESULT, read_result
from flowsim.studies.compare import Comparison, EnsembleComparison
from flowsim.studies.lasso_link import LassoLink
from flowsim.studies.limit_study import LimitStudy, Rate

Paths = SaddlePath | LinearSaddlePath
Studies = LimitStudy | LassoLink | Comparison | EnsembleComparison
Result = Trajectory | Paths | Studies | StochasticFlow | Certificates

#: What makes an object of each class of its fields.
_MAKERS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Block,
        Certificate,
        Certificates,
        Comparison,
        EnsembleComparison,
        Escape,
        LassoLink,
        LimitStudy,
        LinearData,
        LinearSaddlePath,
        LossBlock,
        LossData,
        MatrixCompletion,
        MatrixSensing,
        MeasuredBlock,
        MeasuredData,
        RankPlateau,
        Rate,
        SaddlePath,
        StochasticFlow,
        TabulatedMemory,
    )
} | {
    "Loss": lambda name: LOSSES[name],
    "OriginCurves": make_curves,
    "Problem": make_problem,
    "Regression": make_problem,
}


def load(path: str | os.PathLike[str]) -> Result:
    """Read what ``save`` of a result wrote. Nothing in the file is executed.

    Returns
    -------
    Trajectory, limit path, study, comparison, certificates or stochastic flow
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


def _read(path: str | os.PathLike[str], data: Labelled) -> Result:
    if data.attrs.get("format") != RESULT:
        return Trajectory(**read_trajectory(path, data))
    try:
        result: Result = read_result(data, _MAKERS, lambda inside: _read(path, inside))
    except Exception as error:  # any missing or invalid field
        raise ValueError(f"`path` must be a result file; {path} cannot be read as one ({error}).") from error
    return result
