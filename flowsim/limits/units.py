r"""Data of any scale: the limit process of data scaled by powers of two.

With ``X = 2^p X'`` and ``y = 2^q y'`` the process of X', y' is equivalent, without any rounding,

.. math:: \beta = 2^{q-p} \beta', \qquad g = 2^{p+q} g', \qquad t = 2^{-(p+q)} t',

while thresholds, which bound ``int g dt``, are unchanged. Losses other than squares keep their y, so that q = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array
from flowsim.problem import Problem, Regression
from flowsim.problem.entries import scaled
from flowsim.problem.problems import binary_exponent

#: Data whose largest entries have binary exponents up to this are not scaled: their squares, and those of far smaller
#: entries, neither overflow nor underflow.
_ORDINARY = 128
#: The latest time that a process can reach.
LATEST = float(np.finfo(float).max)


@dataclass(frozen=True)
class Units:
    """The binary exponents p of X and q of y."""

    p: int = 0
    q: int = 0

    def time(self, t: float) -> float:
        """Accelerated time from that of the scaled process; inf on overflow."""
        try:
            return math.ldexp(t, -(self.p + self.q))
        except OverflowError:
            return math.inf

    def beta(self, b: Array) -> Array:
        """Coefficients from those of the scaled process."""
        return b if self.p == self.q else np.ldexp(b, self.q - self.p)

    def cost(self, penalty: Array) -> Array:
        """A penalty in the units of the scaled process."""
        return penalty if self.p + self.q == 0 else np.ldexp(penalty, -(self.p + self.q))


def stopped_by_time(t_end: float) -> str:
    """The message of a process that stopped before its next jump."""
    if math.isfinite(t_end):
        return f"stopped at t_end={t_end:g}"
    return f"the next jump comes later than {LATEST:.1e}, the largest float; multiply X or y by a power of ten"


def exponent_of(values: Array) -> int:
    """e with ``max |values| < 2^e``, 0 for ordinary sizes and for zeros."""
    e = binary_exponent(values)
    return e if e is not None and abs(e) > _ORDINARY else 0


def in_units(problem: Problem, y: Array) -> tuple[Problem, Array, Units]:
    """Data scaled by powers of two, where their squares would leave the range of floats; `y`: targets of squares."""
    entries = problem.X if problem.is_dense else getattr(problem.X, "data", None)
    squares = isinstance(problem, Regression)
    units = Units(exponent_of(entries) if isinstance(entries, np.ndarray) else 0, exponent_of(y) if squares else 0)
    if units.p:
        X, weight = scaled(problem.X, -units.p), problem.sample_weight
        problem = Problem(X, problem.y, problem.loss_function, sample_weight=weight)
    return problem, np.ldexp(y, -units.q) if units.q else y, units
