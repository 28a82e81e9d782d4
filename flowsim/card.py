"""How results show themselves: in notebooks by title, facts and a small SVG figure, without scripts or requests."""

from __future__ import annotations

import dataclasses
import html
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe & Ito, distinct for every kind of colour vision on white and on black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_WIDTH, _HEIGHT, _MARGIN = 300, 110, 4
#: Largest numbers of points of a curve, of curves, and of bars.
_MOST_POINTS, _MOST_CURVES, _MOST_BARS = 400, 7, 40


class Plotted:
    """A result that a function of :mod:`flowsim.plot` draws."""

    #: the name of the function
    _plotted_by: ClassVar[str]

    def plot(self, **options: Any) -> Axes:
        """The figure of this result by its function of :mod:`flowsim.plot`, with its options, `ax` among them."""
        package = sys.modules[__name__.partition(".")[0]]  # which loads its figures on demand
        axes: Axes = getattr(package.plot, self._plotted_by)(self, **options)
        return axes


def number(value: Any) -> str:
    """At most six digits."""
    return f"{value:.6g}" if isinstance(value, int | float | np.number) else str(value)


def card(title: str, facts: Mapping[str, Any], figure: str = "", caption: str = "") -> str:
    """The facts as a table beside the figure; facts that are None are left out."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:normal;opacity:.7">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(number(value))}</td></tr>'
        for name, value in facts.items()
        if value is not None
    )
    below = f'<figcaption style="opacity:.7">{html.escape(caption)}</figcaption>'
    drawn = f'<figure style="margin:0">{figure}{below}</figure>'
    return (
        f'<div><strong>{html.escape(title)}</strong><div style="display:flex;flex-wrap:wrap;gap:1.5em">'
        f'<table style="margin:0"><tbody>{rows}</tbody></table>{drawn if figure else ""}</div></div>'
    )


def curves(x: Any, y: Any, label: str, *, log: bool = False) -> str:
    """The largest columns of y (T,) or (T, k) over x (T,), as lines.

    Parameters
    ----------
    label : str
        Description of the figure, for screen readers.
    log : bool
        A logarithmic ordinate; values that are not positive are left out.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    y = y.reshape(len(x), -1)
    if y.shape[1] > _MOST_CURVES:
        y = y[:, np.sort(np.argsort(-np.abs(y).max(axis=0), kind="stable")[:_MOST_CURVES])]
    if len(x) > _MOST_POINTS:
        kept = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(int))
        x, y = x[kept], y[kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(y > 0, np.log10(y), np.nan) if log else y
    seen = np.isfinite(y) & np.isfinite(x)[:, None]
    if len(x) < 2 or not seen.any():
        return ""
    across = _scaled(x, x[np.isfinite(x)], _WIDTH)
    up = _HEIGHT - _scaled(y, y[seen], _HEIGHT)
    lines = [
        f'<polyline fill="none" stroke="{_COLOURS[k % len(_COLOURS)]}" stroke-width="1.5" points="'
        + " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across[good], up[good, k], strict=True))
        + '"/>'
        for k, good in enumerate(seen.T)
    ]
    return _svg("".join(lines), label)


def bars(values: ArrayLike, label: str) -> str:
    """Bars of sizes >= 0 in descending order."""
    values = np.sort(np.asarray(values, dtype=float).ravel())[::-1][:_MOST_BARS]
    if not len(values) or not values[0] > 0 or not np.isfinite(values).all():
        return ""
    width = (_WIDTH - 2 * _MARGIN) / len(values)
    drawn = "".join(
        f'<rect x="{_MARGIN + k * width:.1f}" y="{_HEIGHT - _MARGIN - height:.1f}" width="{0.8 * width:.1f}" '
        f'height="{height:.1f}" fill="{_COLOURS[0]}"/>'
        for k, height in enumerate((_HEIGHT - 2 * _MARGIN) * values / values[0])
    )
    return _svg(drawn, label)


def _scaled(values: Any, shown: Any, size: int) -> Any:
    low, high = float(shown.min()), float(shown.max())
    return _MARGIN + (size - 2 * _MARGIN) * (values - low) / ((high - low) or 1.0)


def _svg(content: str, label: str) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" xmlns="http://www.w3.org/2000/svg">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="currentColor" stroke-opacity=".25"/>'
        f"{content}</svg>"
    )


def one_line(result: Any) -> str:
    """The ``__repr__`` of a dataclass of results: numbers and texts by value, arrays by shape."""
    parts = []
    for each in dataclasses.fields(result):
        value = getattr(result, each.name)
        if not each.repr or each.name.startswith("_") or value is None:
            continue
        if isinstance(value, str | bool | np.bool_ | int | float | np.number):
            text = number(value) if not isinstance(value, str) else value if len(value) <= 60 else value[:57] + "..."
            parts.append(f"{each.name}={text}")
        elif isinstance(value, np.ndarray):
            parts.append(f"{each.name} {value.shape}")
        elif isinstance(value, tuple | list):
            parts.append(f"{len(value)} {each.name}")
    return f"{type(result).__name__}({', '.join(parts)})"
