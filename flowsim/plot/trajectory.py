"""Figures of one trajectory; every function draws on ``ax`` and returns it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from flowsim.arrays import Array
from flowsim.limits import LinearSaddlePath
from flowsim.limits.horizons import least_loss
from flowsim.plot.curves import DrawnClock, drawn, on_clock, sampled
from flowsim.plot.labels import named_curves
from flowsim.plot.linear_limits import linear_overview
from flowsim.plot.panels import fit, four_panels
from flowsim.plot.style import FLOW, PREDICTED, early, flow_label, log_axis, new_axes, spans_decade, styled
from flowsim.results import Clock, Trajectory
from flowsim.results.trajectory import coordinate_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.limits import SaddlePath


CLOCK_LABELS: dict[str, str] = {
    "time": "time $t$",
    "accelerated": r"accelerated time $\tilde t$",
    "arclength": r"arc length $\tau$",
    "distance": r"distance travelled $\int \Vert d\beta \Vert$",
    "log_loss": r"$\ln(1/L)$",
}
#: Fraction of its first value down to which excess loss is drawn: below it is rounding.
_FLOOR = 1e-14
#: The axis of the excess loss ends this factor below the flow, not where the limit goes.
_BELOW = 10.0
#: Fraction of the largest from which on a coefficient counts as used.
_USED = 1e-2
#: Drift of conserved quantities from which on it is shown as a panel.
_DRIFTS = 1e-6


@styled
def loss(
    traj: Trajectory,
    *,
    path: SaddlePath | None = None,
    clock: DrawnClock = "accelerated",
    least: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Training loss over a clock: a staircase when the initialisation is small.

    Parameters
    ----------
    traj : Trajectory
    path : SaddlePath, optional
        Its plateaus are drawn dotted, its jumps, and where it escapes to infinity, as vertical lines (accelerated clock
        only).
    clock : {"accelerated", "time", "arclength", "distance", "log_loss"}
    least : float, optional
        Draw the excess over this value, on a logarithmic axis.
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    shift = 0.0 if least is None else least
    state = sampled(traj, clock)
    x, values = on_clock(state, clock), state.loss
    floor = 0.0 if least is None else _FLOOR * max(float(values[0] - shift), np.finfo(float).tiny)
    if path is not None and clock == "accelerated":
        _jump_lines(ax, path, traj)
        edges = _edges(path, traj)
        steps = np.maximum(np.repeat(path.losses[: len(edges) - 1], 2) - shift, floor)
        ax.plot(np.repeat(edges, 2)[1:-1], steps, label="limit", **PREDICTED)
    ax.plot(x, np.maximum(values - shift, floor), color=FLOW, label=flow_label(traj))
    _clock_axis(ax, traj, clock, path)
    if least is not None:
        ax.set_yscale("log")
        ax.set_ylim(bottom=max(ax.get_ylim()[0], float(np.maximum(values - shift, floor).min()) / _BELOW))
    ax.set_ylabel(r"excess loss $L(\beta) - L^*$" if least is not None else r"training loss $L(\beta)$")
    ax.legend(loc="best")
    return ax


@styled
def trajectory(
    traj: Trajectory,
    *,
    path: SaddlePath | None = None,
    clock: DrawnClock = "accelerated",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Coordinates of beta over a clock, the largest named at their ends; the limit's jumps as dotted vertical lines.

    Parameters
    ----------
    traj : Trajectory
    path : SaddlePath, optional
    clock : {"accelerated", "time", "arclength", "distance", "log_loss"}
        "distance" is the arc length of beta alone, without time.
    legend : bool
        Name the curves.
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    if path is not None and clock == "accelerated":
        _jump_lines(ax, path, traj)
    shown = drawn(traj, clock)
    _clock_axis(ax, traj, clock, path)
    names = coordinate_names(traj)
    named = {int(column): names[int(shown.index[column])] for column in shown.named}
    named_curves(ax, shown.x, shown.beta, named, legend)
    ax.set_ylabel(r"coordinates $\beta_i$")
    return ax


@styled
def sparsity(
    traj: Trajectory, *, path: SaddlePath | None = None, clock: DrawnClock = "accelerated", ax: Axes | None = None
) -> Axes:
    """Number of coefficients above a hundredth of the largest; dotted: of the limit."""
    from matplotlib.ticker import MaxNLocator

    ax = new_axes(ax)
    shown = drawn(traj, clock)
    size = np.abs(shown.beta)
    # Relative to the largest of the whole run: at the start all are equally small.
    count = (size > _USED * size.max()).sum(axis=1)
    if path is not None and clock == "accelerated":
        edges = _edges(path, traj)
        largest = max((float(np.abs(values).max(initial=0.0)) for values in path.values), default=0.0)
        sizes = np.array([int((np.abs(values) > _USED * largest).sum()) for values in path.values[: len(edges) - 1]])
        ax.plot(np.repeat(edges, 2)[1:-1], np.repeat(sizes, 2), label="limit", **PREDICTED)
    ax.plot(shown.x, count, color=FLOW, label=flow_label(traj))
    _clock_axis(ax, traj, clock, path)
    ax.set_ylabel(f"number of coefficients\nabove {_USED:g} of the largest")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best")
    return ax


@styled
def imbalance(traj: Trajectory, *, clock: Clock = "accelerated", ax: Axes | None = None) -> Axes:
    """Deviation of the conserved quantities from their exact law, relative to their value at 0."""
    if clock == "log_loss" and traj.info.get("clock") != clock:
        raise ValueError("`clock` can be 'log_loss' for runs on that clock only.")
    ax = new_axes(ax)
    departure = traj.imbalance_departure
    if departure is None:
        raise ValueError("`traj` has no record of the departure of its conserved quantities over time.")
    # Zeros are drawn at the spacing of floats, as the axis is logarithmic.
    shown = np.maximum(departure, np.finfo(float).eps)
    ax.plot(on_clock(traj, clock), shown, color=FLOW)
    ax.set_yscale("log")
    ax.set_ylim(min(shown.min(), 1e-17) / 2, max(shown.max() * 10, 1e-9))
    _clock_axis(ax, traj, clock, None)
    names = _invariants(traj)
    ax.set_ylabel(f"relative drift of {names}" if names else "relative drift")
    return ax


@styled
def overview(traj: Trajectory, path: SaddlePath | LinearSaddlePath | None = None) -> Figure:
    """Four panels: excess loss, coordinates in accelerated time and along their path, number of coefficients in use.

    The drift of conserved quantities is a line of text, or the last panel where it is large. With the limit of a
    LinearNetwork it is :func:`linear_overview`.
    """
    if isinstance(path, LinearSaddlePath):
        return linear_overview(path, traj)
    figure, axes = four_panels(10.5, 6.8)
    clock: Clock = "accelerated" if 0 < traj.accelerated_time[-1] < np.inf else "time"
    loss(traj, path=path, clock=clock, least=_least_loss(traj, path), ax=axes[0, 0])
    axes[0, 0].set_title("Loss")
    trajectory(traj, path=path, clock=clock, ax=axes[0, 1])
    axes[0, 1].set_title("Coordinates; dotted: predicted jumps" if path is not None else "Coordinates")
    waits = bool(traj.accelerated_time[-1] > 0.5 * traj.arclength[-1])
    trajectory(traj, clock="distance" if waits else "arclength", ax=axes[1, 1])
    axes[1, 1].set_title("Coordinates along their path" if waits else "Coordinates by arc length")
    drifts = traj.imbalance_departure is not None and traj.imbalance_drift > _DRIFTS
    if drifts:
        imbalance(traj, clock=clock, ax=axes[1, 0])
        _clock_axis(axes[1, 0], traj, clock, path)
        axes[1, 0].set_title("Conserved quantity")
    else:
        sparsity(traj, path=path, clock=clock, ax=axes[1, 0])
        axes[1, 0].set_title("Coefficients in use")
    names = _invariants(traj)
    if names:
        drift = traj.imbalance_drift
        how = f"to a relative {drift:.0e}" if drift > np.finfo(float).eps else "to rounding"
        figure.supxlabel(f"{names} conserved {how}", fontsize=8, color="0.35", x=0.99, ha="right")
    fit(figure, axes)
    return figure


def _least_loss(traj: Trajectory, path: SaddlePath | None) -> float | None:
    """The infimum of the loss, if the excess can be drawn on a logarithmic axis."""
    least = None if path is None else least_loss(path.problem, path)
    return least if least is not None and float(traj.loss[0]) > least else None


def _edges(path: SaddlePath, traj: Trajectory) -> Array:
    """Beginnings and ends of the plateaus within a run, as far as the path is known and finite."""
    last = min(float(traj.accelerated_time[-1]), path.horizon)
    return np.concatenate([[0.0], path.jump_times[path.jump_times < last], [last]])


def _clock_axis(ax: Axes, traj: Trajectory, clock: DrawnClock, path: SaddlePath | None) -> None:
    times = on_clock(traj, clock)
    ax.set_xlabel(CLOCK_LABELS[clock])
    low = early(times, traj.loss) if clock in ("accelerated", "time") else 0.0
    if clock == "accelerated" and path is not None:
        seen = path.jump_times[path.jump_times < traj.accelerated_time[-1]]
        low = float(seen[0] / 2) if spans_decade(seen) else low
    if low:
        log_axis(ax, low, times[-1])
    else:
        ax.set_xlim(times[0], times[-1] if times[-1] > times[0] else times[0] + 1.0)


def _jump_lines(ax: Axes, path: SaddlePath, traj: Trajectory) -> None:
    """Dotted lines at the predicted jumps; if too many, at those of largest decrease of the loss."""
    times = path.jump_times
    if len(times) > _MOST_LINES:
        times = times[np.sort(np.argsort(np.diff(path.losses))[:_MOST_LINES])]
    if path.escape is not None:
        times = np.append(times, path.escape.time)
    for time in times[times <= traj.accelerated_time[-1]]:
        ax.axvline(time, zorder=0, label="_jump", **PREDICTED)


#: Largest number of vertical lines.
_MOST_LINES = 20


def _invariants(traj: Trajectory) -> str:
    names = re.sub(r"([a-z])(\d+)", r"\1_{\2}", ", ".join(traj.invariants).replace("**", "^").replace("*", " "))
    return f"${names}$" if names else ""
