"""Figures of limit paths, limit studies and the Lasso link; every function draws on ``ax`` and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from flowsim.arrays import Array
from flowsim.errors import IntegrationError
from flowsim.limits import LinearSaddlePath, SaddlePath
from flowsim.plot.curves import along_orbits, on_clock, worth_naming
from flowsim.plot.labels import named_curves
from flowsim.plot.linear_limits import levels, linear_limit
from flowsim.plot.panels import fit, four_panels
from flowsim.plot.style import PREDICTED, colours, log_axis, new_axes, spans_decade, styled
from flowsim.plot.trajectory import CLOCK_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.studies.lasso_link import LassoLink
    from flowsim.studies.limit_study import LimitStudy


_SAMPLES = 3000


@styled
def saddle_to_saddle(
    path: SaddlePath | LinearSaddlePath,
    *,
    clock: Literal["accelerated", "arclength", "distance"] = "accelerated",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Coordinates of the limit path: steps in accelerated time, a continuous curve in arc length.

    Of a LinearSaddlePath the singular values (:func:`linear_limit`).

    Parameters
    ----------
    path : SaddlePath or LinearSaddlePath
    clock : {"accelerated", "arclength", "distance"}
        distance: that of beta alone, without the waiting in between; not for a LinearSaddlePath.
    legend : bool
    ax : matplotlib Axes, optional
    """
    if isinstance(path, LinearSaddlePath):
        return linear_limit(path, clock=clock, legend=legend, ax=ax)  # type: ignore[arg-type]  # it refuses others
    if clock not in ("accelerated", "arclength", "distance"):
        raise ValueError(f"`clock` must be accelerated, arclength or distance; received {clock!r}.")
    if not isinstance(path, SaddlePath):
        raise ValueError(f"`path` must be what flowsim.saddle_to_saddle returns; received {type(path).__name__}.")
    ax = new_axes(ax)
    if clock == "accelerated":
        times, values = path.stairs(path.saddles[:, path.used])
        ax.set_xlabel(r"accelerated time $\tilde t$")
        if spans_decade(path.jump_times):
            times = np.maximum(times, path.jump_times[0] / 2)
            log_axis(ax, times[0], times[-1])
    elif clock == "distance" and len(path.jump_times):
        times, values = along_orbits(path, _SAMPLES)
        values = values[:, path.used]
        ax.set_xlabel(CLOCK_LABELS["distance"])
    else:
        times = np.linspace(0.0, float(path.arclength(path.drawn_until)), _SAMPLES)
        values = path.curve(times)[:, path.used]
        ax.set_xlabel(r"arc length $\tau$")
    ax.set_xlim(times[0], times[-1])
    named_curves(ax, times, values, _largest(values, [path.problem.feature_names[i] for i in path.used]), legend)
    ax.set_ylabel(r"coordinates $\beta_i$")
    return ax


def _largest(values: Array, names: Sequence[str]) -> dict[int, str]:
    """The columns to be named, and their names."""
    return {int(i): names[i] for i in worth_naming(values)}


@styled
def limit_study(study: LimitStudy, *, ax: Axes | None = None) -> Axes:
    """Errors of flows against their limit as the scale of initialisation falls, with the fitted rate.

    Two-layer networks over ``ln(1/alpha)``, deeper ones over alpha (falling to the right); both axes logarithmic.
    """
    ax = new_axes(ax)
    two_layer = study.path.order == 2
    # Below the range of floats alpha cannot be an axis; its logarithm can.
    x = study.gamma if two_layer else study.gamma / np.log(10.0)
    floor = np.finfo(float).eps
    series = (
        ("jump times (median)", study.median_time_error, "o"),
        ("mid-plateau (median)", study.median_plateau_error, "s"),
        ("mid-plateau (largest)", study.plateau_errors.max(axis=1), "^"),
        ("end point", study.end_errors, "D"),
    )
    for (label, errors, marker), color in zip(series, colours(len(series)), strict=True):
        ax.plot(x, np.maximum(errors, floor), marker=marker, ms=4, color=color, label=label)
    rate = study.rate
    if np.isfinite(rate.order):
        small, small_name = (1.0 / study.gamma, r"1/\gamma") if two_layer else (np.exp(-study.gamma), r"\alpha")
        fitted = rate.constant * small**rate.order
        label = f"fit: order {rate.order:.2f}" + (f" ± {rate.uncertainty:.2f}" if np.isfinite(rate.uncertainty) else "")
        ax.plot(x, fitted, zorder=0, label=rf"{label} in ${small_name}$", **PREDICTED)
    if two_layer:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap in a narrow figure
        if x.max() < 30 * x.min():
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_yscale("log")
    ax.set_xlabel(r"$\gamma = \ln(1/\alpha)$" if two_layer else r"$\log_{10}(1/\alpha)$")
    ax.set_ylabel("error relative to the limit")
    low, high = ax.get_ylim()
    columns = 2 if ax.bbox.width > 4.0 * float(ax.figure.dpi) else 1
    ax.set_ylim(low, high * (high / low) ** (0.7 / columns))  # room for the legend above the lines
    ax.legend(loc="upper right", ncols=columns, fontsize=5.5 + columns)
    return ax


