"""Figures of two-layer linear networks; every function draws on ``ax`` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowsim.plot.curves import MOST_NAMES
from flowsim.plot.labels import named_curves
from flowsim.plot.style import FLOW, LIMIT, PREDICTED, colours, new_axes, styled
from flowsim.plot.trajectory import CLOCK_LABELS
from flowsim.results import Clock, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flowsim.studies.linear_ranks import RankPlateaus
    from flowsim.studies.linear_rates import RateCertificate
    from flowsim.studies.width_law import WidthLaw

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DECADES = 14


@styled
def loss_bound(certificate: RateCertificate, *, ax: Axes | None = None) -> Axes:
    """Loss above its least value along a run, and the bound that the start alone guarantees."""
    ax = new_axes(ax)
    traj, bound = certificate.trajectory, certificate.bound
    excess = traj.loss - traj.info["least_loss"]
    top = bound.initial_excess
    seen = excess > top * 10.0**-_DECADES
    ax.plot(traj.t[seen], excess[seen], color=FLOW, ls="-", marker=".", label=r"flow, $L(t) - L^*$")
    if certificate.predicted > 0:
        times = np.linspace(0.0, traj.t[-1], 200)
        label = f"bound, rate {certificate.predicted:.3g}"
        ax.plot(times, bound(times), label=label, **PREDICTED)
    ax.set_yscale("log")
    ax.set_ylim(top * 10.0**-_DECADES, 10 * top)
    ax.set_xlabel(CLOCK_LABELS["time"])
    ax.set_ylabel(r"excess loss $L - L^*$")
    ax.set_title(f"tightness (bound / flow rate) {certificate.tightness:.2f}")
    ax.legend()
    return ax


@styled
def imbalance_spectrum(traj: Trajectory, *, clock: Clock = "time", ax: Axes | None = None) -> Axes:
    r"""Eigenvalues of ``U^T U - V^T V`` over a clock: flat without noise, shrinking with it."""
    ax = new_axes(ax)
    # Steps are long on the scale of a figure: dense output draws the curve.
    times = np.linspace(0.0, traj.clock_values(clock)[-1], 300)
    values = np.linalg.eigvalsh(traj.at(times, clock).imbalance)[:, ::-1]
    peak = np.abs(values).max()
    positive = values[0] >= 0
    for sign, colour, name in ((positive, FLOW, "positive"), (~positive, LIMIT, "negative")):
        for number, column in enumerate(np.flatnonzero(sign & (np.abs(values[0]) > 1e-12 * peak))):
            label = f"{name} at 0" if number == 0 else None
            ax.plot(times, values[:, column], color=colour, ls="-", lw=1.0, label=label)
    ax.axhline(0.0, color="0.5", lw=0.8, ls=":")
    ax.set_xlabel(CLOCK_LABELS[clock])
    ax.set_ylabel(r"eigenvalues of $U^\top U - V^\top V$")
    ax.set_title(f"relative departure from the exact law {traj.imbalance_drift:.1e}")
    if ax.get_legend_handles_labels()[0]:
        ax.margins(y=0.25)  # above the lines, which fill the width
        ax.legend(loc="upper right", ncols=2)
    return ax


@styled
def width_law(*laws: WidthLaw, ax: Axes | None = None) -> Axes:
    """Distance to the minimum-norm solution against width: every seed, the fitted slope, the mean of the bound."""
    ax = new_axes(ax)
    for number, law in enumerate(laws):
        colour, marker = colours(number + 1)[number], _MARKERS[number % len(_MARKERS)]
        x = np.repeat(law.widths, law.distances.shape[1])
        ax.scatter(x, law.distances.ravel(), s=12, color=colour, marker=marker, zorder=3)
        centre = np.exp(np.log(law.distances).mean() - law.measured * np.log(law.widths).mean())
        label = f"a = {law.exponent:g}: slope {law.measured:.3f} ± {law.uncertainty:.3f} (theory {law.predicted:.2f})"
        ax.plot(law.widths, centre * law.widths**law.measured, color=colour, ls="-", label=label)
        bound = np.where(np.isfinite(law.bounds), law.bounds, np.nan)
        if np.isfinite(bound).all():
            ax.plot(law.widths, np.exp(np.log(bound).mean(axis=1)), color=colour, ls=":")
    ax.plot([], [], color="0.3", ls=":", label="non-asymptotic bound, mean over starts")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("width $h$ (hidden units)")
    ax.set_ylabel(r"$\Vert U V^\top(\infty) - \hat\beta_{\mathrm{min\ norm}} \Vert_F$")
    ax.legend(loc="best", fontsize=7.5)
    return ax


@styled
def singular_values(traj: Trajectory, *, clock: Clock = "accelerated", ax: Axes | None = None) -> Axes:
    """Singular values of U V^T over a clock."""
    if traj.beta.ndim != 3:
        raise ValueError("`traj` must be a run of a LinearNetwork; received one whose beta is a vector.")
    ax = new_axes(ax)
    times = np.linspace(0.0, traj.clock_values(clock)[-1], 1000)
    values = np.asarray(np.linalg.svd(traj.at(times, clock).beta, compute_uv=False), dtype=float)
    ax.set_xlim(times[0], times[-1])
    named_curves(ax, times, values, {k: f"$s_{{{k + 1}}}$" for k in range(min(values.shape[1], MOST_NAMES))})
    ax.set_xlabel(CLOCK_LABELS[clock])
    ax.set_ylabel(r"singular values of $U V^\top$")
    return ax


@styled
def rank_by_rank(
    traj: Trajectory, plateaus: RankPlateaus, *, predicted: np.ndarray | None = None, ax: Axes | None = None
) -> Axes:
    """Singular values in accelerated time over the detected plateaus, and predicted activation times.

    Parameters
    ----------
    predicted : array, optional
        Accelerated times, for example :func:`flowsim.studies.activation_times`.
    """
    ax = new_axes(ax)
    top = float(plateaus.singular_values.max())
    for start, end, rank in zip(plateaus.starts, plateaus.ends, plateaus.ranks, strict=True):
        ax.axvspan(start, end, color="0.93", lw=0)
        ax.text((start + end) / 2, 1.06 * top, f"rank {rank}", ha="center", va="bottom", fontsize=8)
    for number, time in enumerate([] if predicted is None else predicted[predicted <= traj.accelerated_time[-1]]):
        label = "predicted jump" if number == 0 else None
        ax.axvline(time, label=label, **PREDICTED)
    ax.set_ylim(-0.03 * top, 1.18 * top)
    return singular_values(traj, ax=ax)
