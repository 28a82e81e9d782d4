"""Figures from the stored results: work against precision, and the slopes of the scaling study."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["draw"]

#: Okabe and Ito's palette, readable with every colour vision; shapes tell the same apart.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F")
MARKERS = "os^Dvp*XP<>h"


def draw(folder: Path) -> list[Path]:
    """Every figure whose data the folder holds."""
    drawn = []
    for name, figure in (("integrators", _work_precision), ("scaling", _scaling)):
        source = folder / f"{name}.json"
        if source.exists():
            drawn.append(figure(json.loads(source.read_text())["raw"], folder / f"{name}.png"))
    return drawn


def _work_precision(raw: dict[str, Any], path: Path) -> Path:
    """One panel for each alpha: milliseconds over error, one line for each contender that ran at all of them."""
    from matplotlib.figure import Figure

    ran = [[series["name"] for series in panel["series"]] for panel in raw.values()]
    names = [name for name in ran[0] if all(name in others for others in ran)]
    columns = 2 if len(raw) in (2, 4) else min(3, len(raw))
    lines = math.ceil(len(raw) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines + 1.5), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, (alpha, panel) in zip(panels, raw.items(), strict=False):
        for series in panel["series"]:
            points = [
                (point["error"], 1e3 * min(point["seconds"]))
                for point in series["points"]
                if point["error"] is not None and math.isfinite(point["error"]) and point["error"] > 0
            ]
            if not points or series["name"] not in names:
                continue
            index, own = names.index(series["name"]), series["name"].startswith("flowsim")
            (handles[series["name"]],) = axes.loglog(
                *zip(*points, strict=True), color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)], markersize=6 if own else 4.5, linewidth=2.4 if own else 1.0,
                linestyle="-" if index < len(COLOURS) else "--", zorder=3 if own else 2, label=series["name"],
            )  # fmt: skip
        exponent = alpha.removeprefix("1e-")
        axes.set_title(rf"$\alpha = 10^{{-{exponent}}}$")
        axes.set_xlim(3e-10, 10)
        axes.set_ylim(1e-1, 1e3)
        axes.tick_params(labelbottom=True)
        axes.grid(alpha=0.3)
    for axes in panels[len(raw) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("time [ms]")
    for axes in panels[columns * (lines - 1) :]:
        axes.set_xlabel(r"error in $\beta$ (relative to its largest entry)")
    ordered = [name for name in names if name in handles]
    figure.legend([handles[name] for name in ordered], ordered, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def _scaling(raw: dict[str, Any], path: Path) -> Path:
    """One panel for each family: milliseconds per jump or of a flow, with the fitted power."""
    from matplotlib.figure import Figure

    families: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for name, case in raw.items():
        if not name.startswith("slope, "):
            family, size = name.rsplit(" = ", 1)
            families.setdefault(family, []).append((float(size), case))
    figure = Figure(figsize=(3.1 * 3, 2.9 * math.ceil(len(families) / 3)), layout="constrained")
    panels = figure.subplots(math.ceil(len(families) / 3), 3, squeeze=False).ravel()
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    for axes, (family, cases) in zip(panels, families.items(), strict=False):
        sizes = [size for size, _ in cases]
        milliseconds = [1e3 * min(case["seconds"]) / case.get("jumps", 1) for _, case in cases]
        axes.loglog(sizes, milliseconds, marker="o", color=COLOURS[3])
        axes.set_ylim(0.5 * min(milliseconds), 2 * max(milliseconds))
        names = [f"{size:.3g}" if size < 1000 else f"{size:.0e}" for size in sizes]
        axes.set_xticks(sizes, [name.replace("e+0", "e").replace("e+", "e") for name in names])
        axes.minorticks_off()
        quantity, _, fixed = family.partition(" at ")
        axes.set_xlabel(quantity)
        axes.set_ylabel("time per jump [ms]" if "jumps" in cases[0][1] else "time of the flow [ms]")
        axes.set_title(f"at {fixed}\npower {raw[f'slope, {family}']:.2f}", fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    return path
