"""Figures of descent against flow; every function draws on ``ax`` and returns it."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.plot.labels import label_ends
from flowsim.plot.panels import fit, four_panels
from flowsim.plot.style import colours, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.studies.compare import Comparison, Comparisons, EnsembleComparison
    from flowsim.studies.edge import EdgeStudy

#: More coordinates than this in one panel cannot be distinguished.
_MOST_COORDINATES = 8


@styled
def compare(comparison: Comparison | EnsembleComparison, *, ax: Axes | None = None) -> Axes:
    """The largest coordinates of the flow (lines) and of the descent (dots), or the mean of many with its 2 SE band.

    Parameters
    ----------
    comparison : Comparison or EnsembleComparison
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    is_mean = hasattr(comparison, "standard_error")
    drawn: Any = comparison
    flow = comparison.flow_beta.reshape(len(comparison.t), -1)
    shown = np.argsort(-np.abs(flow).max(axis=0))[:_MOST_COORDINATES]
    shown = shown[np.abs(flow[:, shown]).max(axis=0) > 0.02 * max(np.abs(flow).max(), np.finfo(float).tiny)]
    palette = colours(len(shown))
    for rank, i in enumerate(shown):
        color = palette[rank]
        ax.plot(comparison.t, flow[:, i], color=color, lw=1.4, label="flow" if rank == 0 else None)
        if is_mean:
            low, high = drawn.band(2.0)
            label = f"mean of {drawn.runs} runs, 2 s.e." if rank == 0 else None
            ax.fill_between(comparison.t, low[:, i], high[:, i], color=color, alpha=0.3, lw=0, label=label)
        else:
            descent = drawn.descent_beta.reshape(len(comparison.t), -1)
            every = max(1, len(comparison.t) // 40)
            ax.plot(
                comparison.t[::every],
                descent[::every, i],
                "o",
                ms=3,
                mfc="none",
                color=color,
                label=f"descent, h = {drawn.step:.3g}" if rank == 0 else None,
            )
    ax.set_xlabel("time $t = h k$")
    ax.set_ylabel(r"coordinates of $\beta$")
    if len(shown):
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.2 * (high - low))  # lines and dots leave no corner free on every problem
        ax.legend(loc="upper left", ncols=2)
        span = (float(comparison.t[0]), float(comparison.t[-1]))
        label_ends(ax, span, flow[-1, shown], [comparison.names[i] for i in shown], palette)
    return ax


@styled
def orders(plain: Comparisons, modified: Comparisons | None = None, *, ax: Axes | None = None) -> Axes:
    """Largest distance against step size, with the fitted order.

    Parameters
    ----------
    plain, modified : Comparisons
        Against the gradient flow, and against the modified flow.
    ax : matplotlib Axes, optional
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    ax = new_axes(ax)
    both = ((plain, "gradient flow", "o"), (modified, "modified flow", "s"))
    for (series, name, marker), color in zip(both, colours(2), strict=True):
        if series is not None and (series.largest > 0).all():
            label = f"{name}: order {series.order:.2f}"
            ax.loglog(series.steps, series.largest, marker=marker, ms=4, color=color, lw=1.2, label=label)
    if not ax.lines:
        ax.text(0.5, 0.5, "nothing has moved", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return ax
    ax.set_xticks(plain.steps, [f"{step:.3g}" for step in plain.steps])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    if high < 30 * low:  # powers of ten alone would leave the axis without numbers
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("step size $h$")
    ax.set_ylabel(r"$\max_k \Vert \beta(hk) - \beta_k \Vert$")
    ax.legend(loc="best")
    return ax


@styled
def edge_of_stability(study: EdgeStudy, *, ax: Axes | None = None) -> Axes:
    """Sharpness over 2/h along the run, a dot for each state examined, one line per step size; 1 is the edge.

    Parameters
    ----------
    study : EdgeStudy
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    for run, marker, color in zip(study.runs, cycle("os^Dv"), colours(len(study.runs)), strict=False):
        steps = run.descent.t[run.index] / run.step
        ax.plot(
            steps, run.ratio, marker=marker, ms=2.5, lw=0.6, color=color, label=f"h = {run.step:.4g}: {run.verdict}"
        )
    ax.axhline(1.0, color="0.35", lw=0.9, ls=":", label="edge: sharpness = 2/h")
    # The start, k = 0, and then decades.
    ax.set_xscale("symlog", linthresh=1.0, linscale=0.4)
    ax.set_xlim(left=0.0)
    ax.set_ylim(bottom=0.0, top=min(1.25 * max(ax.get_ylim()[1], 1.0), 3.0))
    ax.set_xlabel("step $k$")
    ax.set_ylabel(r"sharpness $/\,(2/h)$")
    ax.legend(loc="best")
    return ax


@styled
def compare_overview(
    comparison: Comparison, plain: Comparisons | None = None, modified: Comparisons | None = None
) -> Figure:
    """Paths, distance in time, distance along the way, and orders, in one figure."""
    figure, axes = four_panels(9.0, 6.4)
    compare(comparison, ax=axes[0, 0])
    axes[0, 1].plot(comparison.t, comparison.distance, lw=1.2, label="at equal time")
    axes[0, 1].set_xlabel("time $t = h k$")
    axes[0, 1].set_ylabel(r"$\Vert \beta(hk) - \beta_k \Vert$")
    axes[1, 0].plot(100 * comparison.length, comparison.along, lw=1.2)
    axes[1, 0].set_xlabel("share of the path travelled (%)")
    axes[1, 0].set_ylabel("distance along the way")
    if plain is not None:
        orders(plain, modified, ax=axes[1, 1])
    else:
        axes[1, 1].set_axis_off()
    fit(figure, axes)
    return figure
