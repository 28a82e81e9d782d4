"""A descent beside its flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowsim.plot.style import new_axes, styled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from flowsim.studies.compare import Comparison, Comparisons

__all__ = ["compare"]

#: Step sizes that fit under an axis by name.
_MOST_TICKS = 8


@styled
def compare(comparison: Comparison | Comparisons, *, ax: Axes | None = None) -> list[Artist]:
    """Distance between descent and flow: over time for one step size, against the step for several.

    Parameters
    ----------
    comparison : Comparison or Comparisons
        From :func:`flowsim.compare`.
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    artists: list[Artist] = []
    if hasattr(comparison, "distance"):
        label = f"matched in time, step {comparison.step:g}"
        artists += ax.plot(comparison.t, comparison.distance, color="#0072B2", ls="-", label=label)
        share = comparison.length * float(comparison.t[-1])
        artists += ax.plot(share, comparison.along, color="#D55E00", ls="--", label="matched along the path")
        ax.set_xlabel(r"time $t = h k$ (path: share of its length)")
    else:
        steps = np.array([item.step for item in comparison])
        largest = np.array([item.largest for item in comparison])
        shape = np.array([item.hausdorff for item in comparison])
        artists += ax.plot(steps, largest, color="#0072B2", ls="-", marker="o", ms=4, label="matched in time, largest")
        artists += ax.plot(steps, shape, color="#D55E00", ls="--", marker="s", ms=4, label="shape (Hausdorff)")
        order = comparison.order
        guide = largest[0] * (steps / steps[0]) ** order
        artists += ax.plot(steps, guide, color="0.5", lw=0.8, ls=":", label=f"order {order:.2f}")
        ax.set_xscale("log")
        ax.set_yscale("log")
        if len(steps) <= _MOST_TICKS:
            ax.set_xticks(steps, [f"{step:g}" for step in steps])
            ax.xaxis.minorticks_off()
        ax.set_xlabel("step size $h$")
    ax.set_ylabel(r"distance of descent to flow, $\|\Delta\beta\|$")
    ax.legend()
    return artists
