"""Gradient flows of diagonal and two-layer linear networks, at any initialisation scale.

Names are imported on first use, so that ``import flowsim`` itself is fast.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from flowsim.version import __version__

#: public name -> module that defines it
_HOME = {
    "DiagonalNetwork": "flowsim.network",
    "DecaySchedule": "flowsim.network",
    "Logs": "flowsim.network",
    "FlowRegressor": "flowsim.estimators",
    "GaussianNoise": "flowsim.network",
    "IntegrationError": "flowsim.errors",
    "LaplaceNoise": "flowsim.network",
    "LinearNetwork": "flowsim.network",
    "LinearSaddlePath": "flowsim.limits",
    "MomentNoise": "flowsim.network",
    "RademacherNoise": "flowsim.network",
    "MatrixCompletion": "flowsim.problem",
    "MatrixSensing": "flowsim.problem",
    "Problem": "flowsim.problem",
    "Regression": "flowsim.problem",
    "SaddlePath": "flowsim.limits",
    "SaddleRegressor": "flowsim.estimators",
    "Trajectory": "flowsim.results",
    "UniformNoise": "flowsim.network",
    "certify": "flowsim.certificates",
    "compare": "flowsim.studies.compare",
    "derive": "flowsim.symbolic",
    "gradient_descent": "flowsim.descent",
    "gradient_descents": "flowsim.descent",
    "gradient_flow": "flowsim.flows",
    "lasso_link": "flowsim.studies",
    "limit_study": "flowsim.studies",
    "linear_start": "flowsim.network",
    "load": "flowsim.loading",
    "modified_flow": "flowsim.flows",
    "stochastic_flow": "flowsim.flows",
    "saddle_to_saddle": "flowsim.limits",
    "sharpness": "flowsim.descent",
}
#: public module -> its path; `sweep` is callable
_MODULES = {
    "certificates": "flowsim.certificates",
    "datasets": "flowsim.datasets",
    "events": "flowsim.events",
    "losses": "flowsim.losses",
    "plot": "flowsim.plot",
    "solvers": "flowsim.solvers",
    "studies": "flowsim.studies",
    "sweep": "flowsim.sweep",
}

__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from flowsim import certificates as certificates
    from flowsim import datasets as datasets
    from flowsim import events as events
    from flowsim import losses as losses
    from flowsim import plot as plot
    from flowsim import solvers as solvers
    from flowsim import studies as studies
    from flowsim.certificates.certify import certify as certify
    from flowsim.descent.ensemble import gradient_descents as gradient_descents
    from flowsim.descent.gradient_descent import gradient_descent as gradient_descent
    from flowsim.descent.sharpness import sharpness as sharpness
    from flowsim.errors import IntegrationError as IntegrationError
    from flowsim.estimators import FlowRegressor as FlowRegressor
    from flowsim.estimators import SaddleRegressor as SaddleRegressor
    from flowsim.flows import modified_flow as modified_flow
    from flowsim.flows import stochastic_flow as stochastic_flow
    from flowsim.flows.gradient_flow import gradient_flow as gradient_flow
    from flowsim.limits import LinearSaddlePath as LinearSaddlePath
    from flowsim.limits import SaddlePath as SaddlePath
    from flowsim.limits import saddle_to_saddle as saddle_to_saddle
    from flowsim.loading import load as load
    from flowsim.network import DecaySchedule as DecaySchedule
    from flowsim.network import DiagonalNetwork as DiagonalNetwork
    from flowsim.network import GaussianNoise as GaussianNoise
    from flowsim.network import LaplaceNoise as LaplaceNoise
    from flowsim.network import LinearNetwork as LinearNetwork
    from flowsim.network import Logs as Logs
    from flowsim.network import MomentNoise as MomentNoise
    from flowsim.network import RademacherNoise as RademacherNoise
    from flowsim.network import UniformNoise as UniformNoise
    from flowsim.network import linear_start as linear_start
    from flowsim.problem import MatrixCompletion as MatrixCompletion
    from flowsim.problem import MatrixSensing as MatrixSensing
    from flowsim.problem import Problem as Problem
    from flowsim.problem import Regression as Regression
    from flowsim.results import Trajectory as Trajectory
    from flowsim.studies.compare import compare as compare
    from flowsim.studies.lasso_link import lasso_link as lasso_link
    from flowsim.studies.limit_study import limit_study as limit_study
    from flowsim.sweep import sweep as sweep
    from flowsim.symbolic import derive as derive


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'flowsim' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
