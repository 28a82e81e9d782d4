"""Figures of one trajectory; every function draws on ``ax`` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowsim.plot.style import new_axes, styled
from flowsim.results import Clock, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.limits import SaddlePath

__all__ = ["imbalance", "loss", "overview", "trajectory"]

Array = NDArray[np.float64]

CLOCK_LABELS = {
    "time": "time $t$",
    "accelerated": r"accelerated time $\tilde t$",
    "arclength": r"arc length $\tau$",
}
#: More names than this in a legend are not read.
_MAX_NAMES = 14
#: Coordinates that stay below this fraction of the largest are drawn grey and go unnamed.
_NEGLIGIBLE = 1e-3


@styled
def loss(
    traj: Trajectory,
    *,
    path: SaddlePath | None = None,
    clock: Clock = "accelerated",
    ax: Axes | None = None,
) -> Axes:
    """Training loss over a clock: a staircase when the initialisation is small.

    Parameters
    ----------
    traj : Trajectory
    path : SaddlePath, optional
        Its plateaus are drawn beneath, its jumps as vertical lines (accelerated clock only).
    clock : {"accelerated", "time", "arclength"}
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    if path is not None and clock == "accelerated":
        edges = np.concatenate([[0.0], path.jump_times, [max(traj.accelerated_time[-1], *path.jump_times)]])
        ax.plot(np.repeat(edges, 2)[1:-1], np.repeat(path.losses, 2), color="0.6", lw=3, ls="-", label="limit")
        _jump_lines(ax, path, traj)
    ax.plot(traj.clock_values(clock), traj.loss, color="#0072B2", ls="-", label=_alpha_label(traj))
    _clock_axis(ax, traj, clock, path)
    ax.set_ylabel(r"training loss $L(\beta)$")
    ax.legend()
    return ax


@styled
def trajectory(
    traj: Trajectory,
    *,
    path: SaddlePath | None = None,
    clock: Clock = "accelerated",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Coordinates of beta over a clock, with the limit's jumps as vertical lines."""
    ax = new_axes(ax)
    if path is not None and clock == "accelerated":
        _jump_lines(ax, path, traj)
    beta = traj.beta.reshape(len(traj), -1)
    peak = np.abs(beta).max(axis=0)
    order = np.argsort(-peak, kind="stable")
    named = [i for i in order if peak[i] > _NEGLIGIBLE * peak.max()][:_MAX_NAMES]
    quiet = np.setdiff1d(np.arange(beta.shape[1]), named)
    times = traj.clock_values(clock)
    if len(quiet):
        ax.plot(times, beta[:, quiet], color="0.8", lw=0.7, ls="-")
    for i in sorted(named):
        ax.plot(times, beta[:, i], label=_name(traj, i))
    _clock_axis(ax, traj, clock, path)
    ax.set_ylabel(r"coordinates $\beta_i$")
    if legend and named:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.6)
    return ax


@styled
def imbalance(traj: Trajectory, *, clock: Clock = "accelerated", ax: Axes | None = None) -> Axes:
    """Departure of the conserved quantities from their exact law, relative to their value at 0."""
    ax = new_axes(ax)
    departure = traj.imbalance_departure
    if departure is None:
        raise ValueError("`traj` carries no departure of its conserved quantities over time.")
    # Exact zeros are drawn at the spacing of floats: the axis is logarithmic.
    shown = np.maximum(departure, np.finfo(float).eps)
    ax.plot(traj.clock_values(clock), shown, color="#0072B2", ls="-")
    ax.set_yscale("log")
    ax.set_ylim(min(shown.min(), 1e-17) / 2, max(shown.max() * 10, 1e-9))
    _clock_axis(ax, traj, clock, None)
    names = ", ".join(traj.invariants).replace("**", "^").replace("*", " ")
    ax.set_ylabel(f"relative drift of ${names}$" if names else "relative drift")
    return ax


@styled
def overview(traj: Trajectory, path: SaddlePath | None = None) -> Figure:
    """Four panels: loss staircase, coordinates in accelerated time and in arc length, conserved quantity."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10.5, 6.6))
    clock: Clock = "accelerated" if traj.accelerated_time[-1] > 0 else "time"
    loss(traj, path=path, clock=clock, ax=axes[0, 0])
    axes[0, 0].set_title("Loss staircase")
    trajectory(traj, path=path, clock=clock, legend=False, ax=axes[0, 1])
    axes[0, 1].set_title("Coordinates; dashed: predicted jumps" if path is not None else "Coordinates")
    trajectory(traj, clock="arclength", ax=axes[1, 1])
    axes[1, 1].set_title("Coordinates by arc length")
    imbalance(traj, clock=clock, ax=axes[1, 0])
    axes[1, 0].set_xscale(axes[0, 0].get_xscale())
    axes[1, 0].set_xlim(axes[0, 0].get_xlim())
    axes[1, 0].set_title("Conserved quantity")
    return figure


def _clock_axis(ax: Axes, traj: Trajectory, clock: Clock, path: SaddlePath | None) -> None:
    times = traj.clock_values(clock)
    ax.set_xlabel(CLOCK_LABELS[clock])
    if clock == "accelerated" and _spread_jumps(traj, path):
        assert path is not None
        ax.set_xscale("log")
        ax.set_xlim(path.jump_times[0] / 2, times[-1])
    else:
        ax.set_xlim(times[0], times[-1])


def _spread_jumps(traj: Trajectory, path: SaddlePath | None) -> bool:
    """Jumps over more than a decade are told apart on a logarithmic axis only."""
    if path is None or len(path.jump_times) < 2:
        return False
    seen = path.jump_times[path.jump_times < traj.accelerated_time[-1]]
    return len(seen) > 1 and bool(seen[-1] > 10 * seen[0])


def _jump_lines(ax: Axes, path: SaddlePath, traj: Trajectory) -> None:
    for time in path.jump_times[path.jump_times <= traj.accelerated_time[-1]]:
        ax.axvline(time, color="0.45", lw=0.7, ls=(0, (4, 3)), zorder=0)


def _alpha_label(traj: Trajectory) -> str:
    alpha = traj.info.get("alpha")
    return rf"$\alpha$ = {alpha}" if alpha is not None else "flow"


def _name(traj: Trajectory, i: int) -> Any:
    return traj.feature_names[i] if i < len(traj.feature_names) else f"{i}"
