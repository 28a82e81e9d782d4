"""The cost of a sweep, estimated in advance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsim.sweep import worker
from flowsim.sweep.execution import Plan
from flowsim.sweep.store import Store

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Forecast:
    """Numbers of distinct points; `seconds` are the times of measured points."""

    total: int
    finished: int
    failed: int
    seconds: tuple[float, ...]
    measured_here: bool

    @property
    def left(self) -> int:
        return self.total - self.finished - self.failed

    def duration(self, workers: int) -> float | None:
        """Estimated seconds for the remaining points, by the mean of measured ones; None without any."""
        if not self.seconds:
            return None
        return sum(self.seconds) / len(self.seconds) * self.left / workers


def forecast(plan: Plan, store: str | os.PathLike[str] | None = None, *, probe: bool = True) -> Forecast:
    """Count the remaining points and estimate their time.

    Times come from the points that the store holds; if it holds none and `probe` is True, from the first, the middle
    and the last point, computed here and discarded. The first is computed twice, since it may compile.
    """
    import cloudpickle

    keys = list(dict.fromkeys(plan.keys))
    status: dict[str, str] = {}
    seconds: list[float] = []
    if store is not None and Path(store).is_file():
        with Store(store) as opened:
            for outcome in opened.read(keys):
                status[outcome.key] = outcome.status
                if outcome.status == "done":
                    seconds.append(outcome.seconds)
    parameters = dict(zip(plan.keys, plan.parameters, strict=True))
    left = [key for key in keys if key not in status]
    measured_here = probe and bool(left) and not seconds
    if measured_here:
        chosen = dict.fromkeys((left[0], left[len(left) // 2], left[-1]))
        for key in (left[0], *chosen):
            seconds.append(worker.evaluate(key, plan.function, cloudpickle.dumps(parameters[key])).seconds)
        del seconds[0]
    states = list(status.values())
    return Forecast(len(keys), states.count("done"), states.count("failed"), tuple(seconds), measured_here)


def ledger(store: str | os.PathLike[str]) -> pandas.DataFrame:
    """Every point of a store: parameters, status, error, time, host and duration."""
    import json

    import pandas

    if not Path(store).is_file():
        raise ValueError(f"`store` must be a file; there is none at {store}.")
    with Store(store) as opened:
        rows: list[dict[str, Any]] = opened.rows()
    for row in rows:
        try:
            row["error"] = json.loads(row["error"])["error"] if row["error"] else ""
        except (ValueError, KeyError, TypeError):
            row["error"] = "damaged"
    return pandas.DataFrame(rows)
