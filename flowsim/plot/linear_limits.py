"""Figures of the limit of two-layer linear networks; every function draws on ``ax`` and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from flowsim.errors import IntegrationError
from flowsim.network.linear_algebra import LinearData
from flowsim.plot.curves import on_clock, sample_times
from flowsim.plot.labels import label_ends
from flowsim.plot.panels import fit, four_panels
from flowsim.plot.style import PREDICTED, colours, flow_label, new_axes, styled
from flowsim.results import Trajectory
from flowsim.results.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.limits import LinearSaddlePath


#: Points of a curve of the limit; of one of a flow, along each of its two lengths.
_SAMPLES, _OF_FLOWS = 2000, 300
#: More lines than this are drawn without names.
_MAX_NAMES = 8
_LABELS = {"accelerated": r"accelerated time $\tilde t = t / \ln(1/\alpha)$", "arclength": r"arc length $\tau$"}


class _Flow(NamedTuple):
    """The states of a flow that are drawn, read once for all panels, and its name in a legend."""

    state: State
    label: str

    @classmethod
    def of(cls, traj: Trajectory) -> _Flow:
        state = traj if traj.dense is None else traj.at(sample_times(traj, _OF_FLOWS), clock="arclength")
        return cls(state, flow_label(traj))


@styled
def linear_limit(
    path: LinearSaddlePath,
    traj: Trajectory | None = None,
    *,
    clock: Literal["accelerated", "arclength"] = "accelerated",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Singular values of the limit path: steps in accelerated time, a continuous curve in arc length.

    Parameters
    ----------
    path : LinearSaddlePath
    traj : Trajectory, optional
        A flow of the same network, solid; the limit is dotted then.
    clock : {"accelerated", "arclength"}
    legend : bool
    ax : matplotlib Axes, optional
    """
    if clock not in _LABELS:
        raise ValueError(f"`clock` must be accelerated or arclength; received {clock!r}.")
    return _draw_values(path, None if traj is None else _Flow.of(traj), clock, legend, new_axes(ax))


def _draw_values(path: LinearSaddlePath, flow: _Flow | None, clock: str, legend: bool, ax: Axes) -> Axes:
    last = path.drawn_until
    if clock == "accelerated":
        times, values = path.stairs(path.singular_values)
        _jump_lines(ax, path)
    else:
        last = float(path.arclength(last))
        times = np.linspace(0.0, last, _SAMPLES)
        values = np.asarray(np.linalg.svd(path.curve(times), compute_uv=False), dtype=np.float64)
    if flow is not None:
        ax.plot(times, values, **PREDICTED)
        ax.plot([], [], label="limit", **PREDICTED)
        ax.plot([], [], color=colours(1)[0], label=flow.label)
        ax.legend(loc="upper left", ncols=2)
        times = on_clock(flow.state, clock)
        beta = flow.state.beta.reshape(len(times), *path.saddles.shape[1:])[times <= last]
        times, values = times[times <= last], np.asarray(np.linalg.svd(beta, compute_uv=False))
    names = [f"$s_{{{k + 1}}}$" for k in range(min(values.shape[1], _MAX_NAMES))]
    palette = colours(values.shape[1])
    for k, column in enumerate(values.T):
        ax.plot(times, column, color=palette[k], label=names[k] if k < _MAX_NAMES else "_more")
    ax.set_xlim(0.0, last)
    if flow is not None:
        ax.set_ylim(top=1.2 * ax.get_ylim()[1])  # room for the legend above the lines
    ax.set_xlabel(_LABELS[clock])
    ax.set_ylabel(r"singular values of $U V^\top$")
    if legend:
        label_ends(ax, (0.0, last), values[-1, : len(names)], names, palette)
    return ax


@styled
def levels(path: LinearSaddlePath, traj: Trajectory | None = None, *, ax: Axes | None = None) -> Axes:
    """Levels of the directions of (U; V): 0 at the start, 1 for active ones; a direction is activated at level 1.

    Parameters
    ----------
    path : LinearSaddlePath
    traj : Trajectory, optional
        A flow of the same network; its levels are solid, those of the limit dotted then.
    ax : matplotlib Axes, optional
    """
    return _draw_levels(path, None if traj is None else _Flow.of(traj), new_axes(ax))


