"""Figures; every function takes ``ax=`` and returns artists."""

from flowsim.plot.limits import lasso_link, limit_overview, limit_study, saddle_to_saddle
from flowsim.plot.style import STYLE
from flowsim.plot.trajectory import imbalance, loss, overview, trajectory

__all__ = [
    "STYLE",
    "imbalance",
    "lasso_link",
    "limit_overview",
    "limit_study",
    "loss",
    "overview",
    "saddle_to_saddle",
    "trajectory",
]
