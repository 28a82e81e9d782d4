"""A run's own estimate of its global error: the distance to a companion run at tighter tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMPANION_STEPS", "TIGHTER", "error_estimate"]

Array = NDArray[np.float64]

#: The companion is so much tighter: what it errs itself is a small part of the difference.
TIGHTER = 50.0
#: Steps it may take for each one of the run's budget.
COMPANION_STEPS = 4
_MARGIN = 1.5
#: Points, two a step, over which the difference is looked at.
_NEARBY = 9
_ROUNDINGS = 8 * np.finfo(float).eps


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

    times = np.sort(np.concatenate([steps, (steps[1:] + steps[:-1]) / 2]))
    one, other = (side(times).reshape(len(times), -1) for side in (run, companion))
    nearby = maximum_filter1d(np.abs(one - other).max(axis=1), _NEARBY)
    after = np.clip(np.searchsorted(times, t), 1, len(times) - 1)
    rounding = _ROUNDINGS * np.abs(beta).reshape(len(t), -1).max(axis=1)
    estimate: Array = _MARGIN * np.maximum(nearby[after - 1], nearby[after]) + rounding
    return estimate