def _draw_levels(path: LinearSaddlePath, flow: _Flow | None, ax: Axes) -> Axes:
    last = path.drawn_until
    # Levels are continuous, and linear between jumps.
    times = np.union1d(path.jump_times, np.linspace(0.0, last, 200))
    values = path.levels(times)
    _jump_lines(ax, path)
    learned, lowest = int(path.ranks[-1]), float(values.min())
    if values.shape[1] > learned:
        ax.plot(times, values[:, learned:], color="0.7", lw=0.8)
        ax.plot([], [], color="0.7", lw=0.8, label="never learned")
    values = values[:, :learned]
    if flow is not None and flow.state.levels is not None:
        ax.plot(times, values, **PREDICTED)
        ax.plot([], [], label=f"limit; solid: {flow.label}", **PREDICTED)
        times, values = flow.state.accelerated_time, flow.state.levels[:, :learned]
    palette = colours(learned)
    for k, column in enumerate(values.T):
        ax.plot(times, column, color=palette[k], label=f"direction {k + 1}" if k < _MAX_NAMES else "_more")
    ax.axhline(1.0, color="0.3", lw=0.8, ls="--", zorder=0)
    ax.set_xlim(0.0, last)
    ax.set_ylim(max(-1.15, 1.1 * lowest - 0.05), 1.1)
    ax.set_xlabel(_LABELS["accelerated"])
    ax.set_ylabel(r"level $1 + \ln(\mathrm{size}) / \ln(1/\alpha)$")
    ax.legend(loc="best", framealpha=0.6, fontsize=7.5)
    return ax


@styled
def loss_staircase(path: LinearSaddlePath, *trajs: Trajectory, ax: Axes | None = None) -> Axes:
    """Excess training loss: the staircase of the limit, and flows of decreasing scale that approach it."""
    return _draw_losses(path, [_Flow.of(traj) for traj in trajs], new_axes(ax))


def _draw_losses(path: LinearSaddlePath, flows: Sequence[_Flow], ax: Axes) -> Axes:
    last = path.drawn_until
    least = path.data.least_loss if isinstance(path.data, LinearData) else float(path.losses[-1])
    excess = np.maximum(path.losses - least, 0.0)
    seen = excess[excess > 1e-12 * excess[0]]
    floor = 0.3 * float(seen.min()) if len(seen) else 1e-12
    steps, values = path.stairs(np.maximum(excess, floor))
    ax.plot(steps, values, label="limit", **PREDICTED)
    for k, (state, label) in enumerate(flows):
        ax.plot(state.accelerated_time, np.maximum(state.loss - least, floor), color=colours(k + 1)[k], label=label)
    for rank, (begin, end, value) in enumerate(zip(steps[::2], steps[1::2], values[::2], strict=True)):
        if end - begin > 0.12 * last:
            ax.text((begin + end) / 2, 1.12 * value, f"rank {path.ranks[rank]}", ha="center", va="bottom", fontsize=8)
    ax.set_yscale("log")
    ax.set_ylim(0.7 * floor, 2.5 * float(excess[0]) if excess[0] > 0 else None)
    ax.set_xlim(0.0, last)
    ax.set_xlabel(_LABELS["accelerated"])
    ax.set_ylabel(r"excess loss $L - L^*$")
    ax.legend(loc="upper right")
    return ax


@styled
def linear_overview(path: LinearSaddlePath, *trajs: Trajectory) -> Figure:
    """Singular values over both clocks, levels, and the staircase of the loss."""
    figure, axes = four_panels(12.0, 7.4)
    flows = [_Flow.of(traj) for traj in trajs]
    smallest = flows[-1] if flows else None
    _draw_values(path, smallest, "accelerated", True, axes[0, 0])
    axes[0, 0].set_title("Rank by rank")
    _draw_levels(path, smallest, axes[0, 1])
    axes[0, 1].set_title("Directions that wait")
    try:
        _draw_values(path, smallest, "arclength", False, axes[1, 0])
        axes[1, 0].set_title("Saddles joined by orbits")
    except (ValueError, IntegrationError):
        axes[1, 0].clear()
        axes[1, 0].text(0.5, 0.5, "the orbits depend on the start", ha="center", transform=axes[1, 0].transAxes)
    _draw_losses(path, flows, axes[1, 1])
    axes[1, 1].set_title("Loss")
    fit(figure, axes)
    return figure


def _jump_lines(ax: Axes, path: LinearSaddlePath) -> None:
    for time in path.jump_times:
        ax.axvline(time, zorder=0, label="_jump", **PREDICTED)
