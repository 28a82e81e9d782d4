"""Steps of a flow whose coordinates blow up at finite z, and the tables of their maps for compiled loops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.separable.flow import SeparableFlow


def address_of(array: NDArray[Any]) -> int:
    """The address of the first entry of an array, which the caller must keep alive."""
    return int(array.__array_interface__["data"][0])


class DistanceTables:
    """Both sides of coordinates for compiled code: :class:`flowsim.solvers.multistep.distances.Sides`.

    `flow` is taken at its start; `level` is the least ln(beta h) at which a coordinate is active.
    """

    def __init__(self, flow: SeparableFlow, tol: float, level: float) -> None:
        from flowsim.solvers.multistep.buffers import Memory, packed
        from flowsim.solvers.multistep.constants import CAUTION, REST
        from flowsim.solvers.multistep.distances import Sides

        laws, d = flow.powers, flow.d
        values = {
            "d": d,
            "terms": len(laws.series),
            "degree": laws.branches.size.shape[1],
            "record": 0,
            "row": 0,
            "head": [math.exp(laws.log_unit), tol, REST * tol / CAUTION, level],
            "distance": flow.distance,
            "rounding": np.zeros(2 * d),
            "moves": np.abs(flow.slope),
        }
        self._kind: Any = Sides
        self.integers, self.numbers = packed(Sides, {**laws._asdict(), **laws.branches._asdict(), **values})
        self._memory = Memory(self.numbers, self.integers)
        #: (2, d), the view of ``numbers`` with the distances to infinity
        self.distance = self._memory.floats(Sides, "distance", 2 * d).reshape(2, d)

    @property
    def addresses(self) -> NDArray[np.int64]:
        """Of the two buffers."""
        return np.array([address_of(self.integers), address_of(self.numbers)], dtype=np.int64)

    def record(self, rows: Array) -> None:
        """Record distances at the ends of the next steps in `rows` (S + 1, 2, d), beginning with the present ones."""
        rows[0] = self.distance
        self._memory.write(self._kind, record=address_of(rows))
        self._memory.indices(self._kind, "row", 1)[0] = 0


@dataclass(frozen=True, eq=False)
class DistanceSteps:
    """Distances, f = z' and f' at the ends of steps; h and f' are in the loop's unit of time."""

    t: Array  # (S + 1,)
    h: Array  # (S,)
    order: Array  # (S,): past points in the formula, 0 for a straight line
    place: Array  # (S + 1, 2, d)
    f: Array  # (S + 1, d)
    df: Array
    tables: DistanceTables
    loaded: None = None

    def speeds(self, nodes: Array) -> Array:
        """``|d beta/dt|`` at positions `nodes` of every step."""
        from flowsim.solvers.multistep.distance_reading import speeds

        out = np.empty((len(self.h), len(nodes)))
        speeds(self.tables.addresses, self.h, self.place, self.f, self.df, nodes, out)
        return out

    def states(self, flow: SeparableFlow, step: NDArray[np.intp], theta: Array) -> tuple[Array, Array]:
        """Distances at positions `theta` of steps, those to the infinity above first."""
        if np.isin(theta, (0.0, 1.0)).all():
            return self.place[step + (theta == 1.0)].reshape(len(step), -1), np.empty((0, flow.rows))
        from flowsim.solvers.multistep.distance_reading import between

        out = np.empty((len(step), 2 * flow.d))
        between(self.tables.addresses, self.h, self.place, self.f, self.df, step, theta, out)
        return out, np.empty((0, flow.rows))
