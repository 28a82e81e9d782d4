"""Trajectories in the plane or in space, as figures or animations, with the saddles of the limit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.plain_numbers import count, finite
from flowsim.plot.curves import along_orbits, sample_times
from flowsim.plot.style import FLOW, LIMIT, STYLE, styled
from flowsim.results import Trajectory

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from flowsim.limits import SaddlePath


#: The height of a number beside a saddle, relative to an axis.
_NUMBER = 0.05
_SAMPLES = 4000
#: Fraction of an animation that advances with the arc length, not with the distance travelled.
_REST = 0.3
#: A coordinate that moves by less than this fraction of the others' range counts as constant.
_STILL = 0.02


@styled
def phase(
    traj: Trajectory | None = None,
    coordinates: Sequence[int | str] | None = None,
    *,
    path: SaddlePath | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Two or three coordinates of beta against each other, and the limit's saddles joined by their orbits.

    Parameters
    ----------
    traj : Trajectory, optional
        Flow or descent; may be left out if `path` is given.
    coordinates : sequence of 2 or 3 indices or names, optional
        Default: the two of largest size (three on 3-d axes, or if the problem has three features).
    path : SaddlePath, optional
        Drawn beneath: saddles as numbered dots, orbits between them.
    ax : matplotlib Axes, optional
        Flat or 3-d to match `coordinates`.
    """
    chosen = _coordinates(traj, path, coordinates, ax)
    ax = _axes(ax, len(chosen))
    if path is not None:
        _draw_path(ax, path, chosen)
    if traj is not None:
        label = f"α = {traj.info['alpha']}" if "alpha" in traj.info else "flow"
        ax.plot(*_curve(traj, chosen)[1].T, color=FLOW, ls="-", lw=1.5, label=label)
    _label(ax, _names(traj, path), chosen)
    _even_out(ax, len(chosen))
    ax.legend(loc="best" if len(chosen) == 2 else "upper left")
    return ax


def animate(
    traj: Trajectory,
    coordinates: Sequence[int | str] | None = None,
    *,
    path: SaddlePath | None = None,
    frames: int = 90,
    fps: float = 20.0,
    ax: Axes | None = None,
) -> FuncAnimation:
    """An animation of the trajectory, at even speed along its curve with a short pause on each plateau.

    Parameters
    ----------
    traj, coordinates, path, ax
        As in :func:`phase`.
    frames : int
        >= 2.
    fps : float
        Frames a second, > 0.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        Keep a reference to it; :func:`save_animation` writes GIF or MP4.
    """
    import matplotlib.style
    from matplotlib.animation import FuncAnimation

    frames = count("frames", frames, 2)
    fps = finite("fps", fps, above=0.0)
    chosen = _coordinates(traj, path, coordinates, ax)
    with matplotlib.style.context(STYLE):
        ax = _axes(ax, len(chosen))
        if path is not None:
            _draw_path(ax, path, chosen)
        lengths, curve = _curve(traj, chosen)
        ax.plot(*curve.T, alpha=0.0)  # sets the limits once for all frames
        (line,) = ax.plot(*curve[:1].T, color=FLOW, ls="-", lw=1.8)
        (dot,) = ax.plot(*curve[:1].T, color=FLOW, marker="o", ls="", ms=6)
        _label(ax, _names(traj, path), chosen)
    figure: Any = ax.figure
    moving: tuple[Any, Any] = (line, dot)
    # A layout solved for every frame would make the axes jitter.
    figure.canvas.draw()
    figure.set_layout_engine("none")
    ends = _pace(lengths, curve, frames)

    def show(frame: int) -> tuple[Any, Any]:
        end = int(ends[frame])
        for artist, part in zip(moving, (curve[: end + 1], curve[end : end + 1]), strict=True):
            artist.set_data(part[:, 0], part[:, 1])
            if len(chosen) == 3:
                artist.set_3d_properties(part[:, 2])
        return moving

    return FuncAnimation(figure, show, frames=frames, interval=1000.0 / fps)


def save_animation(animation: FuncAnimation, path: str | Path, *, fps: float = 20.0, dpi: int = 90) -> Path:
    """Write ``.gif`` (Pillow) or ``.mp4`` (needs the ffmpeg program).

    Raises
    ------
    ValueError
        For another ending, or MP4 without ffmpeg on the machine.
    """
    from matplotlib.animation import FFMpegWriter, PillowWriter

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        animation.save(path, writer=PillowWriter(fps=round(fps)), dpi=dpi)
    elif suffix == ".mp4":
        if shutil.which("ffmpeg") is None:
            raise ValueError("`path` cannot end in .mp4 here: the ffmpeg program is not installed; use .gif.")
        animation.save(path, writer=FFMpegWriter(fps=round(fps)), dpi=dpi)
    else:
        raise ValueError(f"`path` must end in .gif or .mp4; received {path.name!r}.")
    return path


