"""What all figures share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import resources
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["STYLE", "new_axes", "styled"]

P = ParamSpec("P")
R = TypeVar("R")

#: The package's style sheet, for ``matplotlib.style.use``.
STYLE = str(resources.files("flowsim.plot").joinpath("flowsim.mplstyle"))


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
