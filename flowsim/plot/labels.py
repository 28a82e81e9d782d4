"""Names of curves at their ends, inside the axes and without overlap, instead of a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import Locator

from flowsim.arrays import Array
from flowsim.plot.style import colours as palette_of
from flowsim.plot.style import size_in_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Least and largest fraction of the width reserved for names, and the gap between a curve's end and its name.
_LEAST_ROOM, _MOST_ROOM, _GAP = 0.12, 0.32, 0.015
_SIZE = 7.5
#: Height of a line of text relative to the font size.
_LEADING = 1.15
#: Average width of a letter relative to the font size.
_WIDE = 0.58


def _make_room(ax: Axes, low: float, high: float, room: float) -> None:
    """Set limits of the abscissa that reserve the right part of the axes for names."""
    share = 1.0 - room
    if ax.get_xscale() == "log" and 0 < low < high:
        ax.set_xlim(low, low * (high / low) ** (1.0 / share))
    else:
        ax.set_xlim(low, low + (high - low or 1.0) / share)
    for side in ("bottom", "top"):
        ax.spines[side].set_bounds(low, high)
    if ax.spines["right"].get_visible():  # the frame ends with the data: names stand outside of it
        ax.spines["right"].set_position(("data", high))
    ax.xaxis.set_major_locator(_Until(ax.xaxis.get_major_locator(), high))
    ax.xaxis.set_minor_locator(_Until(ax.xaxis.get_minor_locator(), high))


class _Until(Locator):
    """The ticks of another locator within the range of the data."""

    def __init__(self, inner: Locator, high: float) -> None:
        self.inner, self.high = inner, high

    def __call__(self) -> Any:
        return self._kept(self.inner())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        return self._kept(self.inner.tick_values(vmin, vmax))

    def view_limits(self, vmin: float, vmax: float) -> tuple[float, float]:
        return vmin, vmax

    def _kept(self, ticks: Any) -> Any:
        return [tick for tick in ticks if tick <= self.high * (1 + 1e-9)]


def named_curves(ax: Axes, x: Array, values: Array, names: Mapping[int, str], legend: bool = True) -> None:
    """The named columns of `values` in colour, with their names where they end; the others grey.

    To be called after limits and scale of the abscissa are set.
    """
    shown, palette = list(names), palette_of(len(names))
    others = np.delete(values, shown, axis=1)
    if others.shape[1]:
        ax.plot(x, others, color="0.8", lw=0.6, zorder=0, label="_others")
    for column, colour in zip(shown, palette, strict=True):
        ax.plot(x, values[:, column], color=colour, label=names[column])
    if legend:
        label_ends(ax, ax.get_xlim(), values[-1, shown], list(names.values()), palette)


def label_ends(ax: Axes, span: tuple[float, float], ends: Any, names: Sequence[str], colours: Sequence[Any]) -> None:
    """Write names to the right of curves over `span` that end at ordinates `ends`, moved apart where they overlap.

    To be called after limits and scales are set; the abscissa is extended for the names.
    """
    if not len(names):
        return
    width, height = size_in_points(ax)
    letter = _WIDE * _SIZE / max(width, 1.0)
    longest = max(1 if name.startswith("$") else len(name) for name in names)
    room = float(np.clip(letter * longest + 3 * _GAP, _LEAST_ROOM, _MOST_ROOM))
    _make_room(ax, *span, room)
    low, high = ax.get_ylim()
    scaled = np.asarray(ax.transScale.transform(np.column_stack([np.ones(len(ends)), ends])))[:, 1]
    bounds = np.asarray(ax.transScale.transform([[1.0, low], [1.0, high]]))[:, 1]
    where = np.clip((scaled - bounds[0]) / (bounds[1] - bounds[0]), 0.0, 1.0)
    places = spread(where, _LEADING * _SIZE / max(height, 1.0))
    longest = max(3, int((room - 2 * _GAP) / letter))
    edge = 1.0 - room
    for start, place, name, colour in zip(where, places, names, colours, strict=True):
        ax.plot(
            [edge + 0.003, edge + _GAP],
            [start, place],
            color=colour,
            lw=0.6,
            ls="-",
            transform=ax.transAxes,
            clip_on=False,
            label="_name",
        )
        ax.text(
            edge + 1.2 * _GAP,
            place,
            _short(name, longest),
            color=colour,
            fontsize=_SIZE,
            va="center",
            ha="left",
            transform=ax.transAxes,
        )


def spread(wanted: Array, gap: float) -> Array:
    """Positions in [0, 1] at least `gap` apart, in the order of `wanted` and close to it.

    Blocks of neighbours that would overlap are merged around their mean: after an even shift, isotonic regression, the
    largest over beginnings of the least mean over ends. For these few, importing SciPy's takes a thousand times longer.
    """
    order = np.argsort(wanted, kind="stable")
    count = len(wanted)
    gap = min(gap, 1.0 / max(count - 1, 1))
    shifts = gap * np.arange(count)
    level, out = wanted[order] - shifts, np.empty(count)
    means = [np.cumsum(level[begin:]) / np.arange(1, count - begin + 1) for begin in range(count)]
    best = [max(means[begin][i - begin :].min() for begin in range(i + 1)) for i in range(count)]
    out[order] = np.clip(best, 0.0, 1.0 - gap * (count - 1)) + shifts
    return out


def _short(name: str, longest: int) -> str:
    if name.startswith("$s_{"):
        return name
    text = name if len(name) <= longest else name[: longest - 1] + "…"
    return text.replace("$", r"\$")