def _coordinates(
    traj: Trajectory | None, path: SaddlePath | None, asked: Sequence[int | str] | None, ax: Axes | None
) -> list[int]:
    if traj is None and path is None:
        raise ValueError("give `traj` or `path`; received neither.")
    if traj is not None and traj.beta.ndim != 2:
        raise ValueError("`traj` must have a vector beta; received a matrix-valued one.")
    values = traj.beta if traj is not None else path.saddles  # type: ignore[union-attr]
    d = values.shape[1]
    if asked is None:
        count = 3 if (ax is None and d == 3) or getattr(ax, "name", "") == "3d" else 2
        asked = sorted(np.argsort(-np.abs(values).max(axis=0), kind="stable")[:count].tolist())
    names = _names(traj, path)
    chosen = [int(i) if not isinstance(i, str) else names.index(i) if i in names else -1 for i in asked]
    if len(chosen) not in (2, 3) or not all(0 <= i < d for i in chosen) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"`coordinates` must be 2 or 3 different indices below d={d} or names; received {list(asked)}."
        )
    if ax is not None and (getattr(ax, "name", "") == "3d") != (len(chosen) == 3):
        raise ValueError(f"`ax` must be {'3-d' if len(chosen) == 3 else 'flat'} for {len(chosen)} coordinates.")
    return chosen


def _axes(ax: Axes | None, dimensions: int) -> Any:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    if dimensions == 2:
        return plt.subplots()[1]
    # Constrained layout ignores the extent of labels of 3-d axes.
    figure = plt.figure(figsize=(6.4, 5.4), layout="none")
    space: Any = figure.add_subplot(projection="3d")
    space.set_position((0.0, 0.02, 0.9, 0.94))
    space.set_box_aspect(None, zoom=0.88)
    return space


def _curve(traj: Trajectory, chosen: list[int]) -> tuple[Array, Array]:
    """Arc lengths (K,) and the chosen coordinates there (K, m): as recorded where there is no dense output."""
    if traj.dense is None:
        return traj.arclength, traj.beta[:, chosen]
    lengths = sample_times(traj, _SAMPLES)
    return lengths, traj.dense.some(lengths, "arclength", np.array(chosen))


def _pace(lengths: Array, curve: Array, frames: int) -> Index:
    """Points at which the frames end: mostly by distance travelled, partly by arc length."""
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    progress = _REST * lengths / (lengths[-1] or 1.0) + travelled / (travelled[-1] or 1.0)
    ends = np.searchsorted(progress, np.linspace(progress[0], progress[-1], frames), side="left")
    return np.minimum(ends, len(curve) - 1)


def _draw_path(ax: Any, path: SaddlePath, chosen: list[int]) -> list[Artist]:
    curve, saddles = along_orbits(path, _SAMPLES)[1][:, chosen], path.saddles[:, chosen]
    artists: list[Artist] = [*ax.plot(*curve.T, color=LIMIT, ls=":", lw=1.2, label="limit: orbits")]
    artists += ax.plot(*saddles.T, color="#000000", marker="o", ls="", ms=4.5, label="saddles", zorder=5)
    extent, numbered = np.ptp(saddles, axis=0) + np.finfo(float).tiny, np.empty((0, len(chosen)))
    for k, saddle in enumerate(saddles):
        # Of saddles too close for two numbers the first has one.
        if (np.abs(numbered - saddle) < _NUMBER * extent).all(axis=1).any():
            continue
        numbered = np.vstack([numbered, saddle])
        artists.append(ax.text(*saddle, f"  {k}", fontsize=8, va="bottom"))
    return artists


def _names(traj: Trajectory | None, path: SaddlePath | None) -> tuple[str, ...]:
    if traj is not None and traj.feature_names:
        return traj.feature_names
    return tuple(path.problem.feature_names) if path is not None else ()


def _even_out(ax: Any, dimensions: int) -> None:
    """Do not magnify a nearly constant coordinate to the range of the others."""
    limits = [getattr(ax, f"get_{axis}lim")() for axis in "xyz"[:dimensions]]
    largest = max(high - low for low, high in limits)
    for axis, (low, high) in zip("xyz", limits, strict=False):
        if high - low < _STILL * largest:
            middle = (low + high) / 2
            getattr(ax, f"set_{axis}lim")(middle - _STILL * largest, middle + _STILL * largest)


def _label(ax: Any, names: tuple[str, ...], chosen: list[int]) -> None:
    for axis, i in zip("xyz", chosen, strict=False):
        name = names[i] if i < len(names) else str(i)
        text = rf"$\beta$ of {name}"
        if len(chosen) == 3:
            # Tick labels of 3-d axes overlap the axis labels.
            getattr(ax, f"set_{axis}label")(text, labelpad=10)
            ax.locator_params(axis=axis, nbins=4)
        else:
            getattr(ax, f"set_{axis}label")(text)
