r"""Weight decay: the loss gains ``lambda(t)/2 ||theta||^2``, and every weight ``-lambda(t) theta``.

A schedule enters the flow through its rate lambda(t) and its integral ``K(t)``; for quadratic
formulas through K alone: ``ln|u + v| = ln|u_0 + v_0| + z - K``.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from flowsim.arrays import Array


@runtime_checkable
class Decay(Protocol):
    """The protocol of schedules of weight decay: two functions of time t >= 0.

    One whose rate jumps lists these times, increasing, in an attribute `times`: steps end there.
    """

    def rate(self, t: float) -> float:
        """``lambda(t) >= 0``."""

    def integral(self, t: float) -> float:
        """``K(t) = int_0^t lambda ds``, exactly."""


@dataclass(frozen=True)
class DecaySchedule:
    r"""Weight decay that is constant between given times.

    .. math:: \lambda(t) = \lambda_j \text{ for } t_{j-1} \le t < t_j, \qquad t_0 = 0.

    Parameters
    ----------
    times : sequence of float
        The times t_1 < t_2 < ... > 0 at which the decay changes, in the unit of ``traj.t``.
    rates : sequence of float
        One more than `times`, >= 0.

    Examples
    --------
    >>> import flowsim as fs
    >>> off = fs.DecaySchedule([10.0], [0.2, 0.0])
    >>> off.rate(3.0), off.rate(12.0), off.integral(12.0)
    (0.2, 0.0, 2.0)
    """

    times: tuple[float, ...]
    rates: tuple[float, ...]

    def __init__(self, times: Sequence[float], rates: Sequence[float]) -> None:
        object.__setattr__(self, "times", tuple(float(t) for t in times))
        object.__setattr__(self, "rates", tuple(float(rate) for rate in rates))
        if len(self.rates) != len(self.times) + 1:
            raise ValueError(
                f"`rates` must hold one more entry than `times`; received {len(self.rates)} and {len(self.times)}."
            )
        if not all(0 < t < math.inf for t in self.times) or any(b <= a for a, b in pairwise(self.times)):
            raise ValueError(f"`times` must be finite, > 0 and increase; received {self.times}.")
        if not all(0 <= rate < math.inf for rate in self.rates):
            raise ValueError(f"`rates` must be finite and >= 0; received {self.rates}.")

    def rate(self, t: float) -> float:
        """``lambda(t)``."""
        return self.rates[bisect_right(self.times, t)]

    def integral(self, t: float) -> float:
        """``K(t)``."""
        starts = (0.0, *self.times)
        pieces = ((b - a) * rate for (a, b), rate in zip(pairwise(starts), self.rates, strict=False))
        sums = (0.0, *accumulate(pieces))
        piece = bisect_right(self.times, t)
        return sums[piece] + (t - starts[piece]) * self.rates[piece]


@dataclass(frozen=True)
class ConstantDecay:
    """``lambda(t) = value``."""

    value: float

    def rate(self, t: float) -> float:
        return self.value

    def integral(self, t: float) -> float:
        return self.value * t


def check_decay(value: object) -> float | Decay:
    """A number >= 0 or a schedule; ValueError for anything else."""
    if isinstance(value, Decay):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(
            "`weight_decay` must be a number >= 0, a DecaySchedule, or an object with rate(t) and integral(t); "
            f"received {value!r}."
        )
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"`weight_decay` must be >= 0 and finite; received {value!r}.")
    return float(value)


def decay_of(weight_decay: float | Decay) -> Decay:
    """A weight decay, constant or not, as a schedule."""
    return weight_decay if isinstance(weight_decay, Decay) else ConstantDecay(weight_decay)


def jumps(decay: float | Decay) -> tuple[float, ...]:
    """Times at which the rate jumps."""
    return tuple(getattr(decay, "times", ()))


def integrals(decay: Decay, t: Array | float) -> Array:
    """K at times of any shape."""
    return np.vectorize(decay.integral, otypes=[float])(t)


def rates(decay: Decay, t: Array | float) -> Array:
    """lambda at times of any shape."""
    return np.vectorize(decay.rate, otypes=[float])(t)
