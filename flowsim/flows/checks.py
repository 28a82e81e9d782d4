"""Checks of the arguments of flows."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.network import InitialScale
from flowsim.plain_numbers import count
from flowsim.results import CLOCKS
from flowsim.solvers import SCIPY_METHODS

#: Number of times up to which the outcome of their check is remembered.
_FEW_TIMES = 1024
COORDINATES = ("auto", "growth", "log", "curve", "weights")
METHODS = ("auto", "native", *SCIPY_METHODS)


def positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{name}` must be a number > 0; received {value!r}.") from None
    if not 0 < number < math.inf:
        raise ValueError(f"`{name}` must be > 0 and finite; received {value!r}.")
    return number


def check_times(t_eval: ArrayLike, t_end: float) -> Array:
    try:
        times = np.asarray(t_eval, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`t_eval` must be a vector of times; received {t_eval!r}.") from None
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"`t_eval` must be a vector of times; received shape {times.shape}.")
    if len(times) > _FEW_TIMES:
        _check_all(times, t_end)
    else:
        _check_few(times.tobytes(), t_end)
    return times


@lru_cache(maxsize=32)
def _check_few(times: bytes, t_end: float) -> None:
    """Times that were right once are not examined again: that takes as long as some steps of a small flow."""
    _check_all(np.frombuffer(times), t_end)


def _check_all(times: Array, t_end: float) -> None:
    # Allow for rounding of linspace and of changes of unit at the end. NaN fails every comparison.
    increases = np.count_nonzero(times[1:] >= times[:-1]) == len(times) - 1
    if increases and times[0] >= 0 and times[-1] <= t_end * (1 + 1e-12):
        return
    if not np.isfinite(times).all():
        raise ValueError("`t_eval` must be finite; received NaN or infinity.")
    if (np.diff(times) < 0).any():
        raise ValueError("`t_eval` must not decrease.")
    raise ValueError(f"`t_eval` must lie in [0, {t_end:g}]; received [{times[0]:g}, {times[-1]:g}].")


def check_clock(clock: Any) -> None:
    """One of the clocks."""
    if clock not in CLOCKS:
        raise ValueError(f"`clock` must be one of {', '.join(CLOCKS)}; received {clock!r}.")


def check_accelerated(clock: str, scale: InitialScale) -> None:
    """A scale below 1 for the accelerated clock."""
    if clock == "accelerated" and not scale.gamma > 0:
        raise ValueError(f"`alpha` must be < 1 on the accelerated clock; received {scale}: take `clock='time'`.")


def check_tolerances(rtol: Any, atol: Any) -> tuple[float, float]:
    """``0 < rtol < 1`` and ``atol > 0``."""
    rtol, atol = positive("rtol", rtol), positive("atol", atol)
    if rtol >= 1:
        raise ValueError(f"`rtol` must be < 1, a relative accuracy; received {rtol:g}.")
    return rtol, atol


def check_options(
    clock: Any, coordinates: Any, method: Any, rtol: Any, atol: Any, max_steps: Any
) -> tuple[float, float, int]:
    """The tolerances and the budget of a flow, whose clock, coordinates and method are known ones."""
    try:
        return _check_once(clock, coordinates, method, rtol, atol, max_steps)
    except TypeError:  # arrays of one number have no hash
        return _check_options(clock, coordinates, method, rtol, atol, max_steps)


def _check_options(
    clock: Any, coordinates: Any, method: Any, rtol: Any, atol: Any, max_steps: Any
) -> tuple[float, float, int]:
    check_clock(clock)
    if coordinates not in COORDINATES:
        raise ValueError(f"`coordinates` must be one of {', '.join(COORDINATES)}; received {coordinates!r}.")
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}; received {method!r}.")
    return *check_tolerances(rtol, atol), count("max_steps", max_steps)


_check_once = lru_cache(maxsize=64, typed=True)(_check_options)
