"""What every case shares: timing with compilation apart, equal error, and reports with their raw data."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Point", "Report", "Series", "best", "environment", "limited", "time_at_error", "timed", "timed_in_turn"]

PACKAGES = (
    "flowsim", "numpy", "scipy", "numba", "sympy", "scikit-learn", "CyRK", "scikit-sundae", "pydiffsol", "diffrax",
    "jax", "heyoka", "celer", "skglm",
)  # fmt: skip

#: Seconds that short calls fill in a turn, and how many of them do at most.
_TURN, _MOST = 0.03, 15


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, float, list[float]]:
    """The result, the seconds of the first call (compilation included) and of `repeats` further ones."""
    began = time.perf_counter()
    result = function()
    first = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return result, first, seconds


def timed_in_turn(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[Any, list[float]]]:
    """Results, and the seconds of warm calls: each of the repeats calls all, so that a busy second affects all.

    Short calls, which need more repeats on a machine that does other things, are made as often as fits into _TURN.
    """
    found: dict[str, tuple[Any, list[float]]] = {name: (function(), []) for name, function in functions.items()}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds = found[name][1]
            seconds.append(timed(function, 0)[1])
            for _ in range(min(_MOST, int(_TURN / best(seconds))) - 1):
                seconds.append(timed(function, 0)[1])
    return found


def best(seconds: Sequence[float]) -> float:
    """The least of the repeats: what the machine does when nothing else disturbs it."""
    return float(min(seconds))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what runs longer, at its next line of Python; never at 0 or where signals have no timer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again where a callback loses the exception
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Point:
    """One contender at one tolerance."""

    tolerance: float
    error: float | None
    seconds: list[float]
    counts: dict[str, int] = field(default_factory=dict)
    claimed_success: bool = True
    note: str = ""


@dataclass
class Series:
    """One contender over its tolerances."""

    name: str
    points: list[Point]
    first_call: float | None = None


def time_at_error(series: Series, target: float) -> float | None:
    """Seconds at which the contender reaches the target error, interpolated on logarithmic axes.

    None if none of its points is that accurate; where the least accurate point is better already, its time stands.
    """
    known = sorted((p.error, best(p.seconds)) for p in series.points if p.error is not None and np.isfinite(p.error))
    accurate = [pair for pair in known if pair[0] <= target]
    if not accurate:
        return None
    worse = [pair for pair in known if pair[0] > target]
    if not worse:
        return min(seconds for _, seconds in accurate)
    (low_error, low_time), (high_error, high_time) = accurate[-1], worse[0]
    low_error = max(low_error, 1e-300)
    share = (np.log(target) - np.log(low_error)) / (np.log(high_error) - np.log(low_error))
    return float(np.exp(np.log(low_time) + share * (np.log(high_time) - np.log(low_time))))


@dataclass
class Report:
    """The result of one case: a table for people, raw data for everyone else.

    Attributes
    ----------
    name : str
        File name of its results.
    title : str
        What is compared, on what, at which error.
    columns, rows
        The table; every ratio in it was taken in this run.
    notes : list of str
        Peers left out, caveats, targets missed and why.
    raw : any JSON
        Repeats, errors, counts.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    raw: Any = None

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", "| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes), ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name}.json"
        content = asdict(self) | {"environment": environment()}
        path.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")
        return path


def environment() -> dict[str, Any]:
    """Versions and processor."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "python": platform.python_version(),
        "processor": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return asdict(value)
