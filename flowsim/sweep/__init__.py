"""Grids, executors and a durable store, independent of flows.

Read `execution` (the public function), `grid` (points), `identity` (digests of code and parameters), `store` (SQLite),
`dispatch`, `pool` and `worker` (computation), `codec` and `assemble` (results), `forecast` (cost). The module is
callable: ``fs.sweep(...)`` and ``flowsim.sweep.sweep(...)`` are the same function.
"""

import inspect
import sys
import types

from flowsim.sweep.assemble import to_dataframe
from flowsim.sweep.execution import plan, sweep
from flowsim.sweep.forecast import Forecast, forecast, ledger
from flowsim.sweep.store import Store

__all__ = ["Forecast", "Store", "forecast", "ledger", "plan", "sweep", "to_dataframe"]


class _CallableModule(types.ModuleType):
    """A callable module: importing it binds it to the name in the package at which users expect the function."""

    __call__ = staticmethod(sweep)
    __signature__ = inspect.signature(sweep)


sys.modules[__name__].__class__ = _CallableModule
