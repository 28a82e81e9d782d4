"""A local page on which the scale, the noise, the decay and the network are sliders (extra ``explore``)."""

from flowsim.explore.controls import Controls
from flowsim.explore.redraw import Explorer, Shown
from flowsim.explore.server import make_app, start

__all__ = ["Controls", "Explorer", "Shown", "make_app", "start"]
