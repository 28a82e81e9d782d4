"""Figures of four panels, whose margins follow from the texts at their axes.

Matplotlib's constrained layout measures every text four times before it draws once: two thirds of the time of a figure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Points: around the figure, from an axis to its numbers, from these to the label, beyond the last number.
_EDGE, _TICK, _PAD, _OVERHANG = 4.0, 7.0, 4.0, 12.0
#: Height of a line, of one with exponents, and width of a digit, relative to the font size.
_LINE, _RAISED, _DIGIT = 1.25, 1.5, 0.64
_MARKUP = re.compile(r"\$|\\mathdefault|[{}^]")


def four_panels(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of that many inches, and its axes, shape (2, 2); :func:`fit` after drawing on them."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(width, height), layout="none")
    fit(figure, axes)
    return figure, axes


def fit(figure: Figure, axes: Any) -> None:
    """Set margins that leave room for titles, numbers and labels; the labels of a column are aligned."""
    width, height = (72.0 * float(inches) for inches in figure.get_size_inches())
    beside = [max(_numbers(ax) for ax in column) for column in axes.T]
    left, middle = (
        numbers + max(_label(ax.yaxis.label) for ax in column) + _EDGE
        for numbers, column in zip(beside, axes.T, strict=True)
    )
    size = float(axes[0, 0].xaxis.label.get_fontsize())
    below = _TICK + _RAISED * size + _PAD + _LINE * size
    above = max(_LINE * float(ax.title.get_fontsize()) + 6.0 if ax.get_title() else 0.0 for ax in axes.flat) + _EDGE
    foot = 0.0 if figure.get_supxlabel() == "" else _RAISED * size + _EDGE
    wide = (width - left - middle - 2.0 * _OVERHANG) / 2.0
    high = (height - foot - 2.0 * (above + below)) / 2.0
    figure.subplots_adjust(
        left=left / width,
        right=1.0 - _OVERHANG / width,
        wspace=(middle + _OVERHANG) / wide,
        bottom=(foot + below) / height,
        top=1.0 - above / height,
        hspace=(above + below) / high,
    )
    for numbers, column in zip(beside, axes.T, strict=True):
        for ax in column:
            ax.yaxis.set_label_coords(-numbers / wide, 0.5)


def _numbers(ax: Axes) -> float:
    """Points from an axis to its label."""
    texts = ax.yaxis.get_major_formatter().format_ticks(list(ax.yaxis.get_majorticklocs()))
    texts += ax.yaxis.get_minor_formatter().format_ticks(list(ax.yaxis.get_minorticklocs()))
    longest = max((len(_MARKUP.sub("", text.replace(r"\times", "×"))) for text in texts), default=0)
    return _TICK + _DIGIT * float(ax.yaxis.label.get_fontsize()) * longest + _PAD


def _label(label: Any) -> float:
    """Height in points of a label."""
    return _LINE * float(label.get_fontsize()) * (label.get_text().count("\n") + 1)
