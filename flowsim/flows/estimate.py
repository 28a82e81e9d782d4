"""A run's own estimate of its global error: the distance to a companion run at tighter tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowsim.arrays import Array

#: The companion is so much tighter: what it errs itself is a small part of the difference.
TIGHTER = 50.0
#: Steps it may take for each one of the run's budget.
COMPANION_STEPS = 4
_MARGIN = 1.5
#: Part of the tolerance by which a run and its companion may both err: of SciPy's methods, and of no more steps.
_COMMON, _ALIKE = 0.02, 0.9
#: A run at a tolerance below this errs by rounding: no run is tighter, and one that is looser tells more.
_TIGHTEST = 5e-11
#: Places of a step that are examined, and points over which the difference counts: two steps to either side.
_INSIDE = np.array([0.0, 0.12, 0.3, 0.5, 0.7, 0.88])
_NEARBY = 4 * len(_INSIDE) + 1
_ROUNDINGS = 8 * np.finfo(float).eps


def companions(rtol: float) -> tuple[float, ...]:
    """Factors of the tolerance for the run to compare with, the next for when one cannot be carried through."""
    return (TIGHTER**-1, TIGHTER, TIGHTER**2) if rtol >= _TIGHTEST else (TIGHTER, TIGHTER**2)


def steps_of_companion(steps: int) -> int:
    """Steps after which a companion is given up: many times what any order of method needs."""
    return 2000 + 40 * steps


def in_common(method: str, steps: int, of_companion: int) -> float:
    """Part of the tolerance by which a run and its companion may both err, from how many steps they took."""
    return _ALIKE if of_companion <= steps else _COMMON if method != "native" else 0.0


def error_estimate(
    steps: Array, t: Array, beta: Array, run: Callable[[Array], Array], companion: Callable[[Array], Array]
) -> Array:
    """Estimated error of beta at times `t`, in the largest-entry norm.

    An error that changes sign is small there by chance: what counts is its size over the steps around, with a margin.

    Parameters
    ----------
    steps : array (S,)
        Ends of the run's steps.
    t, beta : array (T,), array (T, ...)
        What is reported.
    run, companion : callable
        beta at times (K,), shape (K, ...).
    """
    from scipy.ndimage import maximum_filter1d

    # The continuous extension has no error control of its own: steps are examined inside, and where they are read.
    inside = steps[:-1, None] + np.diff(steps)[:, None] * _INSIDE
    times = np.append(inside.ravel(), steps[-1])
    one, other = (side(times).reshape(len(times), -1) for side in (run, companion))
    nearby = maximum_filter1d(np.abs(one - other).max(axis=1), _NEARBY)
    own = np.abs(beta - companion(t)).reshape(len(t), -1).max(axis=1)
    after = np.clip(np.searchsorted(times, t), 1, len(times) - 1)
    size = np.abs(beta).reshape(len(t), -1).max(axis=1)
    # What is tiny is the exponential of a large number, and errs by the rounding of that.
    folds = 1.0 + np.abs(np.log(size, out=np.zeros(len(t)), where=size > 0))
    estimate: Array = _MARGIN * np.maximum(np.maximum(nearby[after - 1], nearby[after]), own)
    return estimate + _ROUNDINGS * folds * size


def unmoved(velocity: Array, t: Array, moved: Array, beta: Array, rtol: float) -> Array:
    """What a run misses that has not moved at all: motion below its tolerance, which its companion does not see either.

    Parameters
    ----------
    velocity : array (d,)
        ``d beta/dt`` at the start.
    t, moved, beta : array (T,), (T, d), (T, d)
        Times in the same unit, how far beta has come from its start, and beta.
    """
    size = np.abs(beta).max(axis=1)
    due = np.minimum(t * np.abs(velocity).max(), rtol * size)
    missed: Array = np.where(np.abs(moved).max(axis=1) <= _ROUNDINGS * size, due, 0.0)
    return missed
