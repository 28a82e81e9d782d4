"""Reading the folders written by ``flowsim run``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsim.loading import load
from flowsim.results import Trajectory

TRAJECTORY, SUMMARY, CERTIFICATES = "trajectory.nc", "summary.json", "certificates.json"


@dataclass(frozen=True)
class Run:
    """One run folder."""

    name: str  #: name of the folder
    trajectory: Trajectory
    summary: dict[str, Any]  #: as written by ``flowsim run``
    certificates: list[dict[str, Any]] | None = None  #: the rows of ``certificates.json``, if it exists

    @property
    def log_alpha(self) -> float:
        """ln(alpha), NaN if unknown."""
        return _number(self.summary.get("log_alpha"))

    @property
    def eta(self) -> float:
        """Standard deviation of the weight noise, NaN if unknown."""
        return _number(self.summary.get("eta"))


def read_runs(folder: str | Path) -> list[Run]:
    """The run in a folder, or the runs in its sub-folders, ordered towards small alpha, then large noise.

    Raises ValueError if there is no run, or one that is incomplete or damaged.
    `folder`: a folder with ``summary.json`` and ``trajectory.nc``, or of such folders.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`RUN_FOLDER` must be a folder; there is none at {folder}.")
    if _has_part_of_a_run(folder):
        return [_read(folder)]
    found = [inner for inner in sorted(folder.iterdir()) if inner.is_dir() and _has_part_of_a_run(inner)]
    if not found:
        raise ValueError(
            f"`RUN_FOLDER` must hold {SUMMARY} and {TRAJECTORY}, or folders that do; {folder} has neither."
        )
    runs = [_read(inner) for inner in found]
    return sorted(runs, key=lambda run: (-_known(run.log_alpha), _known(run.eta), run.name))


def varied(runs: list[Run]) -> str | None:
    """The parameter that varies between runs: "alpha", "eta", or None for neither or both."""
    alphas, etas = ({_known(getattr(run, name)) for run in runs} for name in ("log_alpha", "eta"))
    if len(alphas) == len(runs) > 1 and len(etas) == 1:
        return "alpha"
    if len(etas) == len(runs) > 1 and len(alphas) == 1:
        return "eta"
    return None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _has_part_of_a_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SUMMARY, TRAJECTORY))


def _read(folder: Path) -> Run:
    for name in (SUMMARY, TRAJECTORY):
        if not (folder / name).is_file():
            raise ValueError(f"`RUN_FOLDER` is incomplete: {folder / name} is missing.")
    summary = _json(folder / SUMMARY)
    if not isinstance(summary, dict):
        raise ValueError(f"`RUN_FOLDER`: {folder / SUMMARY} must hold an object; received {type(summary).__name__}.")
    certificates = None
    if (folder / CERTIFICATES).is_file():
        certificates = _rows(_json(folder / CERTIFICATES), folder / CERTIFICATES)
    trajectory = load(folder / TRAJECTORY)
    if not isinstance(trajectory, Trajectory):
        kind = type(trajectory).__name__
        raise ValueError(f"`RUN_FOLDER`: {folder / TRAJECTORY} must hold a Trajectory; received {kind}.")
    return Run(folder.resolve().name, trajectory, summary, certificates)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`RUN_FOLDER`: {path} cannot be read as JSON ({error}).") from None


def _rows(content: Any, path: Path) -> list[dict[str, Any]]:
    """A list of objects, bare or under the key written by ``flowsim certify --out``."""
    rows = content.get("certificates", content.get("theorems")) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"`RUN_FOLDER`: {path} must hold a list of certificates, one object each.")
    return rows
