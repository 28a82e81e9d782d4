"""The data of the page, subsampled to the resolution of a screen, as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.json_values import typed_array
from flowsim.plot.style import spans_decade
from flowsim.report.folder import Run, varied
from flowsim.results import TIME_CLOCKS, Trajectory
from flowsim.results.trajectory import coordinate_names

#: Points per curve: half evenly spaced in arc length, half at the integrator's steps.
MAX_POINTS = 1200
#: Number of coordinates drawn, the largest ones; the page states how many are left out.
MAX_COORDINATES = 40
#: Fraction of the largest below which coordinates are left out too.
NEGLIGIBLE = 1e-3


def payload(runs: list[Run], title: str) -> dict[str, Any]:
    """All data of the page's script."""
    parameter = varied(runs)
    return {
        "title": title,
        "parameter": parameter,
        "runs": [_run(run, parameter) for run in runs],
        "log_time": any(_jumps_spread(run) for run in runs),
        "comparison": _comparison(runs, parameter),
    }


def thin(traj: Trajectory) -> Index:
    """Indices of the points to draw, which resolve 2/MAX_POINTS of the arc length."""
    count = len(traj)
    if count <= MAX_POINTS:
        return np.arange(count)
    by_length = np.searchsorted(traj.arclength, np.linspace(0.0, traj.arclength[-1], MAX_POINTS // 2))
    by_step = np.linspace(0, count - 1, MAX_POINTS // 2).round().astype(np.intp)
    return np.union1d(np.minimum(by_length, count - 1), by_step)


def _run(run: Run, parameter: str | None) -> dict[str, Any]:
    traj = run.trajectory
    kept = thin(traj)
    beta = traj.beta.reshape(len(traj), -1)
    names, drift = coordinate_names(traj), traj.imbalance_departure
    peak = np.abs(beta).max(axis=0)
    order = np.argsort(-peak, kind="stable")
    drawn = sorted(int(i) for i in order[:MAX_COORDINATES] if peak[i] > NEGLIGIBLE * peak.max())
    left_out = np.setdiff1d(np.arange(len(names)), drawn)
    return {
        "label": _label(run, parameter),
        "name": run.name,
        "facts": _facts(run),
        "jumps": run.summary.get("jumps") or [],
        "limit": str(run.summary.get("limit", "")),
        "certificates": run.certificates,
        "clocks": {clock: _encode(traj.clock_values(clock)[kept]) for clock in TIME_CLOCKS},
        "loss": _encode(traj.loss[kept]),
        "drift": None if drift is None else _encode(np.maximum(drift[kept], np.finfo(float).eps)),  # on a log axis
        "invariants": ", ".join(traj.invariants),
        "coordinates": [{"index": i, "name": names[i], "values": _encode(beta[kept, i], "f4")} for i in drawn],
        "left_out": {"count": len(left_out), "largest": float(peak[left_out].max(initial=0.0))},
        "points": {"drawn": len(kept), "recorded": len(traj)},
    }


def _label(run: Run, parameter: str | None) -> str:
    if parameter == "alpha":
        return f"α = {run.summary.get('alpha')}"
    if parameter == "eta":
        return f"η = {run.eta:g}"
    return run.name


def _facts(run: Run) -> list[list[str]]:
    summary, traj = run.summary, run.trajectory
    facts: list[tuple[str, Any]] = [
        ("data", f"{summary.get('data', 'unknown')} ({summary.get('n')} × {summary.get('d')})"),
        ("network", summary.get("network")),
        ("α", summary.get("alpha")),
        ("coordinates", summary.get("coordinates")),
        ("method", summary.get("method")),
        ("rtol, atol", f"{summary.get('rtol')}, {summary.get('atol')}"),
        ("final training loss", _number(summary.get("final_loss"))),
        ("least possible loss", _number(summary.get("least_loss"))),
        ("largest drift of the conserved quantities", f"{traj.imbalance_drift:.1e}"),
        ("steps", traj.stats.get("steps")),
        ("seconds", _number(traj.stats.get("seconds"))),
        ("status", "success" if traj.success else f"stopped: {traj.message}"),
        ("versions", ", ".join(f"{name} {value}" for name, value in (summary.get("versions") or {}).items())),
    ]
    error = summary.get("error")
    if isinstance(error, dict):
        facts.append(("error against a tighter run", f"{_number(error.get('relative_error'))} relative"))
    return [[name, str(value)] for name, value in facts if value not in (None, "")]


def _number(value: Any) -> str | None:
    return f"{value:.6g}" if isinstance(value, int | float) else None


def _jumps_spread(run: Run) -> bool:
    times = [jump["predicted"] for jump in run.summary.get("jumps") or [] if jump.get("predicted", 0) > 0]
    return spans_decade(sorted(times))


def _comparison(runs: list[Run], parameter: str | None) -> dict[str, Any] | None:
    """Comparison of several runs: jump times against the limit over alpha, or end points over noise."""
    if parameter == "alpha":
        curves = _jump_errors(runs)
        if not curves:
            return None
        return {
            "kind": "alpha",
            "title": "Distance of each jump from its predicted time",
            "x": "1 / ln(1/α)",
            "y": "|measured − predicted|, accelerated time",
            "log": True,
            "curves": curves,
        }
    if parameter == "eta":
        return {
            "kind": "eta",
            "title": "End point over the noise level",
            "x": "η, standard deviation of the weight noise",
            "y": "β at the end of the run",
            "log": False,
            "curves": _end_points(runs),
        }
    return None


def _jump_errors(runs: list[Run]) -> list[dict[str, Any]]:
    curves: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs:
        for place, jump in enumerate(run.summary.get("jumps") or []):
            predicted, measured = jump.get("predicted"), jump.get("measured")
            if measured is None or measured == predicted or not run.log_alpha < 0:
                continue
            key = (place, jump.get("feature"), jump.get("sign"), jump.get("kind"))
            name = f"{jump.get('feature')} {jump.get('sign')} {jump.get('kind')}"
            curve = curves.setdefault(key, {"name": name, "x": [], "y": []})
            curve["x"].append(-1.0 / run.log_alpha)
            curve["y"].append(abs(measured - predicted))
    return [curve for curve in curves.values() if len(curve["x"]) > 1]


def _end_points(runs: list[Run]) -> list[dict[str, Any]]:
    names = coordinate_names(runs[0].trajectory)
    ends = [run.trajectory.beta[-1].ravel() for run in runs if coordinate_names(run.trajectory) == names]
    if len(ends) < len(runs):
        return []
    table = np.array(ends)
    shown = np.argsort(-np.abs(table).max(axis=0), kind="stable")[:MAX_COORDINATES]
    etas = [run.eta for run in runs]
    return [{"name": names[i], "x": etas, "y": table[:, i].tolist()} for i in sorted(shown.tolist())]


def _encode(values: Array, kind: str = "f8") -> dict[str, Any]:
    """A typed array, with its range."""
    extremes = values[np.isfinite(values)]
    span = [float(extremes.min()), float(extremes.max())] if len(extremes) else [0.0, 0.0]
    return typed_array(values, kind) | {"span": span}
