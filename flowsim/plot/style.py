"""Style sheet, colours and axes of all figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from importlib import resources
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.hints import hinting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.results import Trajectory

P = ParamSpec("P")
R = TypeVar("R")

#: The package's style sheet, for ``matplotlib.style.use``.
STYLE = str(resources.files("flowsim.plot").joinpath("flowsim.mplstyle"))


#: Colours of computed curves and of the limit, and the line style of predictions.
FLOW, LIMIT = "#0072B2", "#D55E00"
PREDICTED: dict[str, Any] = {"color": "0.35", "lw": 0.9, "ls": ":"}

#: Width in points of a number on an axis, with a gap.
_NUMBER = 30.0
#: Parts of the fall of a loss at which it has begun and at which it is nearly over.
_BEGUN, _SETTLED = 0.01, 0.99
#: A run is dominated by its end if it lasts this many times as long as until the fall is nearly over.
_EARLY = 30.0


def colours(count: int) -> list[str]:
    """The first colours of the palette, repeated where necessary."""
    import matplotlib

    palette = [str(colour) for colour in matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]]
    return [palette[k % len(palette)] for k in range(count)]


def size_in_points(ax: Axes) -> tuple[float, float]:
    """Width and height."""
    own: Any = ax.get_figure()
    inches, place = own.figure.get_size_inches(), ax.get_position()  # of a subfigure its parent's
    return 72.0 * place.width * inches[0], 72.0 * place.height * inches[1]


def log_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic abscissa, labelled at 1, 2, 5 where powers of ten are few and the width allows."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    ax.set_xscale("log")
    if 3.0 * _NUMBER * math.log10(high / low) < size_in_points(ax)[0]:
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())  # each mark takes a millisecond, beside 1, 2, 5 none is missed
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(low, high)


def spans_decade(times: ArrayLike) -> bool:
    """Whether ascending times span more than a decade, so that their axis should be logarithmic."""
    times = np.asarray(times)
    return len(times) > 1 and bool(times[-1] > 10.0 * times[0])


def early(x: Array, losses: Array) -> float:
    """Half the time at which losses begin to fall, if nearly all of their fall is early in x; else 0."""
    fallen = losses[0] - losses
    begins, settled = (float(x[int(np.argmax(fallen > part * np.ptp(losses)))]) for part in (_BEGUN, _SETTLED))
    return begins / 2 if begins > 0 and _EARLY * settled < x[-1] else 0.0


def flow_label(traj: Trajectory) -> str:
    """The name of a flow in a legend, by its scale."""
    alpha = traj.info.get("alpha")
    return rf"flow, $\alpha$ = {alpha}" if alpha is not None else "flow"


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: draw with the package's style sheet, without changing the caller's settings."""

    @wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib.style

        with matplotlib.style.context(STYLE):
            return function(*args, **kwargs)

    return hinting(drawn)


def save(figure: Figure, file: Any, **options: Any) -> None:
    """Write a figure with the package's style sheet, whose resolution and fonts of files take effect here."""
    import matplotlib.style

    with matplotlib.style.context(STYLE):
        figure.savefig(file, **options)


def new_axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]
