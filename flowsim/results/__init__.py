"""Results of flows and descents: states, trajectories, events, files.

Read `state` and `trajectory`; `events` are what can be located along a flow, `files` and `netcdf` write and read them
(`classic` is NetCDF's classic binary form), `saved` with `fields` any other result.
"""

from flowsim.results.state import CLOCKS, TIME_CLOCKS, Clock, State
from flowsim.results.trajectory import Trajectory

__all__ = ["CLOCKS", "TIME_CLOCKS", "Clock", "State", "Trajectory"]
