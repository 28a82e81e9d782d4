"""Experiments: functions that measure, draw and check, and the files that they write."""

from __future__ import annotations

import importlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

from flowsim.atomic import staged
from flowsim.json_values import json_value
from flowsim.plot.style import styled
from flowsim.results.netcdf import Labelled, write_plain

#: Colours that are distinct for every kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")

_MODULES = (
    "flowsim.papers.pesme_flammarion",
    "flowsim.papers.clara_langer_schmidt_hieber",
    "flowsim.papers.min_tarmoun_vidal_mallada",
    "flowsim.papers.linear_limits",
    "flowsim.papers.follow_ups",
    "flowsim.papers.classification",
)


@dataclass(frozen=True)
class Check:
    """A measured number against the prediction of theory."""

    statement: str
    predicted: float
    measured: float
    #: largest ``|measured - predicted|``, relative to ``|predicted|`` unless that is 0; ignored for bounds
    tolerance: float = 0.0
    kind: str = "equals"  #: {"equals", "at most", "at least"}

    def __post_init__(self) -> None:
        for name in ("predicted", "measured"):
            object.__setattr__(self, name, float(getattr(self, name)))  # of numbers of NumPy too

    @property
    def holds(self) -> bool:
        if not (math.isfinite(self.predicted) and math.isfinite(self.measured)):
            return False
        if self.kind == "at most":
            return self.measured <= self.predicted
        if self.kind == "at least":
            return self.measured >= self.predicted
        return abs(self.measured - self.predicted) <= self.tolerance * (abs(self.predicted) or 1.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "statement": self.statement,
            "kind": self.kind,
            "predicted": json_value(self.predicted),
            "measured": json_value(self.measured),
            "tolerance": self.tolerance,
            "holds": self.holds,
        }


@dataclass(frozen=True, eq=False)
class Findings:
    """The return value of an experiment's function."""

    figures: Mapping[str, Figure]  #: mapping name -> Figure, written as PNG, with the name appended to the experiment's
    data: xarray.Dataset  #: all data of the figures
    parameters: dict[str, Any]  #: plain JSON values
    checks: list[Check]
    #: mapping name -> FuncAnimation, written as GIF
    animations: Mapping[str, FuncAnimation] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A named experiment."""

    name: str
    paper: str
    title: str
    function: Callable[[], Findings]


@dataclass(frozen=True)
class Report:
    """The result of one experiment."""

    experiment: Experiment
    checks: tuple[Check, ...]
    files: tuple[Path, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether there are checks and all hold."""
        return bool(self.checks) and all(check.holds for check in self.checks)


class _Experiments(Mapping[str, Experiment]):
    """Name -> experiment; their modules are imported on first access."""

    def __init__(self) -> None:
        self._known: dict[str, Experiment] = {}
        self._loaded = False

    def enter(self, entry: Experiment) -> None:
        self._known[entry.name] = entry

    def _load(self) -> dict[str, Experiment]:
        if not self._loaded:
            self._loaded = True
            for module in _MODULES:
                importlib.import_module(module)
        return self._known

    def __getitem__(self, name: str) -> Experiment:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


EXPERIMENTS = _Experiments()


def experiment(name: str, paper: str, title: str) -> Callable[[Callable[[], Findings]], Callable[[], Findings]]:
    """Decorator that registers a function in `EXPERIMENTS`, to be drawn with the package's style sheet."""

    def enter(function: Callable[[], Findings]) -> Callable[[], Findings]:
        function = styled(function)
        EXPERIMENTS.enter(Experiment(name, paper, title, function))
        return function

    return enter


def reproduce(name: str, folder: str | Path) -> Report:
    """Run an experiment and write ``NAME.png`` (more with a suffix), ``NAME.nc``, ``NAME.json`` into `folder`.

    Raises ValueError for an unknown name.
    """
    import matplotlib.pyplot as plt
    import matplotlib.style

    from flowsim.plot import STYLE, save_animation

    if name not in EXPERIMENTS:
        raise ValueError(f"`name` must be one of {', '.join(EXPERIMENTS)}; received {name!r}.")
    entry, folder = EXPERIMENTS[name], Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    outcome = entry.function()
    files = []
    # Named colours are resolved when a figure is saved, hence within its style.
    with staged(folder) as staging, matplotlib.style.context(STYLE):
        for suffix, figure in outcome.figures.items():
            files.append(staging / f"{name}{'-' if suffix else ''}{suffix}.png")
            figure.savefig(files[-1])
            plt.close(figure)
        for suffix, animation in outcome.animations.items():
            files.append(staging / f"{name}-{suffix}.gif")
            save_animation(animation, files[-1])
            plt.close(animation._fig)  # type: ignore[attr-defined]
        files.append(staging / f"{name}.nc")
        write_plain(Labelled.of_xarray(outcome.data), files[-1])
        seconds = time.perf_counter() - began
        files.append(staging / f"{name}.json")
        files[-1].write_text(json.dumps(_summary(entry, outcome, seconds), indent=2, allow_nan=False) + "\n")
    return Report(entry, tuple(outcome.checks), tuple(folder / file.name for file in files), seconds)


def _summary(entry: Experiment, outcome: Findings, seconds: float) -> dict[str, Any]:
    from flowsim.version import __version__

    return {
        "name": entry.name,
        "paper": entry.paper,
        "title": entry.title,
        "parameters": json_value(outcome.parameters),
        "checks": [check.to_dict() for check in outcome.checks],
        "holds": bool(outcome.checks) and all(check.holds for check in outcome.checks),
        "seconds": round(seconds, 3),
        "versions": {"flowsim": __version__, "numpy": np.__version__, "python": platform.python_version()},
    }
