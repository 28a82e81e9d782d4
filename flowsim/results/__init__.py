"""What a flow or a descent returns: states, trajectories, events, files."""

from flowsim.results.state import CLOCKS, TIME_CLOCKS, Clock, Deferred, State
from flowsim.results.trajectory import Trajectory, load

__all__ = ["CLOCKS", "TIME_CLOCKS", "Clock", "Deferred", "State", "Trajectory", "load"]
