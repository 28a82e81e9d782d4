"""Vanishing initialisation: the saddle-to-saddle process and its orbits."""

from flowsim.limits.path import Event, SaddlePath
from flowsim.limits.process import saddle_to_saddle

__all__ = ["Event", "SaddlePath", "saddle_to_saddle"]
