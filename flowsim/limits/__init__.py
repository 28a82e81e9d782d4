"""Vanishing initialisation: the saddle-to-saddle process and its orbits."""

from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.path import Event, SaddlePath
from flowsim.limits.process import saddle_to_saddle
from flowsim.limits.rational import ExactPath
from flowsim.limits.start_state import StartState

__all__ = ["Event", "ExactPath", "LinearSaddlePath", "SaddlePath", "StartState", "saddle_to_saddle"]
