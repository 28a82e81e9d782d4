"""Growth curves as the native integrator takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from flowsim.growth.curve import Side
from flowsim.growth.curve_map import CurveMap
from flowsim.solvers.separable.curves import CurveArrays

__all__ = ["NativeCurves", "why_beyond"]

Array = NDArray[np.float64]

#: The integrator rejects a step whose prediction is off by more than this, in logarithms of weights.
_CORRECTED = 0.5


class NativeCurves:
    """The :class:`~flowsim.solvers.separable.curves.Curves` of a map."""

    def __init__(self, mapping: CurveMap) -> None:
        self.map = mapping
        around = np.full(len(mapping.which), 1.0 / mapping.rate)
        mapping(np.stack([-around, around]))

    def __call__(self, z: Array) -> tuple[Array, Array]:
        return self.map(z)

    def __reduce__(self) -> Any:
        return NativeCurves, (self.map,)

    def arrays(self) -> CurveArrays:
        table, curves = self.map.table, self.map.curves
        length = np.where(np.isfinite(table.high - table.low), table.high - table.low, 1.0)
        owner = np.repeat(np.arange(len(curves)), np.diff(table.first))
        beta = table.beta.copy()
        beta[:, 0] -= table.constant[owner]
        curvature = np.zeros_like(table.slope)
        curvature[:, :-1] = chebyshev.chebder(table.slope, axis=1) * (2.0 / length)[:, None]
        margin = _CORRECTED / self.map.rate
        ends = np.array([[_end(curve.below, margin), _end(curve.above, margin)] for curve in curves])
        return CurveArrays(
            first=table.first,
            low=table.low,
            high=table.high,
            closed=table.closed.astype(np.int64),
            log_c=table.log_c,
            sign_c=table.sign_c,
            rate=table.rate,
            energy=table.energy,
            beta=beta,
            slope=table.slope,
            curvature=curvature,
            least=ends[:, 0],
            most=ends[:, 1],
            which=self.map.which,
        )

    def cover(self, here: Array, low: Array, high: Array) -> str | None:
        found = self.map.beyond(here)
        if found is not None:
            return why_beyond(*found)
        self.map(np.stack([low, high]))
        return None


def _end(side: Side, margin: float) -> float:
    """How far predictions may go: corrections go a little farther."""
    if side.ended:
        return side.sign * math.inf if side.ended == "rest" else side.end
    return side.end - side.sign * min(margin, abs(side.end) / 2)


def why_beyond(i: int, why: str, beta: float) -> str:
    """What :meth:`CurveMap.beyond` found, in words."""
    if why == "saddle":
        return (
            f"coordinate {i} stands at a critical point of its formula, at {beta:.6g}, and would leave it again "
            "in a direction that floats do not carry"
        )
    return f"coordinate {i} left the range of its formula at {beta:.3g}; tighten `rtol`"
