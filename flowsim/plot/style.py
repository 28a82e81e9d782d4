"""What all figures share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import resources
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")
R = TypeVar("R")

#: The package's style sheet, for ``matplotlib.style.use``.
STYLE = str(resources.files("flowsim.plot").joinpath("flowsim.mplstyle"))


#: What is computed, what is the limit of vanishing initialisation, and how predictions are drawn.
FLOW, LIMIT = "#0072B2", "#D55E00"
PREDICTED: dict[str, Any] = {"color": "0.35", "lw": 0.9, "ls": ":"}


def colours(count: int) -> list[str]:
    """The palette's first colours, from the start again where they run out."""
    import matplotlib

    palette = [str(colour) for colour in matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]]
    return [palette[k % len(palette)] for k in range(count)]


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Draw with the package's style sheet, leaving the caller's settings as they were."""

    @wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib.style

        with matplotlib.style.context(STYLE):
            return function(*args, **kwargs)

    return drawn


def new_axes(ax: Axes | None, **options: Any) -> Axes:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(**options)[1]
