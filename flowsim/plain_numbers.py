"""Numbers and pairs of arrays given by a caller, checked: errors name the argument and say what was found."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from flowsim.arrays import Array


def finite(name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """A finite number > above and >= least; no text and no boolean."""
    try:
        if isinstance(value, bool | str | np.bool_):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{name}` must be a number; received {value!r}.") from None
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite; received {value!r}.")
    if not number > above:
        raise ValueError(f"`{name}` must be > {above:g}; received {value!r}.")
    if number < least:
        raise ValueError(f"`{name}` must be >= {least:g}; received {value!r}.")
    return number


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer >= least."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be an integer >= {least}; received {value!r}.")
    return min(int(value), sys.maxsize)


def reals(name: str, value: Any) -> Array:
    """An array of real numbers, finite or not."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers; received {error}.") from None


def read_seed(seed: Any) -> np.random.SeedSequence:
    """The seed as a SeedSequence; for None one of new entropy, which is recorded."""
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if seed is None:
        return np.random.SeedSequence()
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0, a SeedSequence or None; received {seed!r}.")
    return np.random.SeedSequence(int(seed))


def side_pair(name: str, pair: Any, d: int, bound: str) -> tuple[Array, Array]:
    """Values of d coordinates for their positive and their negative side, each a number or an array (d,)."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"`{name}` must be a pair (plus, minus); received {type(pair).__name__}.")
    plus, minus = (np.asarray(side, dtype=float) for side in pair)
    for side in (plus, minus):
        if side.shape not in ((), (d,)):
            raise ValueError(f"`{name}` must hold numbers or arrays of shape ({d},); received shape {side.shape}.")
        good = {"> 0": side > 0, ">= 0": side >= 0, ">= 0 and finite": (side >= 0) & np.isfinite(side)}[bound]
        if not good.all():
            raise ValueError(f"`{name}` must be {bound}; received {np.atleast_1d(side)[~np.atleast_1d(good)][0]}.")
    return np.broadcast_to(plus, (d,)), np.broadcast_to(minus, (d,))
