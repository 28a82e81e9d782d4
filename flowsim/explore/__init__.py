"""A local page with sliders for scale, noise, decay and network (extra ``explore``).

`controls` are the settings, `redraw` computes limit and flow, `drawing` the figures, `layout` the page, `server` serves
it.
"""

from flowsim.explore.controls import Controls
from flowsim.explore.redraw import Explorer, Shown
from flowsim.explore.server import make_app, start

__all__ = ["Controls", "Explorer", "Shown", "make_app", "start"]
