"""Maps given as tables: growth curves as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from flowsim.solvers.array_kinds import Array


class Curves(Protocol):
    """Growth curves that are tabulated on demand during a run."""

    def arrays(self) -> Mapping[str, Any]:
        """The tables so far: the arrays of :class:`flowsim.solvers.multistep.curves.Table`, and perhaps more."""

    def cover(self, here: Array, low: Array, high: Array) -> str | None:
        """Extend the tables around a state z (d,) to an interval of each coordinate, as far as curves exist.

        Returns the reason why the state itself is beyond the end of a curve, or None.
        """

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """B and B' at z (..., d)."""
