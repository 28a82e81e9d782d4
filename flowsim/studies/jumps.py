"""Jump times: the predictions of the limit against times measured on a trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.limits import LinearSaddlePath, SaddlePath
from flowsim.results import Trajectory
from flowsim.solvers.roots import first_positions

#: Points evaluated between two plateaus to bracket the crossing, and their number if the first few find none.
_FEW, _MANY = 24, 200
#: Coefficients in memory at once.
_ENTRIES = 1 << 21
#: Gradient at the end, relative to that at 0, above which it is not rounding.
_ASKED = 1e-8
#: Reasons why a jump of the limit has no time of its own on a flow.
BEYOND = "beyond the horizon"
MERGED_BEFORE, MERGED_AFTER = "merged with the jump before", "merged with the jump after"
NOT_YET = "not yet crossed at the end of the run"


def plateau_times(path: SaddlePath | LinearSaddlePath, horizon: float) -> Array:
    """Accelerated times in the middle of the K + 1 plateaus; the last one ends at `horizon`."""
    edges = path.edges(max(horizon, path.jump_times[-1] if len(path.jump_times) else 0.0))
    return (edges[:-1] + edges[1:]) / 2


def measured_jump_times(trajectory: Trajectory, path: SaddlePath | LinearSaddlePath) -> Array:
    r"""Accelerated times at which the flow is half way from one saddle to the next.

    .. math:: \frac{\langle \beta(t) - \beta_k, \beta_{k+1} - \beta_k \rangle}{\lVert \beta_{k+1} - \beta_k \rVert^2}
              = \frac12,

    searched between the middles of plateaus k and k + 1.

    Parameters
    ----------
    trajectory : Trajectory
        With dense output.
    path : SaddlePath or LinearSaddlePath
        The limit process of the same network and data.

    Returns
    -------
    array (K,)
        NaN where the flow does not cross in that interval (alpha too large, or the run too short; :func:`jump_table`
        says which).
    """
    return _measure(trajectory, path)[0]


def _measure(trajectory: Trajectory, path: SaddlePath | LinearSaddlePath) -> tuple[Array, list[str]]:
    """The times, and for each NaN the reason (else an empty text)."""
    horizon = float(trajectory.accelerated_time[-1])
    middles = plateau_times(path, horizon)
    measured = np.full(len(path.jump_times), np.nan)
    reasons = [BEYOND] * len(path.jump_times)
    looked = np.flatnonzero(middles[:-1] < horizon)
    ends = np.minimum(middles[looked + 1], horizon)
    measured[looked], progress = _crossings(trajectory, path, looked, middles[looked], ends)
    for jump, first in zip(looked, progress, strict=True):
        # All jumps may come early, as from starts that are not small beside the data: between the jump before and here?
        before = measured[jump - 1] if jump else 0.0
        if np.isnan(measured[jump]) and first > 0 and np.isfinite(before):
            # The flow is past the half at this middle: if not yet at the jump before, few points find the crossing.
            only = np.array([jump])
            found, _ = _crossings(trajectory, path, only, np.array([before]), middles[only], points=(_FEW,))
            measured[jump] = found[0]
        last = jump == len(path.jump_times) - 1 or middles[jump + 1] >= horizon
        if np.isfinite(measured[jump]):
            reasons[jump] = ""
        elif path.jump_times[jump] < horizon:
            reasons[jump] = MERGED_BEFORE if first > 0 else NOT_YET if last else MERGED_AFTER
    return measured, reasons


def _crossings(
    trajectory: Trajectory,
    path: SaddlePath | LinearSaddlePath,
    jumps: Index,
    low: Array,
    high: Array,
    points: Sequence[int] = (_FEW, _MANY),
) -> tuple[Array, Array]:
    """The times between `low` and `high` half way to the next saddle (NaN: none), and the progress at `low`."""
    left, brackets = np.arange(len(jumps)), [np.empty((5, 0))]
    found_at, first = np.full((2, len(jumps)), np.nan)
    for samples in points if len(left) else ():
        # All jumps at once: reading few times of a wide run takes as long as reading many.
        times = np.linspace(low[left], high[left], samples, axis=1)
        fractions = _progress(trajectory, path, np.repeat(jumps[left], samples), times.ravel()).reshape(times.shape)
        first[left] = fractions[:, 0]
        rises = np.diff(np.sign(fractions), axis=1) > 0
        found = np.flatnonzero(rises.any(axis=1))
        at = rises[found].argmax(axis=1)
        brackets.append(np.stack([left[found], *(each[found, k] for each in (times, fractions) for k in (at, at + 1))]))
        left = np.delete(left, found)
        if not len(left):
            break
    numbers, begin, end, at_begin, at_end = np.concatenate(brackets, axis=1)
    rows = numbers.astype(np.intp)
    if len(rows):
        between = lambda x: begin + x * (end - begin)  # noqa: E731
        progress = lambda x: _progress(trajectory, path, jumps[rows], between(x))  # noqa: E731
        found_at[rows] = between(first_positions(progress, at_begin, at_end, rounding=1e-14))
    return found_at, first


def _progress(trajectory: Trajectory, path: SaddlePath | LinearSaddlePath, jumps: Index, times: Array) -> Array:
    """The fraction of the way from saddle to saddle, minus one half, for some jumps at some times."""
    out = np.empty(len(times))
    only: Index | None = None
    if isinstance(path, LinearSaddlePath):
        saddles = np.asarray(path.saddles)
    else:
        # Coordinates outside all supports do not contribute.
        only = np.unique(np.concatenate(path.active_sets)).astype(np.intp)
        saddles = np.zeros((len(path.supports), len(only)))
        for row, support, values in zip(saddles, path.supports, path.values, strict=True):
            row[np.searchsorted(only, support)] = values
    block = max(1, _ENTRIES // max(1, saddles[0].size))
    for first in range(0, len(times), block):
        part = slice(first, first + block)
        if only is None:
            beta = trajectory.at(times[part], clock="accelerated").beta
        else:
            beta = _coefficients(trajectory, times[part], only)
        befores = saddles[jumps[part]]
        steps = saddles[jumps[part] + 1] - befores
        axes = tuple(range(1, steps.ndim))
        unit = np.abs(steps).max(axis=axes, keepdims=True)  # so that squares neither overflow nor underflow
        along = steps / unit
        out[part] = np.sum((beta - befores) / unit * along, axis=axes) / np.sum(along**2, axis=axes) - 0.5
    return out


def _coefficients(trajectory: Trajectory, times: Array, only: Index) -> Array:
    """Some coefficients at accelerated times inside the run."""
    if trajectory.dense is None:
        return np.asarray(trajectory.at(times, clock="accelerated").beta)  # raises: there is no dense output
    return trajectory.dense.some(times, "accelerated", only)


def jump_table(trajectory: Trajectory, path: SaddlePath | LinearSaddlePath) -> list[dict[str, Any]]:
    """Every coordinate that enters or leaves the support, with its predicted and its measured time.

    Returns
    -------
    list of dict
        predicted, measured (None if the flow has no such time, with the reason `why`), feature, sign, kind, and `fall`,
        the decrease of the training loss in the jump; plain JSON values. A linear network has its rank after the jump
        instead of feature, sign and kind.
    """
    measured, reasons = _measure(trajectory, path)
    falls = -np.diff(path.losses)
    if isinstance(path, LinearSaddlePath):
        events: list[tuple[int, dict[str, Any]]] = [
            (jump, {"rank": int(rank)}) for jump, rank in enumerate(path.ranks[1:])
        ]
    else:
        events = [
            (event.jump, {"feature": event.name, "sign": "+" if event.sign > 0 else "-", "kind": event.kind})
            for event in path.events
        ]
    rows = []
    for jump, what in events:
        time = float(measured[jump])
        row: dict[str, Any] = {
            "predicted": float(path.jump_times[jump]),
            "measured": None if math.isnan(time) else time,
            **what,
            "fall": float(falls[jump]),
        }
        if reasons[jump]:
            row["why"] = reasons[jump]
        rows.append(row)
    return rows


def largest_jumps(table: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Of a :func:`jump_table` the rows of largest decrease of the loss, in order of time."""
    largest = sorted(range(len(table)), key=lambda k: -table[k]["fall"])[:most]
    return [table[k] for k in sorted(largest)]


def one_sided(path: SaddlePath | LinearSaddlePath) -> str | None:
    """A remark where the start allows one sign of coefficients only and the data require the other; else None."""
    if isinstance(path, LinearSaddlePath) or not path.complete:
        return None
    zero = np.zeros(path.problem.d)
    size = np.abs(path.problem.gradient(zero)).max()
    left = path.problem.gradient(path.end + path.offset)
    for threshold, force, sign in ((path.thresholds[1], left, "negative"), (path.thresholds[0], -left, "positive")):
        if np.isinf(threshold).all() and not np.any(path.penalties) and force.max() > _ASKED * size:
            return (
                f"from this start no coefficient can become {sign}, and the data require it: the path ends at the best "
                f"fit without {sign} coefficients"
            )
    return None
