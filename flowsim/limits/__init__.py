"""Vanishing initialisation: the saddle-to-saddle process and its orbits."""

from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.path import SaddlePath, SupportChange
from flowsim.limits.process import saddle_to_saddle
from flowsim.limits.rational import ExactPath
from flowsim.limits.start_state import StartState

__all__ = ["ExactPath", "LinearSaddlePath", "SaddlePath", "StartState", "SupportChange", "saddle_to_saddle"]