@styled
def lasso_link(link: LassoLink, *, ax: Axes | None = None) -> Axes:
    """Time average of the limit (lines) against the Lasso of the same penalty (dots), and where they part."""
    ax = new_axes(ax)
    dense = np.geomspace(link.t[0], link.t[-1], 600)
    average = link.path.time_average(dense)
    log_axis(ax, dense[0], dense[-1])
    named_curves(ax, dense, average, _largest(average, link.path.problem.feature_names))
    for line in [each for each in ax.get_lines() if not str(each.get_label()).startswith("_")]:
        i = link.path.problem.feature_names.index(str(line.get_label()))
        ax.plot(link.t[::2], link.lasso[::2, i], ls="none", marker="o", ms=3, color=line.get_color(), label="_lasso")
    if np.isfinite(link.departs_at):
        ax.axvline(link.departs_at, label="_departs", **PREDICTED)
        names = ", ".join(link.path.problem.feature_names[i] for i in link.because)
        early = link.departs_at**2 < dense[0] * dense[-1]  # in the left half: the text stands to the right of the line
        ax.annotate(
            f"{names} deactivated:\npaths separate",
            (link.departs_at, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4 if early else -4, 0),
            textcoords="offset points",
            ha="left" if early else "right",
            va="bottom",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )
    unit = all(np.all(side == 1.0) for side in link.path.thresholds) and not any(map(np.any, link.path.penalties))
    ax.set_xlabel(
        r"accelerated time $\tilde t$" + (r" $= 1/\lambda$" if unit else r" (penalty $t^\pm / \tilde t + \kappa$)")
    )
    ax.set_ylabel("coefficients\naverage (lines), Lasso (dots)")
    return ax


@styled
def limit_overview(study: LimitStudy, link: LassoLink | None = None) -> Figure:
    """Errors and rate; the limit over its two clocks, under the flow of the smallest alpha; the Lasso link."""
    figure, axes = four_panels(11.0, 7.4)
    limit_study(study, ax=axes[0, 0])
    axes[0, 0].set_title("Flow against limit")
    flow = study.trajectories[int(np.argmax(study.gamma))]
    for ax, title in ((axes[0, 1], "Saddle to saddle"), (axes[1, 0], "Saddles joined by orbits")):
        try:
            clock = "accelerated" if ax is axes[0, 1] else _length_clock(study.path)
            saddle_to_saddle(study.path, clock=clock, ax=ax)
        except (ValueError, IntegrationError):
            ax.text(0.5, 0.5, "the orbits of this path are not known", ha="center", transform=ax.transAxes)
            continue
        times = on_clock(flow, clock)
        drawn = times <= max(np.max(line.get_xdata()) for line in ax.get_lines())  # labels stand beyond
        ax.plot(times[drawn], _lines(study.path, flow.beta[drawn]), label="_flow", **PREDICTED)
        ax.set_title(rf"{title}; dotted: flow at $\alpha$ = {study.alphas[int(np.argmax(study.gamma))]}")
    if link is not None:
        lasso_link(link, ax=axes[1, 1])
        axes[1, 1].set_title("Time average of the limit and the Lasso")
    elif isinstance(study.path, LinearSaddlePath):
        levels(study.path, ax=axes[1, 1])
        axes[1, 1].set_title("Directions that wait")
    else:
        axes[1, 1].axis("off")
    fit(figure, axes)
    return figure


def _length_clock(path: SaddlePath | LinearSaddlePath) -> Literal["arclength", "distance"]:
    """The arc length, or the distance alone where most of the arc length is waiting."""
    waits = isinstance(path, SaddlePath) and path.jump_times[-1] > path.length
    return "distance" if waits else "arclength"


def _lines(path: SaddlePath | LinearSaddlePath, beta: np.ndarray) -> np.ndarray:
    """What the path's own figure shows, of a flow."""
    if isinstance(path, LinearSaddlePath):
        return np.linalg.svd(beta, compute_uv=False)
    return beta[:, path.used]
