"""Grids, executors and a durable store; knows nothing of flows.

The room can be called: ``fs.sweep(...)`` and ``flowsim.sweep.sweep(...)`` are the same function.
"""

import inspect
import sys
import types

from flowsim.sweep.assemble import to_dataframe
from flowsim.sweep.execution import plan, sweep
from flowsim.sweep.forecast import Forecast, forecast, ledger
from flowsim.sweep.store import Store

__all__ = ["Forecast", "Store", "forecast", "ledger", "plan", "sweep", "to_dataframe"]


class _CallableRoom(types.ModuleType):
    """Importing a room binds it to its name in the package, where users expect the function of that name."""

    __call__ = staticmethod(sweep)
    __signature__ = inspect.signature(sweep)


sys.modules[__name__].__class__ = _CallableRoom
