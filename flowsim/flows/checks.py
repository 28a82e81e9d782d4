"""What a flow is given, checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_times", "positive"]

Array = NDArray[np.float64]


def positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be a number > 0; received {value!r}.") from None
    if not 0 < number < math.inf:
        raise ValueError(f"`{name}` must be > 0 and finite; received {value!r}.")
    return number


def check_times(t_eval: ArrayLike, t_end: float) -> Array:
    times = np.asarray(t_eval, dtype=float)
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"`t_eval` must be a vector of times; received shape {times.shape}.")
    # Rounding of linspace and of unit changes at the far end is forgiven. NaN fails every comparison.
    if (times[1:] >= times[:-1]).all() and times[0] >= 0 and times[-1] <= t_end * (1 + 1e-12):
        return times
    if not np.isfinite(times).all():
        raise ValueError("`t_eval` must be finite; received NaN or infinity.")
    if (np.diff(times) < 0).any():
        raise ValueError("`t_eval` must not decrease.")
    raise ValueError(f"`t_eval` must lie in [0, {t_end:g}]; received [{times[0]:g}, {times[-1]:g}].")
