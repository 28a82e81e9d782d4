"""When the flow jumps: the limit's predictions against times measured on a trajectory."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from flowsim.limits import SaddlePath
from flowsim.results import Trajectory

__all__ = ["measured_jump_times", "plateau_times"]

Array = NDArray[np.float64]

#: Points looked at between two plateaus to find the step that crosses half way, and bisections inside that step.
_SAMPLES = 200
_BISECTIONS = 45


def plateau_times(path: SaddlePath, horizon: float) -> Array:
    """Accelerated times in the middle of the K + 1 plateaus; the last one ends at `horizon`."""
    edges = np.concatenate(
        [[0.0], path.jump_times, [max(horizon, path.jump_times[-1] if len(path.jump_times) else 0.0)]]
    )
    middles: Array = (edges[:-1] + edges[1:]) / 2
    return middles


def measured_jump_times(trajectory: Trajectory, path: SaddlePath) -> Array:
    r"""Accelerated times at which the flow is half way from one saddle to the next.

    .. math:: \frac{\langle \beta(t) - \beta_k, \beta_{k+1} - \beta_k \rangle}{\lVert \beta_{k+1} - \beta_k \rVert^2}
              = \frac12,

    searched between the middles of plateaus k and k + 1.

    Parameters
    ----------
    trajectory : Trajectory
        With dense output.
    path : SaddlePath
        The limit process of the same network and data.

    Returns
    -------
    array (K,)
        NaN where the flow does not cross in that interval (alpha too large, or the run too short).
    """
    horizon = float(trajectory.accelerated_time[-1])
    middles = plateau_times(path, horizon)
    measured = np.full(len(path.jump_times), np.nan)
    for jump, (low, high) in enumerate(itertools.pairwise(middles)):
        if low >= horizon or path.jump_times[jump] >= horizon:
            break
        before, step = path.saddles[jump], path.saddles[jump + 1] - path.saddles[jump]

        def progress(times: Array, before: Array = before, step: Array = step) -> Array:
            beta = trajectory.at(times, clock="accelerated").beta
            fraction: Array = (beta - before) @ step / (step @ step)
            return fraction - 0.5

        times = np.linspace(low, min(high, horizon), _SAMPLES)
        crossings = np.flatnonzero(np.diff(np.sign(progress(times))) > 0)
        if not len(crossings):
            continue
        first, last = times[crossings[0]], times[crossings[0] + 1]
        for _ in range(_BISECTIONS):
            middle = (first + last) / 2
            first, last = (middle, last) if progress(np.array([middle]))[0] < 0 else (first, middle)
        measured[jump] = (first + last) / 2
    return measured
