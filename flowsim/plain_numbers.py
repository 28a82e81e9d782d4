"""Numbers given by a caller, checked: errors name the argument and say what was found."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np


def finite(name: str, value: Any) -> float:
    """A finite number; no text and no boolean."""
    try:
        if isinstance(value, bool | str | np.bool_):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{name}` must be a number; received {value!r}.") from None
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite; received {value!r}.")
    return number


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer >= least."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be an integer >= {least}; received {value!r}.")
    return min(int(value), sys.maxsize)
