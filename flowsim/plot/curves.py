"""Sampled curves of a trajectory for figures: dense where steps are long, and the visible ones of many coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.limits import SaddlePath
from flowsim.results import Clock, Trajectory
from flowsim.results.state import CLOCKS, State

#: "distance" is the arc length of beta alone, without time.
DrawnClock = Clock | str

#: Points between the recorded steps, evenly spaced in arc length; coordinates from which on recorded steps are drawn.
_SAMPLES, _MANY = 600, 5000
#: Fraction of the largest below which coordinates are not named; largest numbers of names and of grey lines.
NEGLIGIBLE = 0.02
MOST_NAMES = 10
_MOST_GREY = 150


@dataclass(frozen=True, eq=False)
class Drawn:
    """The drawn curves of a trajectory.

    Attributes
    ----------
    x : array (T,)
    beta : array (T, m)
        Values of the coordinates drawn.
    index : array (m,)
        Their indices, ascending.
    named : array
        Columns of `beta` that are named; the others are drawn grey.
    """

    x: Array
    beta: Array
    index: Index
    named: Index


def sample_times(traj: Trajectory, samples: int = _SAMPLES) -> Array:
    """Arc lengths at which a curve is drawn: the recorded steps, and as many between them along each of two lengths."""
    own = traj.arclength
    if traj.dense is None or not np.isfinite(own[-1]):
        return own
    # Along the distance of beta too: a jump may be a millionth of the arc length.
    way = np.maximum(own - traj.accelerated_time, 0.0)
    by_way = np.interp(np.linspace(0.0, way[-1], samples), way, own) if way[-1] > 0 else own[:0]
    even = np.linspace(own[0], own[-1], samples)
    return np.unique(np.clip(np.concatenate([own, even, by_way]), own[0], own[-1]))


def sampled(traj: Trajectory, clock: DrawnClock) -> State:
    """The states at which a curve is drawn: of wide runs the recorded ones, which are in memory."""
    if traj.dense is None or traj.beta[0].size > _MANY:
        return traj
    if clock != "log_loss":
        return traj.at(sample_times(traj), clock="arclength")
    own = on_clock(traj, clock)  # on the clock ln(1/L), as times may overflow
    return traj.at(np.unique(np.concatenate([own, np.linspace(own[0], own[-1], _SAMPLES)])), clock="log_loss")


def drawn(traj: Trajectory, clock: DrawnClock) -> Drawn:
    """Coordinates over a clock, the largest of them named."""
    state = sampled(traj, clock)
    part = slice(None, None, max(1, len(traj) // _SAMPLES) if state is traj and traj.dense is not None else 1)
    x, beta = on_clock(state, clock)[part], state.beta.reshape(len(state.t), -1)[part]
    peak = np.maximum(beta.max(axis=0), -beta.min(axis=0))
    index = np.sort(np.argsort(-peak, kind="stable")[: _MOST_GREY + MOST_NAMES])
    beta = beta[:, index]
    return Drawn(x, beta, index, worth_naming(beta))


def on_clock(state: State, clock: DrawnClock) -> Array:
    """The times of a state or a trajectory on a clock."""
    if clock == "distance":
        return np.maximum(np.asarray(state.arclength - state.accelerated_time), 0.0)
    if clock not in CLOCKS:
        raise ValueError(f"`clock` must be one of {', '.join((*CLOCKS, 'distance'))}; received {clock!r}.")
    return state.clock_values(clock)


def along_orbits(path: SaddlePath, samples: int) -> tuple[Array, Array]:
    """Distances travelled (K,), evenly spaced, and the coefficients there (K, d): the limit without its waiting."""
    if not len(path.jump_times):
        return np.zeros(1), path.saddles
    distance = np.linspace(0.0, path.length, samples)
    jump = np.minimum(np.searchsorted(path.travelled[1:], distance), len(path.jump_times) - 1)
    return distance, path.curve(path.jump_times[jump] + distance)


def simplified(x: Array, values: Array, tolerance: float) -> Index:
    """Points of curves (K, m) over x (K,), ascending, such that lines between them leave no curve by more than that.

    By bisection at the point farthest off (Ramer, Douglas and Peucker), with vertical distances.
    """
    kept, left = [0], [(0, len(x) - 1)][: len(x) - 1]
    while left:
        begin, end = left.pop()
        share = (x[begin:end] - x[begin]) / ((x[end] - x[begin]) or 1.0)
        line = values[begin] + share[:, None] * (values[end] - values[begin])
        off = np.abs(values[begin:end] - line).max(axis=1, initial=0.0)
        if end - begin > 1 and off.max() > tolerance:
            middle = begin + int(off[1:].argmax()) + 1
            left += [(middle, end), (begin, middle)]
        else:
            kept.append(end)
    return np.array(kept)


def worth_naming(values: Array) -> Index:
    """The largest columns of values (T, k), ascending, without negligible ones."""
    peak = np.abs(values).max(axis=0, initial=0.0)
    largest = np.sort(np.argsort(-peak, kind="stable")[:MOST_NAMES])
    return largest[peak[largest] > NEGLIGIBLE * peak.max(initial=0.0)]
