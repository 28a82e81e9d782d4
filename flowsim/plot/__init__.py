"""Figures; every function takes ``ax=`` and returns artists."""

from flowsim.plot.style import STYLE
from flowsim.plot.trajectory import imbalance, loss, overview, trajectory

__all__ = ["STYLE", "imbalance", "loss", "overview", "trajectory"]
