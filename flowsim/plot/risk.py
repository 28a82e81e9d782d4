"""Training loss and risk on other data, along a run or a limit path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowsim.plot.style import FLOW, LIMIT, PREDICTED, early, log_axis, new_axes, styled
from flowsim.plot.trajectory import CLOCK_LABELS
from flowsim.problem import Problem
from flowsim.results import Clock, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flowsim.limits import SaddlePath


@styled
def train_test(
    run: Trajectory | SaddlePath, test: Problem, *, clock: Clock = "accelerated", ax: Axes | None = None
) -> Axes:
    """Training loss and test risk; a dotted line where the risk is least.

    Parameters
    ----------
    run : Trajectory or SaddlePath
    test : Problem
        Other data with the same features.
    clock : {"accelerated", "time", "arclength"}
        For a trajectory; a limit path has accelerated time alone.
    ax : matplotlib Axes, optional
    """
    ax = new_axes(ax)
    risk = run.risk(test)
    if isinstance(run, Trajectory):
        x, losses = run.clock_values(clock), run.loss
        best = float(x[int(np.argmin(risk))])
    else:
        clock = "accelerated"
        x, (losses, risk) = run.stairs(run.losses)[0], np.repeat([run.losses, risk], 2, axis=1)
        best = run.stop(test).begins
    ax.plot(x, losses, color=FLOW, label="training loss")
    ax.plot(x, risk, color=LIMIT, label="test risk")
    ax.axvline(best, label="_least", **PREDICTED)
    ax.set_xlabel(CLOCK_LABELS[clock])
    if low := early(x, losses):
        log_axis(ax, low, float(x[-1]))
    ax.set_ylabel(r"$L(\beta)$")
    ax.legend(loc="best")
    return ax
