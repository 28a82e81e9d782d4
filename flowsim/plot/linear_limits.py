"""Figures of the limit of two-layer linear networks; every function draws on ``ax`` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from flowsim.errors import IntegrationError
from flowsim.network.linear_algebra import LinearData
from flowsim.plot.style import colours, new_axes, styled
from flowsim.results import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.limits import LinearSaddlePath


_SAMPLES = 2000
#: The path is drawn this much beyond its last jump.
_BEYOND = 1.25
#: More lines than this are drawn without names.
_MAX_NAMES = 8
_LABELS = {"accelerated": r"accelerated time $\tilde t = t / \ln(1/\alpha)$", "arclength": r"arc length $\tau$"}


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
        A flow of the same network, dotted.
    clock : {"accelerated", "arclength"}
    legend : bool
    ax : matplotlib Axes, optional
    """
    if clock not in _LABELS:
        raise ValueError(f"`clock` must be accelerated or arclength; received {clock!r}.")
    ax = new_axes(ax)
    last = _last(path)
    if clock == "accelerated":
        times = np.repeat(np.concatenate([[0.0], path.jump_times, [last]]), 2)[1:-1]
        values = np.repeat(path.singular_values, 2, axis=0)
        _jump_lines(ax, path)
    else:
        last = float(path.arclength(last))
        times = np.linspace(0.0, last, _SAMPLES)
        values = np.asarray(np.linalg.svd(path.curve(times), compute_uv=False), dtype=np.float64)
    for k, column in enumerate(values.T):
        ax.plot(times, column, color=colours(k + 1)[k], ls="-", label=f"$s_{{{k + 1}}}$" if k < _MAX_NAMES else None)
    if traj is not None:
        samples = np.linspace(0.0, min(last, float(traj.clock_values(clock)[-1])), _SAMPLES)
        flow = np.linalg.svd(traj.at(samples, clock).beta, compute_uv=False)
        ax.plot(samples, flow, color="k", ls=":", lw=0.9)
        ax.plot([], [], color="k", ls=":", lw=0.9, label=rf"flow, $\alpha$ = {traj.info.get('alpha', '')}")
    ax.set_xlim(0.0, last)
    ax.set_xlabel(_LABELS[clock])
    ax.set_ylabel(r"singular values of $U V^\top$")
    if legend:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


@styled
def levels(path: LinearSaddlePath, traj: Trajectory | None = None, *, ax: Axes | None = None) -> Axes:
    """Levels of the directions of (U; V): 0 at the start, 1 once learned; what reaches 1 is learned next.

    Parameters
    ----------
    path : LinearSaddlePath
    traj : Trajectory, optional
        A flow of the same network; the levels of what it learns are dotted.
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    last = _last(path)
    # Levels are linear between jumps and never jump themselves.
    times = np.unique(np.concatenate([[0.0], path.jump_times, np.linspace(0.0, last, 200)]))
    values = path.levels(times)
    _jump_lines(ax, path)
    for k, column in enumerate(values.T):
        waits = k < int(path.ranks[-1])
        ax.plot(times, column, color=colours(k + 1)[k] if waits else "0.7", ls="-", lw=1.4 if waits else 0.8,
                label=f"direction {k + 1}" if waits and k < _MAX_NAMES else None)  # fmt: skip
    ax.plot([], [], color="0.7", lw=0.8, label="never learned") if path.width > path.ranks[-1] else None
    if traj is not None:
        samples = np.linspace(0.0, min(last, float(traj.accelerated_time[-1])), _SAMPLES)[1:]
        flow = traj.at(samples, "accelerated").levels
        if flow is not None:
            ax.plot(samples, flow[:, : int(path.ranks[-1])], color="k", ls=":", lw=0.9)
            ax.plot([], [], color="k", ls=":", lw=0.9, label=rf"flow, $\alpha$ = {traj.info.get('alpha', '')}")
    ax.axhline(1.0, color="0.3", lw=0.8, ls="--", zorder=0)
    ax.set_xlim(0.0, last)
    ax.set_ylim(max(-1.15, 1.1 * float(values.min()) - 0.05), 1.1)
    ax.set_xlabel(_LABELS["accelerated"])
    ax.set_ylabel(r"level $1 + \ln(\mathrm{size}) / \ln(1/\alpha)$")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


@styled
def loss_staircase(path: LinearSaddlePath, *trajs: Trajectory, ax: Axes | None = None) -> Axes:
    """Training loss above its least value: the limit's stairs, and flows of falling scale that approach them."""
    ax = new_axes(ax)
    last = _last(path)
    least = path.data.least_loss if isinstance(path.data, LinearData) else float(path.losses[-1])
    excess = np.maximum(path.losses - least, 0.0)
    steps = np.repeat(np.concatenate([[0.0], path.jump_times, [last]]), 2)[1:-1]
    seen = excess[excess > 1e-12 * excess[0]]
    floor = 0.3 * float(seen.min()) if len(seen) else 1e-12
    ax.plot(steps, np.repeat(np.maximum(excess, floor), 2), color="0.2", ls="-", lw=1.6, label="limit")
    for k, traj in enumerate(trajs):
        times = np.linspace(0.0, min(last, float(traj.accelerated_time[-1])), _SAMPLES)
        loss = traj.at(times, "accelerated").loss - least
        ax.plot(times, np.maximum(loss, floor), color=colours(k + 1)[k], ls="--", lw=1.0,
                label=rf"flow, $\alpha$ = {traj.info.get('alpha', '')}")  # fmt: skip
    for rank, (begin, end, value) in enumerate(zip(steps[::2], steps[1::2], np.maximum(excess, floor), strict=True)):
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
    """Singular values over both clocks, levels, and the stairs of the loss."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12.0, 7.4), layout="constrained")
    smallest = trajs[-1] if trajs else None
    linear_limit(path, smallest, ax=axes[0, 0])
    axes[0, 0].set_title("Rank by rank")
    levels(path, smallest, ax=axes[0, 1])
    axes[0, 1].set_title("Directions that wait")
    try:
        linear_limit(path, smallest, clock="arclength", legend=False, ax=axes[1, 0])
        axes[1, 0].set_title("Saddles joined by orbits")
    except (ValueError, IntegrationError):
        axes[1, 0].clear()
        axes[1, 0].text(0.5, 0.5, "the orbits depend on the start", ha="center", transform=axes[1, 0].transAxes)
    loss_staircase(path, *trajs, ax=axes[1, 1])
    axes[1, 1].set_title("Loss")
    return figure


def _last(path: LinearSaddlePath) -> float:
    last = _BEYOND * float(path.jump_times[-1]) if len(path.jump_times) else 1.0
    return float(min(last, np.nextafter(path.horizon, 0)))


def _jump_lines(ax: Axes, path: LinearSaddlePath) -> None:
    for number, time in enumerate(path.jump_times):
        ax.axvline(time, color="0.6", lw=0.8, ls=":", zorder=0, label="jump" if number == 0 else None)
